"""Where tuning helped and where it hurt: by label, by length, by column; which examples changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.rows import Examples
from featherweight.statistics.proportions import compare, holm, wilson

Probabilities = NDArray[np.float32]

KEPT_EXAMPLES = 100
_MOST_DENSE = 20  # labels; the table of more has mostly zeros and more cells than anyone reads
_MOST_VALUES = 12
_LENGTH_BINS = 4
_SHOWN_CHARACTERS = 400
_SHORT = 10, 80  # characters of a text that fits a line and says something
_TRIED = 1000


@dataclass(frozen=True)
class Texts:
    """What slices need of the texts: ``words`` of each, int64, shape (rows,), and which rows hold a keyword."""

    words: NDArray[np.int64]
    holding: dict[str, NDArray[np.bool_]]


def read_texts(texts: Iterable[str], rows: int, keywords: Sequence[str] = ()) -> Texts:
    """Count words and look for keywords, whole words of any case, in one pass."""
    patterns = {word: re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", re.IGNORECASE) for word in keywords}
    words = np.zeros(rows, dtype=np.int64)
    holding = {word: np.zeros(rows, dtype=bool) for word in keywords}
    for row, text in enumerate(texts):
        words[row] = len(text.split())
        for word, pattern in patterns.items():
            holding[word][row] = pattern.search(text) is not None
    return Texts(words, holding)


def slices(
    base: Probabilities,
    tuned: Probabilities,
    labels: NDArray[np.int64],
    names: Sequence[str],
    texts: Texts,
    columns: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Accuracy of both models on each slice; p-values are adjusted over all slices as one family (Holm).

    Args:
        names: of the classes.
        texts: their lengths and which keywords they hold.
        columns: values of each column to slice by.

    Returns:
        For each slice ``by``, ``value``, ``rows``, ``base`` and ``tuned`` accuracy, the ``difference`` with its
        ``confidence_interval``, ``p_value``, ``p_value_holm`` and ``verdict`` after the adjustment.
    """
    members = chain(
        ((("label", names[one]), labels == one) for one in np.unique(labels)),  # one at a time: labels may be many
        ((("length", name), chosen) for name, chosen in _length_bins(texts.words)),
        ((("keyword", word), chosen) for word, chosen in texts.holding.items() if chosen.any()),
        (((column, value), chosen) for column, of in columns.items() for value, chosen in _commonest(of)),
    )
    before, after = base.argmax(axis=1) == labels, tuned.argmax(axis=1) == labels
    found: list[dict[str, Any]] = []
    for (by, value), chosen in members:
        pair = compare(before[chosen], after[chosen])
        found.append(
            {
                "by": by,
                "value": str(value),
                "rows": pair.n,
                "base": float(before[chosen].mean()),
                "tuned": float(after[chosen].mean()),
                "tuned_interval": list(wilson(int(after[chosen].sum()), pair.n)),
                "difference": pair.difference,
                "confidence_interval": list(pair.confidence_interval),
                "p_value": pair.p_value,
            }
        )
    for row, adjusted in zip(found, holm([row["p_value"] for row in found]), strict=True):
        row["p_value_holm"] = adjusted
        changed = "better" if row["difference"] > 0 else "worse"
        row["verdict"] = changed if adjusted < 0.05 else "no-difference"
    return found


def confusions(answers: Mapping[str, Probabilities], labels: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Which labels are taken for which by each model: all of the table where it is small, else what is not 0 of it.

    Returns:
        ``confusion`` where there are at most 20 labels, else ``confusion_cells``; each by model.
    """
    classes = next(iter(answers.values())).shape[1]
    kind, count = ("confusion", confusion) if classes <= _MOST_DENSE else ("confusion_cells", confusion_cells)
    return {kind: {model: count(probabilities, labels) for model, probabilities in answers.items()}}


def confusion(probabilities: Probabilities, labels: NDArray[np.int64]) -> list[list[int]]:
    """Counts of rows by label (outer) and prediction (inner)."""
    classes = probabilities.shape[1]
    cells = np.bincount(labels * classes + probabilities.argmax(axis=1), minlength=classes**2)
    return [[int(cell) for cell in row] for row in cells.reshape(classes, classes)]


def confusion_cells(probabilities: Probabilities, labels: NDArray[np.int64]) -> dict[str, list[int]]:
    """The same without its zeros: class index of ``label`` and ``prediction``, and ``rows``, of each cell."""
    pairs, rows = np.unique(np.stack([labels, probabilities.argmax(axis=1)]), axis=1, return_counts=True)
    return {"label": pairs[0].tolist(), "prediction": pairs[1].tolist(), "rows": rows.tolist()}


def changed_examples(
    examples: Examples, base: Probabilities, tuned: Probabilities, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Rows that only one model gets right, and the tuned model's mistakes.

    ``fixed`` and ``broken`` begin with those whose true label's probability moved most, ``mistakes`` with those the
    tuned model is surest of. ``base`` and ``tuned`` are the probabilities of the true label.
    """
    rows, labels = np.arange(len(examples)), examples.labels
    before, after = base[rows, labels], tuned[rows, labels]
    base_right, tuned_right = base.argmax(axis=1) == labels, tuned.argmax(axis=1) == labels
    moved = -np.abs(after.astype(np.float64) - before)
    chosen = {
        "fixed": (tuned_right & ~base_right, moved),
        "broken": (base_right & ~tuned_right, moved),
        "mistakes": (~tuned_right, -tuned.max(axis=1).astype(np.float64)),
    }
    return {
        kind: [
            {
                "id": int(examples.ids[row]),
                "text": _shorten(examples.text(row)),
                "label": names[labels[row]],
                "prediction": names[int(tuned[row].argmax())],
                "base": float(before[row]),
                "tuned": float(after[row]),
            }
            for row in rows[members][np.argsort(order[members], kind="stable")][:KEPT_EXAMPLES]
        ]
        for kind, (members, order) in chosen.items()
    }


def text_to_try(texts: Iterable[str]) -> str:
    """A row for people to ask about: the first that is short and plain, else the beginning of the first of all."""
    first = ""
    for text in islice(texts, _TRIED):
        if _SHORT[0] <= len(text) <= _SHORT[1] and text.isprintable() and text == text.strip().lstrip("-"):
            return text
        first = first or text
    plain = " ".join("".join(char if char.isprintable() else " " for char in first).split())
    return _shorten(plain.lstrip("- "), _SHORT[1])


def _length_bins(words: NDArray[np.int64]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Quarters of the rows by words, fewer where many texts are of one length."""
    edges = np.unique(np.quantile(words, np.linspace(0, 1, _LENGTH_BINS + 1), method="higher"))
    if len(edges) == 1:
        return [(f"{edges[0]} words", words == edges[0])]
    bins = []
    for index, (low, high) in enumerate(pairwise(edges)):
        least = low if index == 0 else low + 1
        chosen = (words >= least) & (words <= high)
        bins.append((f"{least} to {high} words" if least < high else f"{high} words", chosen))
    return [(name, chosen) for name, chosen in bins if chosen.any()]


def _commonest(values: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    distinct, codes, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return [(str(distinct[one]), codes == one) for one in np.argsort(-counts, kind="stable")[:_MOST_VALUES]]


def _shorten(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
