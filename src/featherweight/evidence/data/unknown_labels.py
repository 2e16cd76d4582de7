"""Labels of held-out splits that no row of train has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    counts = {name: _occurrences(numbers_of(split.truth), len(names)) for name, split in look.splits.items()}
    others = {name: np.flatnonzero((one > 0) & (counts["train"] == 0)).tolist() for name, one in counts.items()}
    return {name: {names[one]: int(counts[name][one]) for one in found} for name, found in others.items() if len(found)}


def _occurrences(truth: NDArray[Any], names: int) -> NDArray[np.int64]:
    """How often each name is the truth, or stands in a row's set of names."""
    return np.asarray(truth.sum(axis=0) if truth.ndim == 2 else np.bincount(truth, minlength=names), dtype=np.int64)


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
