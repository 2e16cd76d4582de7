"""Bootstrap and permutation for paired predictions, for whatever does not come apart into rows.

Macro-F1, Matthews' correlation or the calibration error of a sample are functions of *sums* over its rows. So a
resample is a vector of weights, its sums are one matrix product, and the statistic is applied to many sums at once:
nothing loops over resamples, and only :data:`_BLOCK_NUMBERS` numbers are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.grouping import units_of
from featherweight.statistics.additive import Additive, Floats

RESAMPLES = 10_000
_FEWEST_RESAMPLES = 1000
_MOST_DRAWS = 200_000_000  # resamples times units: seconds; larger test sets get fewer resamples, and need fewer
_BLOCK_NUMBERS = 4_000_000
_ROUNDING = 1e-12


def resamples_for(units: int, wanted: int = RESAMPLES) -> int:
    """As many as wanted, fewer where the test set is so large that they would take minutes."""
    return int(min(wanted, max(_FEWEST_RESAMPLES, _MOST_DRAWS // max(units, 1))))


def clusters_of(groups: Sequence[str | None] | None, rows: int) -> NDArray[np.int64]:
    """Number of the unit that each row is drawn with: its group, or itself where there are no groups."""
    if groups is None:
        return np.arange(rows)
    return units_of(groups)


def bootstrap(
    pairs: Sequence[tuple[Additive, Additive]], units: NDArray[np.int64], *, resamples: int, seed: int
) -> list[Floats]:
    """Differences, second minus first, of each pair of statistics in resamples of the units with replacement.

    Every pair is computed on the same resamples (Efron and Tibshirani 1993, chapter 8). Rows that share a unit are
    drawn together, which is the cluster bootstrap.

    Args:
        pairs: the same statistic of two models on the same rows.
        units: int64, shape (rows,), from :func:`clusters_of`.

    Returns:
        One array for each pair; float64, shape (resamples,).
    """
    summed = [(_by_unit(one.features, units), _by_unit(other.features, units)) for one, other in pairs]
    found: list[list[Floats]] = [[] for _ in pairs]
    count, width = int(units.max()) + 1, max(one.features.shape[1] for one, _ in pairs)
    for weights in _weights(np.random.default_rng(seed), count, width, resamples):
        for differences, (one, other), (below, above) in zip(found, pairs, summed, strict=True):
            differences.append(other.value((above.T @ weights).T) - one.value((below.T @ weights).T))
    return [np.concatenate(differences) for differences in found]


def crossed(
    pairs: Sequence[tuple[Additive, Additive]], units: NDArray[np.int64], *, resamples: int, seed: int
) -> Floats:
    """The mean difference over several pairs, in resamples of the units and of the pairs, both with replacement.

    For pairs that are drawn themselves, such as one a seed: the pigeonhole bootstrap (Owen 2007, "The pigeonhole
    bootstrap"). Few draws of few pairs scatter too little, by (pairs - 1) / pairs in variance, and are stretched by it.

    Args:
        pairs: at least two, each on the same rows.

    Returns:
        float64, shape (resamples,).
    """
    by_pair = np.stack(bootstrap(pairs, units, resamples=resamples, seed=seed))
    count = len(by_pair)
    drawn = np.random.default_rng([seed, count]).integers(0, count, size=by_pair.shape)
    middle = by_pair.mean(axis=0)
    moved = np.take_along_axis(by_pair, drawn, axis=0).mean(axis=0) - middle
    return np.asarray(middle + np.sqrt(count / (count - 1)) * moved)


def values(statistic: Additive, *, seed: int = 0) -> Floats:
    """One statistic in resamples of its rows with replacement; float64, shape (resamples,)."""
    rows, width = statistic.features.shape
    blocks = _weights(np.random.default_rng(seed), rows, width, resamples_for(rows))
    return np.concatenate([statistic.value((statistic.features.T @ weights).T) for weights in blocks])


def permutation_p_values(
    pairs: Sequence[tuple[Additive, Additive]], units: NDArray[np.int64], *, resamples: int, seed: int
) -> list[float]:
    """Two-sided p-values of the hypothesis that the two models may be exchanged, unit by unit.

    ``(1 + how often a random exchange differs at least as much) / (1 + resamples)``, as
    ``scipy.stats.permutation_test(permutation_type="samples")`` has it (Phipson and Smyth 2010).
    """
    count, width = int(units.max()) + 1, max(one.features.shape[1] for one, _ in pairs)
    summed = [(_by_unit(one.features, units), _by_unit(other.features, units)) for one, other in pairs]
    totals = [tuple(np.asarray(side.sum(axis=0)).reshape(-1) for side in sides) for sides in summed]
    observed = [abs(other.of_all_rows - one.of_all_rows) for one, other in pairs]
    extreme = np.zeros(len(pairs))
    generator = np.random.default_rng(seed)
    for start, stop in _blocks(max(count, width), resamples):
        exchanged = generator.integers(0, 2, size=(count, stop - start)).astype(np.float64)
        for index, ((one, other), (below, above), total) in enumerate(zip(pairs, summed, totals, strict=True)):
            moved = ((above - below).T @ exchanged).T
            differences = other.value(total[1] - moved) - one.value(total[0] + moved)
            extreme[index] += (np.abs(differences) >= observed[index] - _ROUNDING).sum()
    return [float((1 + times) / (1 + resamples)) for times in extreme]


def interval(differences: Floats, confidence: float) -> tuple[float, float]:
    """The percentile interval."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)


def _by_unit(features: Any, units: NDArray[np.int64]) -> Any:
    """Rows of one unit added together; sparse, shape (units, features)."""
    from scipy import sparse

    rows = len(units)
    membership = sparse.csr_array((np.ones(rows), (units, np.arange(rows))), shape=(int(units.max()) + 1, rows))
    return sparse.csr_array(membership @ features)


def _weights(generator: np.random.Generator, units: int, width: int, resamples: int) -> Iterator[Floats]:
    """How often each unit is drawn, for sums of at most ``width`` features; shape (units, resamples of the block)."""
    for start, stop in _blocks(max(units, width), resamples):
        size = stop - start
        drawn = generator.integers(0, units, size=(units, size))
        drawn += np.arange(size) * units
        yield np.bincount(drawn.ravel(), minlength=units * size).reshape(size, units).T.astype(np.float64)


def _blocks(numbers: int, resamples: int) -> Iterator[tuple[int, int]]:
    """Ranges of resamples, each of which takes so many numbers."""
    step = max(_BLOCK_NUMBERS // max(numbers, 1), 1)
    for start in range(0, resamples, step):
        yield start, min(start + step, resamples)
