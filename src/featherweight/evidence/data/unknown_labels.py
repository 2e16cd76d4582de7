"""Labels of held-out splits that no row of train has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.records.parts import Brief, Part
from featherweight.records.rows import numbers_of
from featherweight.tasks.reading.labels import listed

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look


def unknown(look: Look, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each held-out split that has any: by name, how often the truth is what train never has.

    Args:
        names: by number.
    """
    if "train" not in look.splits:
        return {}
    truth = {name: numbers_of(split.truth) for name, split in look.splits.items()}
    others = {name: one[~np.isin(one, truth["train"])] for name, one in truth.items()}
    return {
        name: {names[one]: int(count) for one, count in zip(*np.unique(found, return_counts=True), strict=True)}
        for name, found in others.items()
        if len(found)
    }


class UnknownLabels:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``unknown_labels``: for each held-out split that has any, the labels and their rows."""
        return {"unknown_labels": unknown(look, look.kind.possible)}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{sum(labels.values()):,} {name} rows have labels that train lacks: {listed(list(map(repr, labels)))}."
            for name, labels in found["unknown_labels"].items()
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
