"""Which rows tuning brought nearest to their number, which it took furthest away, and where it is most wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from featherweight.answers.number import VALUE
from featherweight.evidence.exhibits import Case
from featherweight.evidence.exhibits.examples import by_change, cut
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part, shortened

_SHOWN = 3  # in the terminal
_IN_REPORT = 20


class Errors:
    title: ClassVar[str] = "Examples"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``: ``improved`` and ``worsened`` begin with the rows whose error changed most, ``mistakes`` with
        the tuned model's greatest errors. ``base`` and ``tuned`` are the models' numbers."""
        truth = np.asarray(case.truth)
        before, after = (np.abs(side[VALUE] - truth) for side in case.pair)

        def shown(row: int) -> dict[str, Any]:
            return {
                "id": int(case.examples.ids[row]),
                "text": cut(case.examples.text(row)),
                "truth": float(truth[row]),
                "base": float(case.base[VALUE][row]),
                "tuned": float(case.tuned[VALUE][row]),
            }

        return {"examples": by_change(("improved", "worsened", "mistakes"), before, after, shown)}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        captions = {"improved": "Brought nearest", "worsened": "Taken furthest away", "mistakes": "Greatest errors"}
        columns = ["row", "text", "truth", "base", "tuned"]
        return [
            parts.table(
                captions[name],
                columns,
                [
                    parts.row(
                        str(one["id"] + 1), one["text"], *(f"{one[key]:.4g}" for key in ("truth", "base", "tuned"))
                    )
                    for one in found[:_IN_REPORT]
                ],
                "wordy",
            )
            for name, found in metrics["examples"].items()
            if found
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        columns = [Column("text", words=True), Column("truth"), Column("base", 1), Column("tuned")]
        return [
            Brief(
                f"Examples {name} most by tuning",
                columns,
                [
                    [shortened(one["text"]), *(f"{one[key]:.4g}" for key in ("truth", "base", "tuned"))]
                    for one in metrics["examples"][name][:_SHOWN]
                ],
            )
            for name in ("improved", "worsened")
            if metrics["examples"][name]
        ]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""
