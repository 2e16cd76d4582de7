"""Held-out rows that stand in train, in three senses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherweight.evidence.data import duplicates
from featherweight.records import parts
from featherweight.records.parts import Brief, Part

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look


class Twins:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``twins``: for each held-out split how many of its rows stand in train in each sense; each sense includes the
        stricter, and ``ids`` are those of the near ones."""
        if "train" not in look.prints:
            return {"twins": {}}
        train = look.prints["train"]
        found = {}
        for name, one in look.prints.items():
            if name != "train":
                near = duplicates.twins(look.groups[name], look.groups["train"])
                found[name] = {
                    "rows": len(near),
                    "exact": int(duplicates.twins(one.exact, train.exact).sum()),
                    "normalised": int(duplicates.twins(one.normal, train.normal).sum()),
                    "near": int(near.sum()),
                    "ids": look.splits[name].ids[near].tolist(),
                }
        return {"twins": found}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{twins['near']:,} of {twins['rows']:,} {name} rows have a twin in train: {twins['exact']:,} to the "
            f"byte, {twins['normalised'] - twins['exact']:,} but for case, white space and punctuation, "
            f"{twins['near'] - twins['normalised']:,} nearly."
            for name, twins in found["twins"].items()
            if twins["near"]
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        rows = [
            parts.row(name, f"{one['rows']:,}", *(f"{one[key]:,}" for key in ("exact", "normalised", "near")))
            for name, one in found["twins"].items()
        ]
        columns = ["split", "rows", "to the byte", "but for form", "nearly"]
        caption = "Rows that also stand in train; each sense includes the stricter"
        return [parts.table(caption, columns, rows)] if rows else []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
