"""Frozen records that travel between the stages. They hold data and derive from it; they do no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """One split as read, before any task looked at it.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        rows: memory-mapped Arrow rows with the columns of the source.
        origin: what messages call the source, such as a file's path.
        fingerprint: content hash or hub commit.
        label_names: names that the source itself declares for integer labels, by integer.
        skipped: rows left out because they can't be read.
    """

    name: str
    rows: datasets.Dataset
    origin: str
    fingerprint: str
    label_names: tuple[str, ...] | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Examples:
    """One split as a task sees it: texts on disk, labels as class indices in memory.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        texts: memory-mapped Arrow rows with the string column ``text``, and ``column:NAME`` for each column that the
            recipe slices or groups by.
        text_column: what the source calls that column.
        labels: int64, shape (rows,).
        ids: int64, shape (rows,), the row's number in its source, counted from 0.
        dropped: how many rows of the source are left out because their text is empty or only white space.
        origin: what messages and the report call the source.
        fingerprint: of the source.
        skipped: how many rows of the source are left out because they can't be read.
    """

    name: str
    texts: datasets.Dataset
    text_column: str
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    dropped: int
    origin: str
    fingerprint: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[np.int64], **changes: Any) -> Examples:
        """Some of the rows, in the order given, with other fields changed by name."""
        parts = {"texts": self.texts.select(rows), "labels": self.labels[rows], "ids": self.ids[rows]}
        return replace(self, **{**parts, **changes})

    def text(self, index: int) -> str:
        return str(self.texts[int(index)]["text"])

    def all_texts(self) -> Iterator[str]:
        """Every text in order, a thousand in memory at a time."""
        for batch in self.texts.select_columns("text").iter(batch_size=1000):
            yield from batch["text"]

    def column(self, name: str) -> list[str]:
        """The values of a column that was kept beside the text."""
        key = f"column:{name}"
        return [str(value) for batch in self.texts.select_columns(key).iter(batch_size=1000) for value in batch[key]]


@dataclass(frozen=True)
class Encoding:
    """One split's tokens, end to end and memory-mapped, so that rows cost disk and not memory.

    Attributes:
        tokens: int32, shape (total tokens,).
        offsets: int64, shape (rows + 1,); row ``i`` is ``tokens[offsets[i]:offsets[i + 1]]`` and never empty.
        labels: int64, shape (rows,).
        truncated: how many rows were cut at the maximal length.
        lost_tokens: how many tokens were cut off them in all.
        key: identifies the tokens, for what is kept on disk about them.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    truncated: int
    lost_tokens: int = 0
    key: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row; int64, shape (rows,)."""
        return np.diff(self.offsets)

    def row(self, index: int) -> NDArray[np.int32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


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
class EpochRecord:
    """One row of the training table: mean training loss since the last row, and the evaluation at its end."""

    epoch: float
    step: int
    training_loss: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What training gave besides the weights, which stay in the model (the best ones, where that was asked for)."""

    epochs: list[EpochRecord]
    best_step: int
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)


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


@dataclass(frozen=True)
class RunRecord:
    """A finished run: where it is and what ``metrics.json`` says. A notebook shows its figures."""

    path: str
    metrics: dict[str, Any]

    def _repr_html_(self) -> str:
        rungs = {
            **self.metrics["baselines"],
            "untuned model": self.metrics["base"],
            "tuned model": self.metrics["tuned"],
        }
        rows = "".join(
            f"<tr><th scope='row'>{escape(name)}</th><td>{one['eval_accuracy']:.4f}</td></tr>"
            for name, one in rungs.items()
        )
        return (
            f"<p><strong>{escape(self.metrics.get('headline', ''))}</strong></p><table><thead><tr>"
            f"<th scope='col'>model</th><th scope='col'>accuracy</th></tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{escape(self.path)}/report.html</p>"
        )
