"""From which probability on a label is answered: found on some rows, reported on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.statistics import paired
from featherweight.statistics.additive import Additive

LEAST_POSITIVE = 10  # rows with a label, from which on it has a threshold of its own

Probabilities = NDArray[np.float32]  # shape (rows, labels)
Sets = NDArray[np.bool_]  # likewise


@dataclass(frozen=True)
class Candidates:
    """Every threshold that tells some rows from others, the highest first.

    Attributes:
        thresholds: halfway between two neighbouring probabilities; float64, shape (candidates,).
        answered: rows at or above each; int64, likewise.
        hits: how many of these hold; likewise.
    """

    thresholds: NDArray[np.float64]
    answered: NDArray[np.int64]
    hits: NDArray[np.int64]


def candidates(probabilities: NDArray[np.floating], holds: NDArray[np.bool_]) -> Candidates:
    """Of at least one row; shape (rows,) each."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # equal ones are answered together
    halfway = (ranked[last] + np.append(ranked, 0.0)[last + 1]) / 2
    return Candidates(halfway, last + 1, np.cumsum(holds[order], dtype=np.int64)[last])


def best_for_f1(probabilities: NDArray[np.floating], holds: NDArray[np.bool_], otherwise: float) -> float:
    """The threshold with the greatest F1, halfway between two neighbouring probabilities; shape (rows,) each.

    The plug-in rule for F measures on a finite sample (Nan et al., "Optimizing F-measure: a tale of two approaches",
    2012).

    Args:
        otherwise: what is given where nothing can be found.
    """
    if not holds.any():
        return otherwise
    tried = candidates(probabilities, holds)
    f1 = 2 * tried.hits / (tried.answered + tried.hits[-1])
    return float(tried.thresholds[int(f1.argmax())])


def fit(probabilities: Probabilities, truth: Sets, otherwise: float) -> NDArray[np.float64]:
    """A threshold for each label, shape (labels,): its own where at least 10 rows have it, else the one that is best
    for all labels together."""
    if len(truth) == 0:
        return np.full(truth.shape[1], otherwise)
    common = best_for_f1(probabilities.ravel(), truth.ravel(), otherwise)
    return np.asarray(
        [
            best_for_f1(probabilities[:, label], truth[:, label], common)
            if truth[:, label].sum() >= LEAST_POSITIVE
            else common
            for label in range(truth.shape[1])
        ]
    )


def fit_and_report(
    names: Sequence[str],
    fitting: tuple[Probabilities, Sets],
    reporting: tuple[Probabilities, Sets],
    measured: Mapping[str, Callable[[Sets, Sets], Additive]],
    even: float,
) -> dict[str, Any]:
    """Thresholds from some rows, and what they change on others, paired.

    Args:
        measured: statistics of answered and true sets, by name.
        even: the threshold that they are compared with.

    Returns:
        ``thresholds`` by label, and ``gain``: of each statistic ``base`` at the even threshold, ``tuned`` at the fitted
        ones, the ``difference`` with its ``confidence_interval`` and ``p_value``.
    """
    found = fit(*fitting, even)
    probabilities, truth = reporting
    sides = [probabilities >= even, probabilities >= found]
    pairs = {name: (of(sides[0], truth), of(sides[1], truth)) for name, of in measured.items()}
    return {
        "thresholds": dict(zip(names, found.tolist(), strict=True)),
        "fitted_rows": len(fitting[1]),
        "reported_rows": len(truth),
        "gain": paired.family(pairs) if len(truth) else {},
    }
