"""Rows whose text also stands there with another truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.evidence.data import duplicates
from featherweight.records import parts
from featherweight.records.parts import Brief, Part
from featherweight.records.rows import numbers_of

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

_MOST_SHOWN = 20


class ConflictingLabels:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``conflicting_labels``: how many ``rows`` of all splits, and the first of them with their place."""
        normal = np.concatenate([look.prints[name].normal for name in look.splits])
        truth = np.concatenate([numbers_of(split.truth) for split in look.splits.values()])
        if truth.ndim == 2:  # sets of labels, each of which is one truth
            truth = np.unique(truth, axis=0, return_inverse=True)[1].reshape(-1)
        rows = duplicates.conflicting(normal, truth)
        shown = [look.shown_of_all(int(row)) for row in rows[:_MOST_SHOWN]]
        return {"conflicting_labels": {"rows": len(rows), "examples": shown}}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        conflicts = found["conflicting_labels"]["rows"]
        return [f"{conflicts:,} rows carry a text that also stands there with another label."] if conflicts else []

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        rows = [
            parts.row(str(one["row"]), one["text"], one["label"]) for one in found["conflicting_labels"]["examples"]
        ]
        return [parts.table("Same text, different labels", ["row", "text", "label"], rows, "wordy")] if rows else []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
