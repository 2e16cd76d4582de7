"""Labels that are likely wrong, by confident learning over out-of-fold probabilities of a word model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.evidence.logistic import WordModel
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part, shortened
from featherweight.records.rows import numbers_of

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

FOLDS = 5
_MOST_ROWS = 20_000  # five word models on so many rows take some ten seconds
_MOST_PROBABILITIES = 20_000_000
_KEPT, _IN_REPORT, _IN_TERMINAL = 100, 20, 10
_KEY = "suspected_label_errors"
_SUSPECTS = "Suspected label errors: {suspects:,} of {rows:,} {split} rows looked at, the most suspect first"


class SuspectedLabelErrors:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``suspected_label_errors``: how many ``suspects`` among the ``rows`` of a ``split``, and the first."""
        names, split = look.kind.possible, look.first
        rows, texts = look.sample(most_rows(len(names)))
        found = find(texts, numbers_of(split.truth)[rows], look.seed)
        shown = [
            look.shown(split, int(rows[one["row"]]), suggested=names[one["suggested"]], confidence=one["confidence"])
            for one in found[:_KEPT]
        ]
        return {_KEY: {"split": split.name, "rows": len(rows), "suspects": len(found), "examples": shown}}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return []

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        rows = [
            parts.row(str(one["row"]), one["text"], one["label"], one["suggested"])
            for one in found[_KEY]["examples"][:_IN_REPORT]
        ]
        columns = ["row", "text", "label", "suggested"]
        return [parts.table(_SUSPECTS.format(**found[_KEY]), columns, rows, "wordy")] if rows else []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        columns = [Column("row"), *(Column(name, words=True) for name in ("text", "label", "suggested"))]
        rows = [
            [str(one["row"]), shortened(one["text"]), one["label"], one["suggested"]]
            for one in found[_KEY]["examples"][:_IN_TERMINAL]
        ]
        return [Brief("Suspected label errors, most suspect first", columns, rows)] if rows else []


def most_rows(classes: int) -> int:
    """How many rows of so many classes are looked at."""
    return min(_MOST_ROWS, _MOST_PROBABILITIES // max(classes, 1))


def find(texts: Sequence[str], labels: NDArray[np.int64], seed: int) -> list[dict[str, Any]]:
    """Suspected label errors, the most suspect first.

    A row is suspect where a model that never saw it is confident of another label: more confident than it is on
    average of rows that carry that label (Northcutt, Jiang and Chuang, "Confident Learning", 2021). Suspects are for
    reading; nothing is changed.

    Args:
        texts: as many as fit :func:`most_rows`.
        labels: shape (rows,).

    Returns:
        ``row``, ``suggested`` class and ``confidence`` of the given label, for each; empty where a class has fewer
        rows than folds, or no text has a word.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or np.bincount(codes).min() < FOLDS:
        return []
    try:
        probabilities = out_of_fold(texts, codes, seed)
    except ValueError:  # no word at all
        return []
    suspects = confident_errors(probabilities, codes)
    return [
        {
            "row": int(row),
            "suggested": int(classes[probabilities[row].argmax()]),
            "confidence": float(probabilities[row, codes[row]]),
        }
        for row in suspects
    ]


def out_of_fold(texts: Sequence[str], labels: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Probabilities of each row from a TF-IDF logistic regression that did not see it; shape (rows, classes)."""
    from sklearn.model_selection import StratifiedKFold

    found = np.empty((len(labels), len(np.unique(labels))))
    for known, asked in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels):
        # Weaker regularisation would fit the wrong labels themselves.
        model = WordModel(strength=1.0, pattern=r"\S+", pairs=False)
        model.fit([texts[row] for row in known], labels[known])
        found[asked] = np.concatenate(list(model.probabilities(texts[row] for row in asked)))
    return found


def confident_errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows off the diagonal of the confident joint, least confidence in the given label first.

    It is ``cleanlab.filter.find_label_issues(filter_by="confident_learning")`` ranked by ``self_confidence``.

    Args:
        probabilities: out of fold; shape (rows, classes).
        labels: every class occurs; shape (rows,).
    """
    classes = probabilities.shape[1]
    thresholds = np.asarray([probabilities[labels == one, one].mean() for one in range(classes)])
    confident = probabilities >= thresholds - 1e-6
    several = confident.sum(axis=1) > 1
    guess = np.where(several, probabilities.argmax(axis=1), confident.argmax(axis=1))
    suspect = confident.any(axis=1) & (guess != labels)
    given = probabilities[np.arange(len(labels)), labels]
    rows = np.flatnonzero(suspect)
    return rows[np.argsort(given[rows], kind="stable")]
