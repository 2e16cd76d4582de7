"""Statistics of labels that follow from three counts of each class, which add up over rows.

How often a class is the label, how often it is predicted, and how often it is both: every function here works on one
set of such counts or on many at once, so that resampling needs sums and no second look at the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featherweight.records.parts import Brief, Column
from featherweight.statistics.additive import Additive, Floats, ratio

_MOST_LISTED = 20
_MOST_NAMED = 5

Cells: TypeAlias = "tuple[NDArray[Any], ...]"


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


def count(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> ClassCounts:
    """Class counts of predicted and true classes; shape (rows,) each."""
    counts = [np.bincount(one, minlength=classes) for one in (labels, predictions, labels[predictions == labels])]
    return ClassCounts(*(one.astype(np.float64) for one in counts))


def macro_f1(counts: ClassCounts) -> Floats:
    """Mean F1 of the classes that occur among labels or predictions, as ``sklearn.metrics.f1_score`` has it."""
    both = counts.labels + counts.predictions
    return ratio(ratio(2 * counts.hits, both).sum(axis=-1), (both > 0).sum(axis=-1))


def balanced_accuracy(counts: ClassCounts) -> Floats:
    """Mean recall of the classes that occur among the labels (``sklearn.metrics.balanced_accuracy_score``)."""
    return ratio(ratio(counts.hits, counts.labels).sum(axis=-1), (counts.labels > 0).sum(axis=-1))


def matthews_correlation(counts: ClassCounts) -> Floats:
    """Matthews' correlation for any number of classes (Gorodkin 2004, R_K); 0 where one side has one class only."""
    rows = counts.rows
    agreement = rows * counts.hits.sum(axis=-1) - (counts.labels * counts.predictions).sum(axis=-1)
    spread = [rows**2 - (one**2).sum(axis=-1) for one in (counts.labels, counts.predictions)]
    return ratio(agreement, np.sqrt(spread[0] * spread[1]))


def by_label(counts: ClassCounts, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """``precision``, ``recall``, ``f1`` and ``support`` (rows) of each label; 0 where there is nothing to divide by."""
    parts = {
        "precision": ratio(counts.hits, counts.predictions),
        "recall": ratio(counts.hits, counts.labels),
        "f1": ratio(2 * counts.hits, counts.labels + counts.predictions),
    }
    return {
        name: {**{part: float(of[label]) for part, of in parts.items()}, "support": int(counts.labels[label])}
        for label, name in enumerate(names)
    }


def shown(found: Mapping[str, Mapping[str, float]], what: str, of: str) -> Brief:
    """What :func:`by_label` found as a table: in full, or the worst ones where there are many.

    Args:
        what: a name is of, such as ``label``.
        of: what the support is counted in.
    """
    columns = [Column(what, words=True), *map(Column, ("precision", "recall", "F1", of))]
    worst = sorted(found, key=lambda name: found[name]["f1"])[:_MOST_LISTED]
    some = f", the worst {len(worst)} of {len(found)} by F1" if len(worst) < len(found) else ""
    rows = [
        [name, *(f"{found[name][part]:.4f}" for part in ("precision", "recall", "f1")), f"{found[name]['support']:,}"]
        for name in found
        if name in worst
    ]
    return Brief(f"By {what}{some}", columns, rows)


def commonest(names: Sequence[str], rows: NDArray[np.integer[Any]], of: NDArray[np.int64]) -> str:
    """Some of the names with how many rows they have, the commonest first and no more than a reader takes in.

    Args:
        rows: of each name.
        of: places of those that are meant.
    """
    first = of[np.argsort(-rows[of], kind="stable")][:_MOST_NAMED]
    more = f" and {len(of) - _MOST_NAMED} more" if len(of) > _MOST_NAMED else ""
    return ", ".join(f"{names[one]!r} ({rows[one]:,})" for one in first) + more


def additive(
    of: Callable[[ClassCounts], Floats], predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> Additive:
    """A function of class counts as a statistic, where each row has one label and one prediction; shape (rows,)."""
    rows = np.arange(len(labels))
    hit = np.flatnonzero(predictions == labels)
    return of_cells(of, [(rows, labels), (rows, predictions), (hit, labels[hit])], len(labels), classes)


def of_cells(of: Callable[[ClassCounts], Floats], cells: Sequence[Cells], rows: int, classes: int) -> Additive:
    """A function of class counts as a statistic: three indicator columns for each class.

    Args:
        cells: where the labels, the predictions and the hits are: of each the row and the class.
    """
    where = np.concatenate([row for row, _ in cells])
    columns = np.concatenate([index * classes + one for index, (_, one) in enumerate(cells)])

    def features() -> Any:
        from scipy import sparse

        return sparse.csr_array((np.ones(len(where)), (where, columns)), shape=(rows, 3 * classes))

    total = np.bincount(columns, minlength=3 * classes).astype(np.float64)
    return Additive(features, lambda sums: of(ClassCounts(*np.split(sums, 3, axis=-1))), rows, total)
