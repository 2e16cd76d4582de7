"""Rows of the same words with other tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.evidence.data import duplicates
from featherweight.records import parts
from featherweight.records.parts import Brief, Part
from featherweight.records.rows import Ragged

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

_MOST_SHOWN = 20


class ConflictingTags:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``conflicting_tags``: how many ``rows`` of all splits, and the first of them with their place."""
        exact = np.concatenate([look.prints[name].exact for name in look.splits])
        sequences: dict[bytes, int] = {}
        tags = [
            sequences.setdefault(split.truth.row(row).tobytes(), len(sequences))
            for split in look.splits.values()
            if isinstance(split.truth, Ragged)
            for row in range(len(split))
        ]
        rows = duplicates.conflicting(exact, np.asarray(tags, dtype=np.int64))
        shown = [look.shown_of_all(int(row)) for row in rows[:_MOST_SHOWN]]
        return {"conflicting_tags": {"rows": len(rows), "examples": shown}}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        count = found["conflicting_tags"]["rows"]
        return [f"{count:,} rows have words that also stand there with other tags."] if count else []

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        rows = [parts.row(str(one["row"]), one["text"], one["label"]) for one in found["conflicting_tags"]["examples"]]
        return [parts.table("Same words, other tags", ["row", "text", "tags"], rows, "wordy")] if rows else []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
