"""Which rows only one of the two models gets right, and what the tuned model gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from featherweight.answers.label import PROBABILITIES, predicted, right
from featherweight.evidence.exhibits import Case
from featherweight.records.parts import Brief, Column, Part, shortened

KEPT_EXAMPLES = 100
_SHOWN_CHARACTERS = 400
_SHOWN = 3  # in the terminal


class Examples:
    title: ClassVar[str] = "Examples"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``: ``fixed`` and ``broken`` begin with those whose true label's probability moved most,
        ``mistakes`` with those the tuned model is surest of. ``base`` and ``tuned`` are the probabilities of the true
        label."""
        examples, labels = case.examples, case.truth
        names = case.kind.possible
        rows = np.arange(len(examples))
        before, after = (side[PROBABILITIES][rows, labels] for side in case.pair)
        base_right, tuned_right = (right(side, labels) for side in case.pair)
        moved = -np.abs(after.astype(np.float64) - before)
        said = predicted(case.tuned)
        chosen = {
            "fixed": (tuned_right & ~base_right, moved),
            "broken": (base_right & ~tuned_right, moved),
            "mistakes": (~tuned_right, -case.tuned[PROBABILITIES].max(axis=1).astype(np.float64)),
        }
        found = {
            kind: [
                {
                    "id": int(examples.ids[row]),
                    "text": cut(examples.text(row)),
                    "label": names[labels[row]],
                    "prediction": names[said[row]],
                    "base": float(before[row]),
                    "tuned": float(after[row]),
                }
                for row in rows[members][np.argsort(order[members], kind="stable")][:KEPT_EXAMPLES]
            ]
            for kind, (members, order) in chosen.items()
        }
        return {"examples": found}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        groups = [(name, rows) for name, rows in metrics["examples"].items() if rows]
        caption = "Up to 100 of each kind; base and tuned are the probabilities of the true label"
        return [{"kind": "examples", "caption": caption, "groups": groups}] if groups else []

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


def cut(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
