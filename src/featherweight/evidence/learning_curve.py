"""How much would more labels bring? Accuracy against rows of train, a power law through it, and where that leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.grouping import in_random_order, units_of

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


def summarise(accuracies: Mapping[int, Sequence[float]], seed: int) -> dict[str, Any]:
    """The curve, the law, and what more labels would bring.

    The error is taken to be ``a n^-b + c`` (Hestness et al., "Deep learning scaling is predictable, empirically",
    2017), fitted by least squares to the means over seeds. The band comes from refitting to means that are moved as
    much as the seeds scatter; it knows nothing of the rows that were measured on, which are the same for every point.

    Args:
        accuracies: rows of train to the accuracies of several seeds; at least four sizes.

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
    best = fit(sizes, 1 - means)
    generator = np.random.default_rng(seed)
    laws = [fit(sizes, 1 - means + generator.normal(0, scatter, len(sizes))) for _ in range(_RESAMPLES)]

    def accuracy(rows: Floats) -> Floats:
        return np.asarray([1 - error(rows, *law) for law in [best, *laws]])

    reach = np.geomspace(sizes[0], sizes[-1] * MULTIPLES[-1], _CURVE_POINTS)
    lines = accuracy(reach)
    now = accuracy(sizes[-1:])[:, 0]
    more = []
    for multiple in MULTIPLES:
        then = accuracy(sizes[-1:] * multiple)[:, 0]
        more.append(
            {"multiple": multiple, "rows": int(sizes[-1] * multiple), "accuracy": float(then[0]),
             "accuracy_band": _band(then[1:]), "gain": float(then[0] - now[0]), "gain_band": _band((then - now)[1:])}
        )  # fmt: skip
    return {
        "points": [
            {"rows": int(size), "mean": float(one.mean()), "standard_deviation": float(one.std(ddof=1)),
             "accuracies": one.tolist(), "fitted": float(fitted)}
            for size, one, fitted in zip(sizes, values, 1 - error(sizes, *best), strict=True)
        ],
        "law": dict(zip("abc", map(float, best), strict=True)),
        "curve": [
            {"rows": float(rows), "accuracy": float(line[0]), "low": _band(line[1:])[0], "high": _band(line[1:])[1]}
            for rows, line in zip(reach, lines.T, strict=True)
        ],
        "more": more,
    }  # fmt: skip


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


def headline(found: Mapping[str, Any]) -> str:
    """What twice the labels would bring, in one sentence; its figures are those of the curve, as is the gain."""
    twice, last = found["more"][0], found["points"][-1]
    low, high = twice["gain_band"]
    gain = f"{twice['gain']:+.4f} ({low:+.4f} to {high:+.4f})"
    outlook = (
        f"twice the labels would bring about {gain}"
        if low >= _WORTH_SAYING
        else f"twice the labels are not shown to bring more: {gain}"
    )
    return (
        f"With {last['rows']:,} rows of train accuracy is {last['mean']:.4f}. By the curve, which has "
        f"{last['fitted']:.4f} there and {twice['accuracy']:.4f} with {twice['rows']:,}, {outlook}."
    )


def _band(values: Floats) -> list[float]:
    return [float(one) for one in np.quantile(values, [0.025, 0.975])]
