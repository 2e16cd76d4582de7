"""Paired statistics for two models that answered the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featherweight.records import Comparison

CONFIDENCE = 0.95


def compare(base: NDArray[np.bool_], tuned: NDArray[np.bool_], confidence: float = CONFIDENCE) -> Comparison:
    """Compare two models' accuracy on the same rows.

    Args:
        base: which rows the one model got right; shape (rows,).
        tuned: which rows the other got right; shape (rows,).

    The test is McNemar's, exact: under the null hypothesis each row that only one model gets right is a fair coin
    (McNemar 1947). The interval is Newcombe's for a paired difference of proportions (1998, method 10).
    """
    fixed = int((tuned & ~base).sum())
    broken = int((base & ~tuned).sum())
    both = int((base & tuned).sum())
    n = len(base)
    p_value = mcnemar_exact(fixed, broken)
    difference = (fixed - broken) / n
    significant = p_value < 1 - confidence
    verdict = ("better" if difference > 0 else "worse") if significant else "no-difference"
    interval = newcombe_paired(both, fixed, broken, n, confidence)
    return Comparison(
        metric="accuracy",
        n=n,
        difference=difference,
        confidence_interval=interval,
        confidence=confidence,
        test="mcnemar-exact",
        p_value=p_value,
        fixed=fixed,
        broken=broken,
        verdict=verdict,
    )


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact p-value; 1 where no row changed."""
    from scipy.stats import binomtest

    if fixed + broken == 0:
        return 1.0
    return float(binomtest(min(fixed, broken), fixed + broken).pvalue)


def wilson(correct: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval (1927) for one proportion."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def newcombe_paired(both: int, fixed: int, broken: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval for the difference of two paired proportions, tuned minus base.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17 (1998), method 10: Wilson's limits of the two proportions, combined with the correlation
    of the pairs.

    Args:
        both: rows that both models get right.
        fixed: rows that only the tuned model gets right.
        broken: rows that only the base model gets right.
        n: all rows.
    """
    neither = n - both - fixed - broken
    tuned, base = (both + fixed) / n, (both + broken) / n
    tuned_low, tuned_high = wilson(both + fixed, n, confidence)
    base_low, base_high = wilson(both + broken, n, confidence)
    margins = (both + fixed) * (broken + neither) * (both + broken) * (fixed + neither)
    phi = 0.0
    if margins:
        excess: float = both * neither - fixed * broken
        # The continuity correction keeps a positive correlation from being overstated.
        excess = max(excess - n / 2, 0) if excess > 0 else excess
        phi = excess / math.sqrt(margins)
    below = _combine(tuned - tuned_low, base_high - base, phi)
    above = _combine(tuned_high - tuned, base - base_low, phi)
    return tuned - base - below, tuned - base + above


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment (1979) of a family of p-values, in the order given."""
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _combine(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0))
