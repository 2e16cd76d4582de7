"""Which completions tuning made likelier, which it made less likely, and which are the least likely now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from featherweight.answers.text import NLL, TOKENS
from featherweight.evidence.exhibits import Case
from featherweight.evidence.exhibits.examples import by_change, cut
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part, shortened

_SHOWN = 3  # in the terminal
_IN_REPORT = 20


class CompletionExamples:
    title: ClassVar[str] = "Examples"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``: ``likelier`` and ``less_likely`` begin with the rows whose NLL a token changed most,
        ``mistakes`` with the tuned model's greatest. ``base`` and ``tuned`` are the models' NLL a token."""
        before, after = (side[NLL] / np.maximum(side[TOKENS], 1) for side in case.pair)

        def shown(row: int) -> dict[str, Any]:
            return {
                "id": int(case.examples.ids[row]),
                "text": cut(case.examples.text(row)),
                "completion": cut(case.kind.said(case.truth, row)),
                "base": float(before[row]),
                "tuned": float(after[row]),
            }

        return {"examples": by_change(("likelier", "less_likely", "mistakes"), before, after, shown)}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        captions = {
            "likelier": "Completions that became likelier, by NLL a token",
            "less_likely": "Completions that became less likely",
            "mistakes": "The least likely completions now",
        }
        columns = ["row", "prompt", "completion", "base", "tuned"]
        return [
            parts.table(
                captions[name],
                columns,
                [
                    parts.row(
                        str(one["id"] + 1), one["text"], one["completion"], f"{one['base']:.3f}", f"{one['tuned']:.3f}"
                    )
                    for one in found[:_IN_REPORT]
                ],
                "wordy",
            )
            for name, found in metrics["examples"].items()
            if found
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        columns = [
            Column("prompt", 2, words=True),
            Column("completion", words=True),
            Column("base", 1),
            Column("tuned"),
        ]
        titles = {"likelier": "Completions that became likelier", "less_likely": "Completions that became less likely"}
        return [
            Brief(
                title,
                columns,
                [
                    [
                        shortened(one["text"], 60),
                        shortened(one["completion"], 60),
                        f"{one['base']:.3f}",
                        f"{one['tuned']:.3f}",
                    ]
                    for one in metrics["examples"][name][:_SHOWN]
                ],
            )
            for name, title in titles.items()
            if metrics["examples"][name]
        ]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""
