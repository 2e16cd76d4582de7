"""Proportions, single and paired: exact tests, intervals, and what a number of rows can show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact p-value; 1 where no row changed."""
    from scipy.stats import binomtest

    if fixed + broken == 0:
        return 1.0
    return float(binomtest(min(fixed, broken), fixed + broken).pvalue)


def smallest_significant_difference(fixed: int, broken: int, n: int, confidence: float = CONFIDENCE) -> float | None:
    """The least net share of rows that McNemar's exact test would have called a difference.

    It keeps the number of rows ``m`` on which just one model is right and asks for the least ``|fixed - broken| / n``
    with ``P(X <= min(fixed, broken)) <= alpha / 2`` for ``X ~ Binomial(m, 1/2)``. Fewer than six such rows never
    suffice at 95 %, so the least number that can is taken then. None where the test set has not even that many rows.
    """
    from scipy.stats import binom

    alpha = 1 - confidence
    discordant = max(fixed + broken, math.ceil(1 - math.log2(alpha)))
    if discordant > n:
        return None
    losses = int(binom.ppf(alpha / 2, discordant, 0.5))
    while losses >= 0 and 2 * binom.cdf(losses, discordant, 0.5) >= alpha:
        losses -= 1
    return (discordant - 2 * losses) / n


def detectable_difference(
    fixed: int, broken: int, n: int, confidence: float = CONFIDENCE, power: float = POWER
) -> float | None:
    """The least true difference that a test set of this size would show with the given power.

    Solves ``n d^2 = (z_alpha sqrt(s) + z_power sqrt(s - d^2))^2`` for ``d``, where ``s`` is the share of rows on which
    just one model is right (Connor, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43, 1987, equation 2). None where even ``d = s`` would not be shown.
    """
    from scipy.optimize import brentq

    share = max(fixed + broken, 1) / n

    def shortfall(d: float) -> float:
        return math.sqrt(n) * d - _root_rows_times(d, share, confidence, power)

    return float(brentq(shortfall, 0.0, share)) if shortfall(share) >= 0 else None


def rows_to_tell(fixed: int, broken: int, n: int, confidence: float = CONFIDENCE, power: float = POWER) -> int | None:
    """How many rows would show the difference that was seen, with the given power, were its shares the true ones.

    The equation of :func:`detectable_difference`, solved for ``n``. None where there is no difference.
    """
    difference = abs(fixed - broken) / n
    if difference == 0:
        return None
    return math.ceil((_root_rows_times(difference, (fixed + broken) / n, confidence, power) / difference) ** 2)


def _root_rows_times(difference: float, share: float, confidence: float, power: float) -> float:
    """``sqrt(n) d`` of Connor's equation 2, for rows of which ``share`` are answered right by just one model."""
    from scipy.stats import norm

    z_alpha, z_power = norm.ppf(1 - (1 - confidence) / 2), norm.ppf(power)
    return float(z_alpha * math.sqrt(share) + z_power * math.sqrt(max(share - difference**2, 0.0)))


def not_inferior(interval: tuple[float, float], margin: float) -> bool:
    """Whether all of the interval for the difference lies above ``-margin`` (Piaggio et al., JAMA 308, 2012)."""
    return interval[0] > -margin


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
