"""Splits of which nearly all rows have one label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherweight.records.parts import Brief, Part

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

ONE_SIDED = 0.9


class OneSided:
    """Read off the label shares, which are there already."""

    def find(self, look: Look) -> Mapping[str, Any]:
        return {}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        one_sided: dict[str, list[str]] = {}
        for name, split in found["splits"].items():
            label, share = max(split["label_shares"].items(), key=lambda item: item[1], default=("", 0.0))
            if share > ONE_SIDED:
                one_sided.setdefault(label, []).append(f"{share:.1%} of {name}")
        return [
            f"{', '.join(parts)} rows are {label!r}: accuracy says little there; read macro-F1 and balanced accuracy."
            for label, parts in one_sided.items()
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
