"""Rows whose text also stands there with a number that is far off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.records import parts
from featherweight.records.parts import Brief, Part
from featherweight.records.rows import numbers_of

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

_MOST_SHOWN = 20
_FAR = 1.0  # standard deviations of all numbers between the least and the greatest of one text


class ConflictingNumbers:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``conflicting_numbers``: how many ``rows`` of all splits, and the first of them with their place."""
        normal = np.concatenate([look.prints[name].normal for name in look.splits])
        truth = np.concatenate([numbers_of(split.truth) for split in look.splits.values()])
        _, codes = np.unique(normal, return_inverse=True)
        least, greatest = np.full(codes.max() + 1, np.inf), np.full(codes.max() + 1, -np.inf)
        np.minimum.at(least, codes, truth)
        np.maximum.at(greatest, codes, truth)
        far = (greatest - least)[codes] > _FAR * truth.std()
        rows = np.flatnonzero(far)[np.argsort(codes[far], kind="stable")]  # those of one text side by side
        shown = [look.shown_of_all(int(row)) for row in rows[:_MOST_SHOWN]]
        return {"conflicting_numbers": {"rows": len(rows), "examples": shown}}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        count = found["conflicting_numbers"]["rows"]
        what = "rows carry a text that also stands there with a number more than a standard deviation away."
        return [f"{count:,} {what}"] if count else []

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        rows = [
            parts.row(str(one["row"]), one["text"], one["label"]) for one in found["conflicting_numbers"]["examples"]
        ]
        return [parts.table("Same text, far numbers", ["row", "text", "number"], rows, "wordy")] if rows else []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
