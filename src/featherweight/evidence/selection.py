"""How much a figure flatters because the rows it is of also chose what was measured."""

from __future__ import annotations

import math
from typing import Any


def optimism(accuracy: float, rows: int, candidates: int) -> float:
    """The most that choosing the best of several equally good candidates adds to its accuracy by chance alone.

    The standard error of the accuracy times the expected largest of so many independent standard normal values.
    Epochs of one run answer most rows alike, so what they add is less; with one candidate it is nothing.
    """
    return math.sqrt(accuracy * (1 - accuracy) / rows) * expected_largest(candidates)


def expected_largest(count: int) -> float:
    """Mean of the largest of ``count`` independent standard normal values: the integral of ``x d(Phi(x)^count)``.

    >>> round(expected_largest(2), 4)
    0.5642
    """
    from scipy.integrate import quad
    from scipy.stats import norm

    if count < 2:
        return 0.0
    return float(quad(lambda x: x * count * norm.pdf(x) * norm.cdf(x) ** (count - 1), -12, 12)[0])


def describe(
    split: str, evaluated: str, candidates: int, before: dict[str, Any], after: dict[str, Any], rows: int
) -> dict[str, Any]:
    """Which split chose the checkpoint out of how many, the models' figures on it, and how hopeful those are.

    Args:
        split: that chose.
        evaluated: that the run's figures are of.
        candidates: evaluations that the best checkpoint was chosen from; 1 where none was.
        before: the untuned model's metrics on ``split``.
        after: the tuned model's.
        rows: of ``split``.
    """
    return {
        "split": split,
        "rows": rows,
        "candidates": candidates,
        "is_evaluated": split == evaluated,
        "optimism_at_most": optimism(after["eval_accuracy"], rows, candidates),
        "base": before,
        "tuned": after,
    }
