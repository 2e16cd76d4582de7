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
        """``one_sided``: for each split of which over nine rows in ten have one label, the ``label`` and its ``share``
        of the rows."""
        found = {}
        for name, split in look.splits.items():
            shares = look.kind.describe(split.truth)
            label, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
            if share > ONE_SIDED:
                found[name] = {"label": label, "share": share}
        return {"one_sided": found}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        splits: dict[str, list[str]] = {}
        for name, one in found.get("one_sided", {}).items():
            splits.setdefault(one["label"], []).append(f"{one['share']:.1%} of {name}")
        return [
            f"{', '.join(parts)} rows are {label!r}: accuracy says little there; read macro-F1 and balanced accuracy. "
            'training.class_weights = "auto" lets every label weigh the same.'
            for label, parts in splits.items()
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
