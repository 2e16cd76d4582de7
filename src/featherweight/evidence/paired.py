"""Two models on the same rows, by every statistic, with one family of p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.evidence.statistics import LESS_IS_BETTER, STATISTICS
from featherweight.statistics import resampling
from featherweight.statistics.proportions import (
    CONFIDENCE,
    compare,
    detectable_difference,
    holm,
    smallest_significant_difference,
)

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]


def by_accuracy(
    base: Probabilities, tuned: Probabilities, labels: Labels, groups: Sequence[str | None] | None = None, seed: int = 0
) -> dict[str, Any]:
    """:func:`~featherweight.statistics.proportions.compare` as plain values, with what this test set could have shown.

    Args:
        base: probabilities of the one model; shape (rows, classes).
        tuned: probabilities of the other.
        labels: shape (rows,).
        groups: what each row belongs to, where rows are not independent.

    Returns:
        The fields of :class:`~featherweight.records.answers.Comparison`; ``verdict`` holds for every label and
        ``accuracy_verdict`` is what the test of accuracy alone says.
    """
    found = compare(base.argmax(axis=1) == labels, tuned.argmax(axis=1) == labels, groups, seed=seed)
    changed = (found.fixed, found.broken, found.n)
    return {
        **asdict(found),
        "verdict": _for_every_label(found.verdict, base, tuned, labels, groups, seed),
        "accuracy_verdict": found.verdict,
        "confidence_interval": list(found.confidence_interval),
        "smallest_significant_difference": smallest_significant_difference(*changed),
        "detectable_difference": detectable_difference(*changed),
    }


def by_every_statistic(
    base: Probabilities, tuned: Probabilities, labels: Labels, groups: Sequence[str | None] | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Difference, percentile interval and permutation p-value of each statistic, adjusted as one family (Holm).

    Accuracy is in the family with its own test. What resampling is by, rows or groups, and its seed decide the
    figures; the same input gives the same output.

    Returns:
        Statistic to ``base``, ``tuned``, ``difference``, ``confidence_interval``, ``p_value``, ``p_value_holm``,
        ``resamples``, and ``verdict`` after the adjustment.
    """
    units = resampling.clusters_of(groups, len(labels))
    resamples = resampling.resamples_for(int(units.max()) + 1)
    pairs = [(make(base, labels), make(tuned, labels)) for make in STATISTICS.values()]
    bootstrapped = resampling.bootstrap(pairs, units, resamples=resamples, seed=seed)
    p_values = resampling.permutation_p_values(pairs, units, resamples=resamples, seed=seed)
    accuracy = by_accuracy(base, tuned, labels, groups, seed)
    rows: dict[str, dict[str, Any]] = {
        "accuracy": {
            "base": float((base.argmax(axis=1) == labels).mean()),
            "tuned": float((tuned.argmax(axis=1) == labels).mean()),
            **{key: accuracy[key] for key in ("difference", "confidence_interval", "p_value", "test")},
        }
    }
    for name, (one, other), differences, p_value in zip(STATISTICS, pairs, bootstrapped, p_values, strict=True):
        rows[name] = {
            "base": one.of_all_rows,
            "tuned": other.of_all_rows,
            "difference": other.of_all_rows - one.of_all_rows,
            "confidence_interval": list(resampling.interval(differences, CONFIDENCE)),
            "p_value": p_value,
            "test": "permutation",
            "resamples": resamples,
        }
    for (name, row), adjusted in zip(rows.items(), holm([row["p_value"] for row in rows.values()]), strict=True):
        row["p_value_holm"] = adjusted
        row["verdict"] = _verdict(row["difference"], adjusted, name in LESS_IS_BETTER)
    return rows


def _for_every_label(
    verdict: str,
    base: Probabilities,
    tuned: Probabilities,
    labels: Labels,
    groups: Sequence[str | None] | None,
    seed: int,
) -> str:
    """The verdict on accuracy, or ``no-difference`` where it rests on labels that the winner never answers.

    Accuracy weighs a label by its rows, so giving up a rare one costs nothing. Where the model that is more often right
    never answers some label that the rows hold, balanced accuracy, in which each label weighs the same, has to differ
    beyond chance in the same direction. Besides, the tuned model is not ``better`` if it answers every row alike, or if
    it never answers a rare label (less than half an even share of the rows) of which the base gets a row right.
    """
    if verdict == "no-difference":
        return verdict
    answers = (tuned if verdict == "better" else base).argmax(axis=1)
    unanswered = np.setdiff1d(labels, answers)
    if len(unanswered) == 0:
        return verdict
    if verdict == "better":
        rows = np.bincount(labels)
        rare = rows[unanswered] < len(labels) / np.count_nonzero(rows) / 2
        known = np.isin(unanswered, labels[base.argmax(axis=1) == labels])
        if len(np.unique(answers)) == 1 or (rare & known).any():
            return "no-difference"
    one, other = (STATISTICS["balanced_accuracy"](side, labels) for side in (base, tuned))
    units = resampling.clusters_of(groups, len(labels))
    resamples = resampling.resamples_for(int(units.max()) + 1)
    (p_value,) = resampling.permutation_p_values([(one, other)], units, resamples=resamples, seed=seed)
    balanced = _verdict(other.of_all_rows - one.of_all_rows, p_value, less_is_better=False)
    return verdict if balanced == verdict else "no-difference"


def _verdict(difference: float, p_value: float, less_is_better: bool) -> str:
    if p_value >= 1 - CONFIDENCE or difference == 0:
        return "no-difference"
    return "better" if (difference < 0) == less_is_better else "worse"
