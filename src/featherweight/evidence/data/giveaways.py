"""What gives the label away: a word, another column, or a text that is an identifier and no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.parts import Brief, Part
from featherweight.records.rows import numbers_of
from featherweight.statistics.proportions import wilson

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

SURE = 0.95
_LEAST_SHARE = 0.05  # of the label's rows that hold the word: rarer words explain little
_MOST_SHOWN = 10
_QUANTILES, _ROWS_PER_RANGE = 64, 20


class Giveaways:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``giveaways``: whether the texts look like an ``identifier``, ``words`` and ``columns`` that give the label
        away."""
        split = look.first
        rows, texts = look.sample()
        labels = numbers_of(split.truth)[rows]
        columns: dict[str, float] = {}
        for name in set(split.texts.column_names) - {"text"}:
            accuracy = column(list(split.texts.select(rows).values(name)), labels, look.seed)
            columns |= {name.removeprefix("column:"): accuracy} if accuracy is not None else {}
        found = [{**one, "label": look.kind.possible[one["label"]]} for one in words(texts, labels)]
        return {"giveaways": {"identifier": is_identifier(texts), "words": found, "columns": columns}}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        giveaway = found["giveaways"]
        lines = []
        if giveaway["identifier"]:
            lines.append("The texts look like identifiers, one word with a digit each; is it the right column?")
        lines += [
            f"A single word gives the label away: {one['share']:.1%} of the {one['rows']:,} rows with {one['word']!r} "
            f"are {one['label']!r}."
            for one in giveaway["words"][:3]
        ]
        lines += [
            f"The column {name!r} alone gives the label of {accuracy:.1%} of rows."
            for name, accuracy in giveaway["columns"].items()
        ]
        return lines

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []


def words(texts: Sequence[str], labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Words whose presence alone all but decides the label.

    A word counts where Wilson's lower limit for the share of its rows with one label is at least 0.95, that label is
    not as common without it, and the word stands in at least a twentieth of the label's rows.

    Returns:
        ``word``, ``label`` (class index), ``rows`` that hold it, ``share`` of them with the label; most rows first.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        vectorizer = CountVectorizer(binary=True, token_pattern=r"\w+", min_df=2, dtype=np.int32)
        present = vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs twice
        return []
    classes = int(labels.max()) + 1
    of_label = sparse.csr_matrix((np.ones(len(labels), dtype=np.int32), (labels, np.arange(len(labels)))))
    counts = (of_label @ present).tocsc()  # labels by words; most of them never meet
    totals, most = np.asarray(counts.sum(axis=0)).ravel(), counts.max(axis=0).toarray().ravel()
    best = np.asarray(counts.argmax(axis=0)).ravel()
    rows_of_label = np.bincount(labels, minlength=classes)
    likely = (most >= SURE * totals) & (most >= np.maximum(_LEAST_SHARE * rows_of_label[best], 2))
    found: list[dict[str, Any]] = []
    names = vectorizer.get_feature_names_out()
    for index in np.flatnonzero(likely):
        low, _ = wilson(int(most[index]), int(totals[index]))
        if low >= SURE and low > rows_of_label[best[index]] / len(labels):
            share = float(most[index] / totals[index])
            found.append(
                {"word": str(names[index]), "label": int(best[index]), "rows": int(totals[index]), "share": share}
            )
    return sorted(found, key=lambda one: -one["rows"])[:_MOST_SHOWN]


def column(values: Sequence[Any], labels: NDArray[np.int64], seed: int) -> float | None:
    """How often a column's value alone gives the label of rows that were not looked at.

    Half of the rows teach the commonest label of each value (numbers are cut into ranges first), the others are asked.

    Returns:
        Accuracy where Wilson's lower limit is at least 0.95 and above the commonest label's share, else None.
    """
    from featherweight.evidence.fitting import halves

    codes = _codes(values)
    teach, ask = halves(len(labels), seed)
    if len(teach) == 0:
        return None
    commonest = np.bincount(labels[teach]).argmax()
    answer_of = np.full(int(codes.max()) + 1, commonest)
    known, answer_of_known = _commonest_labels(codes[teach], labels[teach])
    answer_of[known] = answer_of_known
    answers = answer_of[codes[ask]]
    right = int((answers == labels[ask]).sum())
    low, _ = wilson(right, len(ask))
    base = float((labels[ask] == commonest).mean())
    return right / len(ask) if low >= SURE and low > base else None


def is_identifier(texts: Sequence[str]) -> bool:
    """Whether the texts look like identifiers: one word each, nearly all different, and most with a digit in them."""
    if len(texts) < 20:
        return False
    single = sum(len(text.split()) == 1 and any(char.isdigit() for char in text) for text in texts)
    return single >= SURE * len(texts) and len(set(texts)) >= SURE * len(texts)


def _commonest_labels(
    codes: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each code that occurs and the commonest of its labels, the smallest of those where several are."""
    pairs, counts = np.unique(np.stack([codes, labels]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    found, first = np.unique(pairs[0][order], return_index=True)
    return found, pairs[1][order][first]


def _codes(values: Sequence[Any]) -> NDArray[np.int64]:
    """Whole numbers for values: of their range where they are numbers and many, else of the value itself."""
    texts = np.asarray(["" if value is None else str(value) for value in values])
    distinct, codes = np.unique(texts, return_inverse=True)
    try:
        numbers = distinct.astype(np.float64)
    except ValueError:
        return np.asarray(codes, dtype=np.int64)
    ranges = min(_QUANTILES, max(len(texts) // _ROWS_PER_RANGE, 1))
    if len(distinct) <= ranges or not np.isfinite(numbers).all():
        return np.asarray(codes, dtype=np.int64)
    edges = np.quantile(numbers[codes], np.linspace(0, 1, ranges + 1)[1:-1])
    return np.searchsorted(edges, numbers[codes])
