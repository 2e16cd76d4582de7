"""How good predictions are. Each metric is a function of probabilities and labels, named in the ``METRICS`` table.

All of them follow from three counts of each class, which add up over rows: how often it is the label, how often it is
predicted, and how often it is both. Resampling therefore needs sums and no second look at the rows; every function
below that takes counts works on one set of them or on many at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.answers import Evaluation
from featherweight.registry import METRICS

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassCounts:
    """Counts of each class, shape (..., classes) each: ``labels``, ``predictions`` and, where both agree, ``hits``."""

    labels: Floats
    predictions: Floats
    hits: Floats

    @property
    def rows(self) -> Floats:
        """Rows in all; shape (...)."""
        return np.asarray(self.labels.sum(axis=-1))


def count(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> ClassCounts:
    """Class counts of the most probable class of each row.

    Args:
        probabilities: shape (rows, classes).
        labels: shape (rows,).
    """
    classes = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1)
    counts = [np.bincount(one, minlength=classes) for one in (labels, predictions, labels[predictions == labels])]
    return ClassCounts(*(one.astype(np.float64) for one in counts))


def accuracy_of(counts: ClassCounts) -> Floats:
    """Share of rows whose most probable class is the label."""
    return _ratio(counts.hits.sum(axis=-1), counts.rows)


def macro_f1_of(counts: ClassCounts) -> Floats:
    """Mean F1 of the classes that occur among labels or predictions, as ``sklearn.metrics.f1_score`` has it."""
    both = counts.labels + counts.predictions
    return _ratio(_ratio(2 * counts.hits, both).sum(axis=-1), (both > 0).sum(axis=-1))


def balanced_accuracy_of(counts: ClassCounts) -> Floats:
    """Mean recall of the classes that occur among the labels (``sklearn.metrics.balanced_accuracy_score``)."""
    return _ratio(_ratio(counts.hits, counts.labels).sum(axis=-1), (counts.labels > 0).sum(axis=-1))


def matthews_correlation_of(counts: ClassCounts) -> Floats:
    """Matthews' correlation for any number of classes (Gorodkin 2004, R_K); 0 where one side has one class only."""
    rows = counts.rows
    agreement = rows * counts.hits.sum(axis=-1) - (counts.labels * counts.predictions).sum(axis=-1)
    spread = [rows**2 - (one**2).sum(axis=-1) for one in (counts.labels, counts.predictions)]
    return _ratio(agreement, np.sqrt(spread[0] * spread[1]))


OF_COUNTS: dict[str, Callable[[ClassCounts], Floats]] = {
    "accuracy": accuracy_of,
    "macro_f1": macro_f1_of,
    "balanced_accuracy": balanced_accuracy_of,
    "matthews_correlation": matthews_correlation_of,
}


def accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """:func:`accuracy_of` for probabilities, shape (rows, classes), and labels, shape (rows,)."""
    return float(accuracy_of(count(probabilities, labels)))


def macro_f1(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """:func:`macro_f1_of` for probabilities, shape (rows, classes), and labels, shape (rows,)."""
    return float(macro_f1_of(count(probabilities, labels)))


def balanced_accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """:func:`balanced_accuracy_of` for probabilities, shape (rows, classes), and labels, shape (rows,)."""
    return float(balanced_accuracy_of(count(probabilities, labels)))


def matthews_correlation(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """:func:`matthews_correlation_of` for probabilities, shape (rows, classes), and labels, shape (rows,)."""
    return float(matthews_correlation_of(count(probabilities, labels)))


def by_label(counts: ClassCounts, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """``precision``, ``recall``, ``f1`` and ``support`` (rows) of each label; 0 where there is nothing to divide by."""
    parts = {
        "precision": _ratio(counts.hits, counts.predictions),
        "recall": _ratio(counts.hits, counts.labels),
        "f1": _ratio(2 * counts.hits, counts.labels + counts.predictions),
    }
    return {
        name: {**{part: float(of[label]) for part, of in parts.items()}, "support": int(counts.labels[label])}
        for label, name in enumerate(names)
    }


def evaluation_of(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    loss: float,
    metrics: Iterable[str],
    seconds: float,
    batch_size: int,
) -> Evaluation:
    """An evaluation under the Trainer's names.

    Args:
        probabilities: shape (rows, classes).
        labels: shape (rows,).
        loss: mean over the rows.
        metrics: names in :data:`~featherweight.registry.METRICS`.
        batch_size: what ``eval_steps_per_second`` counts in.
    """
    rows = len(labels)
    found = {"eval_loss": loss, **{f"eval_{name}": METRICS[name](probabilities, labels) for name in metrics}}
    found |= {
        "eval_runtime": seconds,
        "eval_samples_per_second": rows / seconds,
        "eval_steps_per_second": math.ceil(rows / batch_size) / seconds,
    }
    return Evaluation(found, probabilities, labels)


def _ratio(above: Any, below: Any) -> Floats:
    """Quotient, 0 where there is nothing to divide by."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
