"""Which rows only one of the two models gets right, and what the tuned model gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.label import PROBABILITIES, predicted, right
from featherweight.evidence.exhibits import Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part, shortened

KEPT_EXAMPLES = 100
_SHOWN_CHARACTERS = 400
_SHOWN = 3  # in the terminal

Pair: TypeAlias = "Sequence[NDArray[Any]]"


class Examples:
    title: ClassVar[str] = "Examples"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``: ``fixed`` and ``broken`` begin with those whose true label's probability moved most,
        ``mistakes`` with those the tuned model is surest of. ``base`` and ``tuned`` are the probabilities of the true
        label."""
        rows = np.arange(len(case.examples))
        is_right = [right(side, case.truth) for side in case.pair]
        probability = [side[PROBABILITIES][rows, case.truth] for side in case.pair]
        names, said = case.kind.possible, predicted(case.tuned)
        surest_first = -case.tuned[PROBABILITIES].max(axis=1).astype(np.float64)
        return {"examples": chosen(case, is_right, probability, surest_first, lambda row: names[said[row]])}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        groups = [
            (
                name,
                [
                    [one["text"], one["label"], one["prediction"], f"{one['base']:.3f}", f"{one['tuned']:.3f}"]
                    for one in rows
                ],
            )
            for name, rows in metrics["examples"].items()
            if rows
        ]
        caption = "Up to 100 of each kind; base and tuned are the probabilities of the true label"
        columns = ["text", "label", "tuned says", "base", "tuned"]
        return [parts.examples(caption, columns, groups)] if groups else []

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        """A few with both models' probability of the true label."""
        columns = [Column("text", words=True), Column("label", words=True), Column("base", 1), Column("tuned")]
        return [
            Brief(
                f"Examples {kind} by tuning",
                columns,
                [
                    [shortened(row["text"]), row["label"], f"{row['base']:.2f}", f"{row['tuned']:.2f}"]
                    for row in rows[:_SHOWN]
                ],
            )
            for kind in ("fixed", "broken")
            if (rows := metrics["examples"][kind])
        ]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""


def chosen(
    case: Case, is_right: Pair, probability: Pair, worst_first: NDArray[np.float64], said: Callable[[int], str]
) -> dict[str, list[dict[str, Any]]]:
    """Rows that tuning fixed, those that it broke, and the tuned model's mistakes.

    Args:
        is_right: of which rows the untuned model is right, and the tuned one; shape (rows,).
        probability: that they give the truth; likewise.
        worst_first: the order of the mistakes, the least first; shape (rows,).
        said: what the tuned model answers to a row, in words.
    """
    base_right, tuned_right = is_right
    base, tuned = probability
    moved = -np.abs(tuned.astype(np.float64) - base)
    members = {
        "fixed": (tuned_right & ~base_right, moved),
        "broken": (base_right & ~tuned_right, moved),
        "mistakes": (~tuned_right, worst_first),
    }
    return {
        name: [
            {
                "id": int(case.examples.ids[row]),
                "text": cut(case.examples.text(row)),
                "label": case.kind.said(case.truth, row),
                "prediction": said(row),
                "base": float(base[row]),
                "tuned": float(tuned[row]),
            }
            for row in np.flatnonzero(of)[np.argsort(order[of], kind="stable")][:KEPT_EXAMPLES]
        ]
        for name, (of, order) in members.items()
    }


def by_change(
    names: Sequence[str], before: NDArray[Any], after: NDArray[Any], shown: Callable[[int], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Rows whose error tuning lowered, those whose it raised, by how much, and the tuned model's greatest errors.

    Args:
        names: of the three.
        before: each row's error by the untuned model, and ``after`` by the tuned one; shape (rows,).
        shown: a row for people.
    """
    gained = before - after
    orders = ((gained > 0, -gained), (gained < 0, gained), (after > 0, -after))
    return {
        name: [shown(int(row)) for row in np.flatnonzero(of)[np.argsort(order[of], kind="stable")][:KEPT_EXAMPLES]]
        for name, (of, order) in zip(names, orders, strict=True)
    }


def cut(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
