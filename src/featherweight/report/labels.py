"""What a report shows of labels, bounded where they are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.report.tables import of_labels

_MOST_SLICES = 20  # of the labels: so many of the commonest, and so many with the lowest accuracy
_MOST_MISTAKES = 30

Cells = Mapping[str, Sequence[int]]


def shown_slices(metrics: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """The slices that a reader can take in, and what to say of those that are left out."""
    slices, labels = metrics["where"]["slices"], of_labels(metrics)
    if len(labels) <= 2 * _MOST_SLICES:
        return slices, ""
    commonest = sorted(labels, key=lambda one: -one["rows"])[:_MOST_SLICES]
    worst = sorted(labels, key=lambda one: (one["tuned"], -one["rows"]))[:_MOST_SLICES]
    kept = [one for one in slices if one["by"] != "label" or one in commonest or one in worst]
    return kept, (
        f"Of the {len(labels):,} labels these are the {_MOST_SLICES} commonest and the {_MOST_SLICES} on which the "
        "tuned model is least often right; metrics.json has them all."
    )


def mistakes(metrics: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """The commonest mistakes of the tuned model: label, prediction, rows before and after tuning."""
    names = list(metrics["label_shares"]["train"])
    before, after = (_cells(metrics["where"], model) for model in ("base", "tuned"))
    pairs = zip(before["label"], before["prediction"], strict=True)
    known = dict(zip(pairs, before["rows"], strict=True))
    wrong = [one for one in zip(after["label"], after["prediction"], after["rows"], strict=True) if one[0] != one[1]]
    return [
        (names[label], names[prediction], known.get((label, prediction), 0), rows)
        for label, prediction, rows in sorted(wrong, key=lambda one: -one[2])[:_MOST_MISTAKES]
    ]


def _cells(where: Mapping[str, Any], model: str) -> Cells:
    """The confusion's cells that are not 0, also of a run that kept all of them."""
    if "confusion_cells" in where:
        found: Cells = where["confusion_cells"][model]
        return found
    cells = [
        (label, prediction, rows)
        for label, row in enumerate(where["confusion"][model])
        for prediction, rows in enumerate(row)
        if rows
    ]
    return dict(zip(("label", "prediction", "rows"), zip(*cells, strict=True), strict=True))
