"""Which labels go together, in truth and in answers, and which are answered instead of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.labels import decided
from featherweight.evidence.exhibits import MODELS, Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Part

_KEPT = 30
_MOST_LABELS = 5  # of a row; more are counted together

Sets = NDArray[np.bool_]


class CoOccurrence:
    title: ClassVar[str] = "Labels together"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``co_occurrence``: ``labels_a_row``, rows by how many labels they have, the last entry for 5 and more;
        ``pairs``, the commonest two labels of one row; ``instead``, labels that are missed by the tuned model in rows
        where it answers another that is not true. Each for the truth and both models, in rows."""
        names = case.kind.possible
        sides = {"truth": np.asarray(case.truth)}
        sides |= {model: decided(answers) for model, answers in zip(MODELS, case.pair, strict=True)}
        together = {side: _both(sets, sets) for side, sets in sides.items()}
        missed, spurious = sides["truth"] & ~sides["tuned"], sides["tuned"] & ~sides["truth"]
        instead = _both(missed, spurious)
        return {
            "co_occurrence": {
                "labels_a_row": {side: _numbers(sets) for side, sets in sides.items()},
                "pairs": [
                    {
                        "labels": [names[one], names[other]],
                        **{side: int(of[one, other]) for side, of in together.items()},
                    }
                    for one, other in _largest(np.triu(together["truth"], 1))
                ],
                "instead": [
                    {"label": names[one], "prediction": names[other], "rows": int(instead[one, other])}
                    for one, other in _largest(instead)
                ],
            }
        }

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        found = metrics["co_occurrence"]
        sides = ("truth", *MODELS)
        numbers = [
            parts.row(
                f"{number}{' or more' if number == _MOST_LABELS else ''}",
                *(f"{found['labels_a_row'][side][number]:,}" for side in sides),
            )
            for number in range(_MOST_LABELS + 1)
            if any(found["labels_a_row"][side][number] for side in sides)
        ]
        pairs = [
            parts.row(" and ".join(one["labels"]), *(f"{one[side]:,}" for side in sides)) for one in found["pairs"]
        ]
        instead = [parts.row(one["label"], one["prediction"], f"{one['rows']:,}") for one in found["instead"]]
        columns = ["truth", "before", "after"]
        tables = [
            ("Rows by how many labels they have", ["labels", *columns], numbers),
            ("Labels that stand in one row", ["labels", *columns], pairs),
            ("What the tuned model answers where it misses a label", ["missed", "answered", "rows"], instead),
        ]
        return [parts.table(caption, heads, rows) for caption, heads, rows in tables if rows]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""


def _both(one: Sets, other: Sets) -> NDArray[np.int64]:
    """In how many rows each label of the one stands beside each of the other; shape (labels, labels)."""
    from scipy import sparse

    return np.asarray((sparse.csr_array(one.astype(np.int64)).T @ sparse.csr_array(other.astype(np.int64))).toarray())


def _numbers(sets: Sets) -> list[int]:
    counts = np.minimum(sets.sum(axis=1), _MOST_LABELS)
    return [int(one) for one in np.bincount(counts, minlength=_MOST_LABELS + 1)]


def _largest(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where the largest counts above 0 are, the largest first."""
    order = np.argsort(-counts, axis=None, kind="stable")[:_KEPT]
    places = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [(int(one), int(other)) for one, other in places if counts[one, other] > 0]
