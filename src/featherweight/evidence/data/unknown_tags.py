"""Tags of held-out splits that no row of train has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherweight.evidence.data.unknown_labels import unknown
from featherweight.records.parts import Brief, Part
from featherweight.tasks.reading.labels import listed

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look


class UnknownTags:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``unknown_tags``: for each held-out split that has any, the tags and how many words have them."""
        return {"unknown_tags": unknown(look, look.kind.facts()["labels"])}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{sum(tags.values()):,} words of {name} have tags that train lacks: {listed(list(map(repr, tags)))}."
            for name, tags in found["unknown_tags"].items()
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
