"""Several runs at once: each against the first and every pair on the same rows, and what the seed alone changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from featherweight.answers.metrics import OF_COUNTS, count
from featherweight.errors import DataError
from featherweight.evidence.paired import by_accuracy, by_every_statistic
from featherweight.runs.predictions import Predictions
from featherweight.statistics.proportions import holm, not_inferior

SEED = "training.seed"


def against_first(sides: Sequence[tuple[str, Predictions]], margin: float | None = None) -> list[dict[str, Any]]:
    """Compare each set of predictions with the first; the p-values are one family (Holm).

    Args:
        sides: name and predictions; all of the same rows.
        margin: a difference in accuracy that would not matter; adds ``not_inferior``.

    Raises:
        DataError: they are not of the same rows.
    """
    (against, first), *others = sides
    rows: list[dict[str, Any]] = []
    for name, other in others:
        _require_same_rows(against, first, name, other)
        asked = first.probabilities, other.in_order_of(first.names), first.label_indices, first.groups
        found = {**by_accuracy(*asked), "paired": by_every_statistic(*asked)}
        if margin is not None:
            found |= {"margin": margin, "not_inferior": not_inferior(tuple(found["confidence_interval"]), margin)}
        rows.append({"run": name, "against": against, **found})
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_value_holm"] = adjusted
    return rows


def every_pair(sides: Sequence[tuple[str, Predictions]]) -> list[dict[str, Any]]:
    """Accuracy of every pair, the later against the earlier; the p-values are one family (Holm)."""
    rows: list[dict[str, Any]] = []
    for (against, first), (name, other) in combinations(sides, 2):
        _require_same_rows(against, first, name, other)
        pair = first.probabilities, other.in_order_of(first.names)
        rows.append({"run": name, "against": against, **by_accuracy(*pair, first.label_indices, first.groups)})
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_value_holm"] = adjusted
    return rows


def table(sides: Sequence[tuple[str, Predictions]], runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every run's figures, from its predictions; cost from its ``metrics.json``."""
    rows = []
    for name, side in sides:
        counts = count(side.probabilities, side.label_indices)
        metrics = runs.get(name)
        cost = {"eval_loss": metrics["tuned"]["eval_loss"], "trainable_parameters": metrics["trainable_parameters"],
                "train_runtime": metrics["resources"].get("train_runtime")} if metrics else {}  # fmt: skip
        rows.append({"run": name, **{f"eval_{one}": float(of(counts)) for one, of in OF_COUNTS.items()}, **cost})
    return rows


def over_seeds(rows: Sequence[Mapping[str, Any]], identities: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation (n - 1) over runs that differ in nothing but their seed, where there are several.

    Args:
        rows: from :func:`table`.
        identities: what decides each run's outcome, by run.
    """
    alike: dict[str, list[str]] = {}
    for name, identity in identities.items():
        key = repr(sorted((key, repr(value)) for key, value in identity.items() if key != SEED))
        alike.setdefault(key, []).append(name)
    by_run = {row["run"]: row for row in rows}
    found = []
    for members in alike.values():
        if len({identities[name].get(SEED) for name in members}) > 1:
            values = {f"eval_{one}": [by_run[name][f"eval_{one}"] for name in members] for one in OF_COUNTS}
            found.append(
                {
                    "runs": members,
                    "seeds": [identities[name].get(SEED) for name in members],
                    "mean": {name: float(np.mean(one)) for name, one in values.items()},
                    "standard_deviation": {name: float(np.std(one, ddof=1)) for name, one in values.items()},
                }
            )
    return found


def _require_same_rows(against: str, first: Predictions, name: str, other: Predictions) -> None:
    same = len(first.ids) == len(other.ids) and (first.ids == other.ids).all() and first.labels == other.labels
    if not same or set(first.names) != set(other.names):
        raise DataError(f"{name} and {against} were not measured on the same rows, so they can't be paired")
