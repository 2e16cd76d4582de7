"""Pairs of which only the tuned model prefers the better answer, those of which only the untuned one does, and what the
tuned model is wrong about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from featherweight.answers.preference import LENGTHS, LOGPS, REWARDS, both, preferred
from featherweight.evidence.exhibits import MODELS, Case
from featherweight.evidence.exhibits.examples import KEPT_EXAMPLES, cut
from featherweight.records import parts
from featherweight.records.answers import Answers
from featherweight.records.parts import Brief, Column, Part, shortened

_SHOWN = 3  # in the terminal
_KINDS = ("fixed", "broken", "mistakes")


class PreferenceExamples:
    title: ClassVar[str] = "Examples"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``: each kind begins with the pairs whose reward margin is furthest from 0. ``base`` is by how many
        nats a token the chosen answer is likelier to the untuned model, ``tuned`` the tuned model's reward margin.
        ``preferred_by``: what tells what each model prefers, ``rewards``, or ``likelihood`` where those are all 0."""
        base, tuned = (preferred(side) for side in case.pair)
        before, margin = _likelier_by(case.base), case.tuned[REWARDS][:, 0] - case.tuned[REWARDS][:, 1]
        members = dict(zip(_KINDS, (tuned & ~base, base & ~tuned, ~tuned), strict=True))

        def shown(row: int) -> dict[str, Any]:
            chosen, rejected = both(case.truth, row)
            return {
                "id": int(case.examples.ids[row]),
                "text": cut(case.examples.text(row)),
                "chosen": cut(chosen),
                "rejected": cut(rejected),
                "base": float(before[row]),
                "tuned": float(margin[row]),
            }

        furthest = np.argsort(-np.abs(margin), kind="stable")
        rows = {name: furthest[of[furthest]][:KEPT_EXAMPLES] for name, of in members.items()}
        return {
            "examples": {name: [shown(int(row)) for row in found] for name, found in rows.items()},
            "preferred_by": {
                model: "rewards" if one[REWARDS].any() else "likelihood"
                for model, one in zip(MODELS, case.pair, strict=True)
            },
        }

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        names = ["row", "prompt", "chosen", "rejected", "base", "tuned"]
        groups = [
            (name, [[str(one["id"] + 1), *_cells(one)] for one in rows])
            for name, rows in metrics["examples"].items()
            if rows
        ]
        caption = (
            "Up to 100 of each kind; base: by how many nats a token the chosen answer is likelier to the untuned "
            "model; tuned: the tuned model's reward margin"
        )
        told = [parts.text(said)] if (said := self.sentence(metrics)) else []
        return [*told, *([parts.examples(caption, names, groups, texts=(1, 2, 3))] if groups else [])]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        columns = [
            Column("prompt", 3, words=True),
            Column("chosen", words=True),
            Column("rejected", 2, words=True),
            Column("base", 1),
            Column("tuned"),
        ]
        return [
            Brief(
                f"Pairs {kind} by tuning",
                columns,
                [
                    [*(shortened(one[key], 60) for key in ("text", "chosen", "rejected")), *_cells(one)[3:]]
                    for one in metrics["examples"][kind][:_SHOWN]
                ],
            )
            for kind in _KINDS[:2]
            if metrics["examples"][kind]
        ]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        if metrics["preferred_by"]["base"] == "rewards":
            return ""
        return (
            "What the tuned model prefers is told by its rewards; those of the untuned model are 0, so what it prefers "
            "is the answer that is likelier to it a token."
        )


def _likelier_by(answers: Answers) -> Any:
    mean = answers[LOGPS] / np.maximum(answers[LENGTHS], 1)
    return mean[:, 0] - mean[:, 1]


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [one["text"], one["chosen"], one["rejected"], f"{one['base']:+.3f}", f"{one['tuned']:+.3f}"]
