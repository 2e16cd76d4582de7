"""What a model said of some rows, and how two of them compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherweight.records.rows import join

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featherweight.records.rows import Column


@dataclass(frozen=True)
class Answers:
    """What one model said of some rows, as its kind of answer keeps it.

    Attributes:
        columns: by the names that the kind gives them, one entry a row each.
    """

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> Any:
        """An array with one entry a row, or ragged rows: the kind knows which."""
        return self.columns[column]

    def select(self, rows: NDArray[np.int64]) -> Answers:
        """Some of the rows, by their numbers."""
        return Answers({name: column[rows] for name, column in self.columns.items()})


def joined(parts: Sequence[Answers]) -> Answers:
    """The rows of all parts, one part after the other; there is at least one."""
    return Answers({name: join([part.columns[name] for part in parts]) for name in parts[0].columns})


@dataclass(frozen=True)
class Likeness:
    """How alike two models answer the same rows.

    Attributes:
        agreement: share of the rows that are decided alike.
        differences: the largest of each row; float64, shape (rows,).
        of: what differs by them, such as "probability".
        decisions: what is decided, such as "labels".
        tolerance: a difference that rounding explains, where both compute the same in fp32.
        scale: what a loss of the headline is measured in; 1 where that is a share.
    """

    agreement: float
    differences: NDArray[Any]
    of: str
    decisions: str
    tolerance: float
    scale: float = 1.0

    @property
    def largest_difference(self) -> float:
        return float(self.differences.max())


@dataclass(frozen=True)
class Evaluation:
    """What measuring a model on one split gave.

    Attributes:
        metrics: the Trainer's names and meanings: ``eval_loss``, the kind's ``eval_*``, ``eval_runtime`` (seconds),
            ``eval_samples_per_second``, ``eval_steps_per_second``.
        answers: in the order of the split.
    """

    metrics: dict[str, float]
    answers: Answers


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two sets of predictions for the same rows.

    ``difference`` is tuned minus base; ``verdict`` is ``better``, ``worse`` or ``no-difference`` at the stated
    confidence. Where the metric is a share of rows, ``fixed`` counts those that only the tuned model gets right and
    ``broken`` those that only the base gets right; else both are None.
    """

    metric: str
    n: int
    difference: float
    confidence_interval: tuple[float, float]
    confidence: float
    test: str
    p_value: float
    fixed: int | None
    broken: int | None
    verdict: str
