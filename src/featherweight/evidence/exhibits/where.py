"""Where tuning helped and where it hurt: by the truth, by length, by the columns and keywords asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import headline, headline_of, kind_of
from featherweight.evidence.exhibits import Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part
from featherweight.statistics import paired
from featherweight.statistics.proportions import wilson

MOST_LABELS = 10  # with more, the terminal shows those on which the tuned model is least often right
_MOST_SLICES = 20  # of the truth's own: so many of the commonest, and so many with the lowest figure
_MOST_VALUES = 12
_LENGTH_BINS = 4
_OTHERS = frozenset({"length", "keyword"})

Members = tuple[tuple[str, str], NDArray[np.bool_]]


class Where:
    title: ClassVar[str] = "Where"

    def find(self, case: Case) -> Mapping[str, Any]:
        """Within ``where``: ``slices``, each with ``by``, ``value``, ``rows``, the headline of ``base`` and ``tuned``,
        the ``difference`` with its ``confidence_interval``, ``p_value``, ``p_value_holm`` over all slices as one family
        and ``verdict`` after the adjustment."""
        return {"where": {"slices": slices(case)}}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        chosen, left_out = shown_slices(metrics)
        rows = [
            parts.row(
                f"{one['by']}: {one['value']}",
                f"{one['rows']:,}",
                f"{one['base']:.4f}",
                f"{one['tuned']:.4f}",
                *parts.difference(one),
                f"{one['p_value_holm']:.3g}",
                verdict=one["verdict"],
            )
            for one in chosen
        ]
        columns = ["slice", "rows", "base", "tuned", "difference", "95 % interval", "p (Holm)", "verdict"]
        by = f" by {own}" if (own := _own(metrics)) else ""
        caption = (
            f"{headline_of(metrics).heading} on {metrics['evaluated_split']}{by}, by length, by the columns "
            "and keywords asked for"
        )
        return [parts.table(caption, columns, rows), *([parts.text(left_out)] if left_out else [])]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        """Where labels are many, those with the lowest figure."""
        found = of_truth(metrics)
        if len(found) <= MOST_LABELS:
            return []
        own = kind_of(metrics).described.column
        columns = [Column(own, words=True), Column("rows", 1), Column("base"), Column("tuned")]
        worst = sorted(found, key=_worst_first(metrics))[:MOST_LABELS]
        rows = [[one["value"], f"{one['rows']:,}", f"{one['base']:.4f}", f"{one['tuned']:.4f}"] for one in worst]
        title = f"The {MOST_LABELS} of {len(found):,} {own}s with the worst {headline_of(metrics).title}"
        return [Brief(title, columns, rows)]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""


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


def slices(case: Case) -> list[dict[str, Any]]:
    """The headline of both models on each slice; p-values are adjusted over all slices as one family (Holm)."""
    first = headline(case.kind)
    pair = tuple(first.of(side, case.truth) for side in case.pair)
    found: list[dict[str, Any]] = []
    for (by, value), chosen in _members(case):
        base, tuned = (side.select(chosen) for side in pair)
        one = paired.compare(first.name, (base, tuned), less_is_better=first.less_is_better)
        within = {} if tuned.outcomes is None else {"tuned_interval": list(wilson(int(tuned.outcomes.sum()), one.n))}
        found.append(
            {
                "by": by,
                "value": value,
                "rows": one.n,
                "base": base.of_all_rows,
                "tuned": tuned.of_all_rows,
                **within,
                "difference": one.difference,
                "confidence_interval": list(one.confidence_interval),
                "p_value": one.p_value,
            }
        )
    paired.adjust(found)
    for row in found:
        row["verdict"] = paired.verdict(row["difference"], row["p_value_holm"], first.less_is_better)
    return found


def of_truth(metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The slices by the truth itself, such as each label's, in the order of the kind."""
    return [one for one in metrics["where"]["slices"] if one["by"] == _own(metrics)]


def shown_slices(metrics: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """The slices that a reader can take in, and what to say of those that are left out."""
    kind = kind_of(metrics)
    every, labels = metrics["where"]["slices"], of_truth(metrics)
    if len(labels) <= 2 * _MOST_SLICES:
        return every, ""
    commonest = sorted(labels, key=lambda one: -one["rows"])[:_MOST_SLICES]
    worst = sorted(labels, key=_worst_first(metrics))[:_MOST_SLICES]
    kept = [one for one in every if one["by"] != _own(metrics) or one in commonest or one in worst]
    return kept, (
        f"Of the {len(labels):,} {kind.described.column}s these are the {_MOST_SLICES} commonest and the "
        f"{_MOST_SLICES} with the worst {headline(kind).title} of the tuned model; metrics.json has them all."
    )


def _worst_first(metrics: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], tuple[float, int]]:
    """By the tuned model's headline; of equals the one with more rows."""
    sign = -1 if headline_of(metrics).less_is_better else 1
    return lambda one: (sign * one["tuned"], -one["rows"])


def _own(metrics: Mapping[str, Any]) -> str | None:
    """What the first slices are by, where it is the truth itself."""
    first = next((one["by"] for one in metrics["where"]["slices"]), None)
    return None if first in _OTHERS else first


def _members(case: Case) -> Iterator[Members]:
    """One slice at a time, for there may be many."""
    texts = read_texts(case.examples.all_texts(), len(case.examples), case.keywords)
    return chain(
        case.kind.slices(case.truth),
        ((("length", name), chosen) for name, chosen in _length_bins(texts.words)),
        ((("keyword", word), chosen) for word, chosen in texts.holding.items() if chosen.any()),
        (
            ((column, value), chosen)
            for column in case.slice_columns
            for value, chosen in _commonest(case.examples.column(column))
        ),
    )


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
