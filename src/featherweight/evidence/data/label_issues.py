"""Labels that are likely wrong, by confident learning over out-of-fold probabilities of a word model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.evidence.logistic import WordModel
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part, shortened
from featherweight.records.rows import Examples, numbers_of

if TYPE_CHECKING:
    from featherweight.answers import Answer
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
        rows, found = _in_sample(look)
        shown = [
            look.shown(split, one["row"], suggested=names[one["suggested"]], confidence=one["confidence"])
            for one in found[:_KEPT]
        ]
        return {_KEY: {"split": split.name, "rows": rows, "suspects": len(found), "examples": shown}}

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


@dataclass(frozen=True)
class Suspects:
    """Rows of train that are left out because their label is suspected to be wrong.

    Attributes:
        train: with them.
        looked_at: how many of its rows were looked at: all, or a seeded sample of 20,000.
        found: ``row`` of ``train``, ``suggested`` class and ``confidence`` of the given one; the most suspect first.
    """

    train: Examples
    looked_at: int
    found: Sequence[Mapping[str, Any]]

    @property
    def kept(self) -> NDArray[np.int64]:
        """The rows of train that stay; ascending."""
        return np.setdiff1d(np.arange(len(self.train)), [one["row"] for one in self.found])

    def listed(self, kind: Answer) -> Iterator[dict[str, Any]]:
        """Each of them for people: its number in the source from 1, its text, both labels."""
        for one in self.found:
            yield {
                "row": int(self.train.ids[one["row"]]) + 1,
                "text": self.train.text(one["row"]),
                "label": kind.said(self.train.truth, one["row"]),
                "suggested": kind.possible[one["suggested"]],
                "confidence": one["confidence"],
            }


def suspects(look: Look) -> Suspects:
    """What is to be left out of train. Raises DataError where that leaves a class without rows."""
    looked_at, found = _in_sample(look)
    dropped = Suspects(look.first, looked_at, found)
    strata, names = look.kind.strata(look.first.truth)
    if lost := set(strata.tolist()) - set(strata[dropped.kept].tolist()):
        raise DataError(
            f"{look.first.origin}: every train row of {names[min(lost)]} has a label that is suspected to be wrong; "
            "read them with 'featherweight inspect data', or set data.drop_suspects = false"
        )
    return dropped


def _in_sample(look: Look) -> tuple[int, list[dict[str, Any]]]:
    """How many rows of the first split are looked at, and the suspects among them, by their ``row`` of the split."""
    rows, texts = look.sample(most_rows(len(look.kind.possible)))
    found = find(texts, numbers_of(look.first.truth)[rows], look.seed)
    return len(rows), [{**one, "row": int(rows[one["row"]])} for one in found]


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
