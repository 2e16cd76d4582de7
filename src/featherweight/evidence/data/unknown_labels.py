"""Labels of held-out splits that no row of train has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.records.parts import Brief, Part
from featherweight.records.rows import numbers_of
from featherweight.tasks.reading.labels import listed

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look


class UnknownLabels:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``unknown_labels``: for each held-out split that has any, the labels and their rows."""
        if "train" not in look.splits:
            return {"unknown_labels": {}}
        labels = {name: numbers_of(split.truth) for name, split in look.splits.items()}
        unknown = {name: one[~np.isin(one, labels["train"])] for name, one in labels.items()}
        counts = {name: np.unique(one, return_counts=True) for name, one in unknown.items() if len(one)}
        names = look.kind.possible
        return {
            "unknown_labels": {
                name: {names[label]: int(rows) for label, rows in zip(*found, strict=True)}
                for name, found in counts.items()
            }
        }

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{sum(labels.values()):,} {name} rows have labels that train lacks: {listed(list(map(repr, labels)))}."
            for name, labels in found["unknown_labels"].items()
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
