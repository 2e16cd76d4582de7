"""What a model said of some rows, and how two of them compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """What measuring a model on one split gave.

    Attributes:
        metrics: the Trainer's names and meanings: ``eval_loss``, the task's ``eval_*``, ``eval_runtime`` (seconds),
            ``eval_samples_per_second``, ``eval_steps_per_second``.
        probabilities: float32, shape (rows, classes), in the order of the split.
        labels: int64, shape (rows,).
    """

    metrics: dict[str, float]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Most probable class of each row; int64, shape (rows,)."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two sets of predictions for the same rows.

    ``difference`` is tuned minus base; ``fixed`` counts rows that only the tuned model gets right, ``broken`` those
    that only the base gets right; ``verdict`` is ``better``, ``worse`` or ``no-difference`` at the stated confidence.
    """

    metric: str
    n: int
    difference: float
    confidence_interval: tuple[float, float]
    confidence: float
    test: str
    p_value: float
    fixed: int
    broken: int
    verdict: str
