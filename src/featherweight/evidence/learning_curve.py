"""How much would more labels bring? Accuracy against rows of train, a power law through it, and where that leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.grouping import in_random_order, units_of
from featherweight.statistics.additive import Statistic

Floats = NDArray[np.float64]

FRACTIONS = tuple(2.0 ** (-step / 2) for step in range(6, -1, -1))  # an eighth to all of train
MULTIPLES = (2, 4)
_RESAMPLES = 200
_WORTH_SAYING = 0.001  # a law that never falls always promises something
_STEEPEST = 2.0
_CURVE_POINTS = 40


def subset(
    labels: NDArray[np.int64], fraction: float, seed: int, groups: Sequence[str | None] | None = None
) -> NDArray[np.int64]:
    """The same share of every class, at least one row of each; a smaller share is a part of a larger one.

    Args:
        labels: shape (rows,).
        seed: decides the order in which rows come in.
        groups: what each row belongs to, where rows are not independent; one group then comes in after the other,
            whatever its classes, and the last one in part.
    """
    if groups is not None:
        order = in_random_order(units_of(groups), seed)
        first_of_each = order[np.unique(labels[order], return_index=True)[1]]
        return np.union1d(order[: round(fraction * len(order))], first_of_each)
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(round(fraction * len(members)), 1)])
    return np.sort(np.concatenate(chosen))


def summarise(accuracies: Mapping[int, Sequence[float]], seed: int, less_is_better: bool = False) -> dict[str, Any]:
    """The curve, the law, and what more labels would bring.

    The error is taken to be ``a n^-b + c`` (Hestness et al., "Deep learning scaling is predictable, empirically",
    2017), fitted by least squares to the means over seeds. The band comes from refitting to means that are moved as
    much as the seeds scatter; it knows nothing of the rows that were measured on, which are the same for every point.

    Args:
        accuracies: rows of train to the accuracies of several seeds, or what else the headline is; at least four sizes.
        less_is_better: the headline is an error itself; else it is what an error lacks to 1.

    Returns:
        ``points`` (``rows``, ``mean``, ``standard_deviation``, ``accuracies``, ``fitted`` by the law), ``law`` (``a``,
        ``b``, ``c``),
        ``curve`` (``rows``, ``accuracy``, ``low``, ``high``) up to the largest multiple, and ``more``: for each
        multiple of train its ``rows``, ``accuracy`` and ``gain`` with their 95 % bands.
    """
    sizes = np.asarray(sorted(accuracies), dtype=np.float64)
    values = [np.asarray(accuracies[int(size)], dtype=np.float64) for size in sizes]
    means = np.asarray([one.mean() for one in values])
    # Where all rows are taken seeds may not differ at all, so the scatter is that of all sizes together.
    scatter = float(np.sqrt(np.mean([one.var(ddof=1) for one in values[:-1]]) / len(values[0])))
    # From a figure to its error and back.
    turned: Callable[[Floats], Floats] = (lambda one: one) if less_is_better else (lambda one: 1 - one)
    best = fit(sizes, turned(means))
    generator = np.random.default_rng(seed)
    laws = [fit(sizes, turned(means) + generator.normal(0, scatter, len(sizes))) for _ in range(_RESAMPLES)]

    def accuracy(rows: Floats) -> Floats:
        return np.asarray([turned(error(rows, *law)) for law in [best, *laws]])

    reach = np.geomspace(sizes[0], sizes[-1] * MULTIPLES[-1], _CURVE_POINTS)
    return {
        "points": [
            {"rows": int(size), "mean": float(one.mean()), "standard_deviation": float(one.std(ddof=1)),
             "accuracies": one.tolist(), "fitted": float(fitted)}
            for size, one, fitted in zip(sizes, values, turned(error(sizes, *best)), strict=True)
        ],
        "law": dict(zip("abc", map(float, best), strict=True)),
        "curve": [
            {"rows": float(rows), "accuracy": float(line[0]), "low": _band(line[1:])[0], "high": _band(line[1:])[1]}
            for rows, line in zip(reach, accuracy(reach).T, strict=True)
        ],
        "more": [_more(accuracy, sizes[-1:], multiple) for multiple in MULTIPLES],
    }  # fmt: skip


def _more(accuracy: Callable[[Floats], Floats], now: Floats, multiple: int) -> dict[str, Any]:
    """What a multiple of the rows would bring.

    Args:
        accuracy: by rows; by the law first, then by each law of the band.
        now: the rows that there are; shape (1,).
    """
    before, then = accuracy(now)[:, 0], accuracy(now * multiple)[:, 0]
    return {
        "multiple": multiple,
        "rows": int(now[0] * multiple),
        "accuracy": float(then[0]),
        "accuracy_band": _band(then[1:]),
        "gain": float(then[0] - before[0]),
        "gain_band": _band((then - before)[1:]),
    }


def error(rows: Floats, a: float, b: float, c: float) -> Floats:
    return np.asarray(a * rows**-b + c)


def fit(rows: Floats, errors: Floats) -> tuple[float, float, float]:
    """``a``, ``b`` and ``c`` of the law: no less than 0 each, ``b`` at most 2, ``c`` at most the least error."""
    from scipy.optimize import curve_fit

    most = max(float(errors.min()), 1e-9)
    scaled = rows / rows[0]  # so that a is of the size of an error while it is sought
    start = (max(float(errors[0] - most), 1e-6), 0.5, most / 2)
    bounds = ((0, 0, 0), (2.0, _STEEPEST, most))
    (a, b, c), _ = curve_fit(error, scaled, errors, p0=start, bounds=bounds, max_nfev=5000)
    return float(a * rows[0] ** b), float(b), float(c)


def headline(found: Mapping[str, Any], first: Statistic) -> str:
    """What twice the labels would bring, in one sentence; its figures are those of the curve, as is the gain."""
    twice, last = found["more"][0], found["points"][-1]
    low, high = twice["gain_band"]
    gain = f"{twice['gain']:+.4f} ({low:+.4f} to {high:+.4f})"
    outlook = (
        f"twice the labels would bring about {gain}"
        if (-high if first.less_is_better else low) >= _WORTH_SAYING
        else f"twice the labels are not shown to bring more: {gain}"
    )
    return (
        f"With {last['rows']:,} rows of train {first.title} is {last['mean']:.4f}. By the curve, which has "
        f"{last['fitted']:.4f} there and {twice['accuracy']:.4f} with {twice['rows']:,}, {outlook}."
    )


def _band(values: Floats) -> list[float]:
    return [float(one) for one in np.quantile(values, [0.025, 0.975])]
