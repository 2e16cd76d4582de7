"""Tags of held-out splits that no row of train has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.records.parts import Brief, Part
from featherweight.records.rows import numbers_of
from featherweight.tasks.reading.labels import listed

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look


class UnknownTags:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``unknown_tags``: for each held-out split that has any, the tags and how many words have them."""
        if "train" not in look.splits:
            return {"unknown_tags": {}}
        tags = {name: numbers_of(split.truth) for name, split in look.splits.items()}
        unknown = {name: one[~np.isin(one, tags["train"])] for name, one in tags.items()}
        names = look.kind.facts()["labels"]
        return {
            "unknown_tags": {
                name: {names[tag]: int(words) for tag, words in zip(*np.unique(one, return_counts=True), strict=True)}
                for name, one in unknown.items()
                if len(one)
            }
        }

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{sum(tags.values()):,} words of {name} have tags that train lacks: {listed(list(map(repr, tags)))}."
            for name, tags in found["unknown_tags"].items()
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
