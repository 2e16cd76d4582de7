"""From which probability on the positive one of two labels is answered: chosen on some rows, reported on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.facts import is_number
from featherweight.answers.thresholds import Candidates, candidates
from featherweight.statistics import paired, resampling
from featherweight.statistics.additive import Additive, Floats, mean_of, of_columns, ratio
from featherweight.statistics.proportions import CONFIDENCE

if TYPE_CHECKING:
    from featherweight.recipe.sections import EvidenceSection

Rows = NDArray[np.bool_]
Aim = tuple[str, Any]  # what a threshold is chosen by, and how much of it
Side = tuple[NDArray[np.floating[Any]], Rows]  # probabilities of the positive label, and which rows have it


def _f1(tried: Candidates, wanted: Any) -> Floats:
    return np.where(tried.hits > 0, ratio(2 * tried.hits, tried.answered + tried.hits[-1]), -np.inf)


def _precision(tried: Candidates, wanted: float) -> Floats:
    """The most positive rows, where so many of the answers are right."""
    return np.where((tried.hits >= wanted * tried.answered) & (tried.hits > 0), tried.hits, -np.inf)


def _recall(tried: Candidates, wanted: float) -> Floats:
    """The most precise, where so many of the positive rows are found."""
    enough = (tried.hits >= wanted * tried.hits[-1]) & (tried.hits > 0)
    return np.where(enough, ratio(tried.hits, tried.answered), -np.inf)


def _cost(tried: Candidates, wanted: Mapping[str, float]) -> Floats:
    """The least of all errors together (Elkan, "The foundations of cost-sensitive learning", 2001)."""
    missed, false = tried.hits[-1] - tried.hits, tried.answered - tried.hits
    return np.asarray(-(wanted["false_positive"] * false + wanted["false_negative"] * missed), dtype=np.float64)


# What a threshold may be chosen by: how good each candidate is, and -inf where it does not do.
_AIMS: Mapping[str, Callable[[Candidates, Any], Floats]] = {
    "f1": _f1, "precision": _precision, "recall": _recall, "cost": _cost,
}  # fmt: skip


def aim_of(asked: EvidenceSection) -> Aim | None:
    """What ``evidence.decision_threshold`` asks for; None where it asks for nothing."""
    wanted = asked.decision_threshold
    if wanted is None or isinstance(wanted, str):
        return None if wanted is None else (wanted, None)
    ((name, value),) = wanted.model_dump().items()
    return name, value


def find(aim: Aim, probabilities: NDArray[np.floating[Any]], positive: Rows) -> float | None:
    """The threshold that serves best, the highest of several; None where none does what is wanted.

    Args:
        probabilities: of the positive label; shape (rows,).
        positive: which rows have it; likewise.
    """
    if not len(positive):
        return None
    name, wanted = aim
    tried = _with_none(candidates(probabilities, positive), float(probabilities.max()))
    scores = _AIMS[name](tried, wanted)
    best = int(scores.argmax())
    return None if scores[best] == -np.inf else float(tried.thresholds[best])


def _with_none(tried: Candidates, greatest: float) -> Candidates:
    """And one that answers no row: where false answers are dear that may be best."""
    above = (greatest + 1) / 2 if greatest < 1 else float(np.nextafter(1.0, 2.0))
    zero = np.zeros(1, dtype=np.int64)
    return Candidates(np.append(above, tried.thresholds), np.append(zero, tried.answered), np.append(zero, tried.hits))


def report(aim: Aim, threshold: float | None, fitted_rows: int, even: Rows, side: Side) -> dict[str, Any]:
    """What the threshold changes on rows that did not choose it, paired with what is answered without it.

    Args:
        even: of which of these rows the positive label is the more probable one.

    Returns:
        ``chosen_by``, ``wanted``, ``threshold``, how many rows it was fitted on and is reported on, and ``figures``: of
        each statistic ``base`` without the threshold, ``tuned`` with it and its ``interval``, the ``difference`` with
        its ``confidence_interval`` and ``p_value``.
    """
    probabilities, positive = side
    name, wanted = aim
    found = {
        "chosen_by": name,
        "wanted": wanted,
        "threshold": threshold,
        "fitted_rows": fitted_rows,
        "reported_rows": len(positive),
        "figures": {},
    }
    if threshold is None or not len(positive):
        return found
    sides = (even, probabilities >= threshold)
    pairs = {one: (of(sides[0], positive), of(sides[1], positive)) for one, of in _measures(aim).items()}
    figures = paired.family(pairs)
    for one, (_, tuned) in pairs.items():
        figures[one]["interval"] = list(resampling.interval(resampling.values(tuned), CONFIDENCE))
    return {**found, "figures": figures}


def _measures(aim: Aim) -> dict[str, Callable[[Rows, Rows], Additive]]:
    """Of answered and true positives; the cost is that of a row, where costs are known."""
    name, wanted = aim
    measures = {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy}
    return measures | ({"cost": _cost_of(wanted)} if name == "cost" else {})


def precision(answered: Rows, positive: Rows) -> Additive:
    """The share of the answered rows that are positive; 0 where none is answered."""
    return _counted([answered & positive, answered], lambda sums: ratio(sums[..., 0], sums[..., 1]))


def recall(answered: Rows, positive: Rows) -> Additive:
    """The share of the positive rows that are answered."""
    return _counted([answered & positive, positive], lambda sums: ratio(sums[..., 0], sums[..., 1]))


def f1(answered: Rows, positive: Rows) -> Additive:
    """Twice the rows that are both, over those answered and those positive."""
    columns = [answered & positive, answered, positive]
    return _counted(columns, lambda sums: ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2]))


def accuracy(answered: Rows, positive: Rows) -> Additive:
    return mean_of((answered == positive).astype(np.float64))


def _cost_of(costs: Mapping[str, float]) -> Callable[[Rows, Rows], Additive]:
    def of(answered: Rows, positive: Rows) -> Additive:
        false, missed = answered & ~positive, positive & ~answered
        return mean_of(costs["false_positive"] * false + costs["false_negative"] * missed)

    return of


def _counted(columns: Sequence[Rows], value: Callable[[Floats], Floats]) -> Additive:
    return of_columns([one.astype(np.float64) for one in columns], value)


def is_decision(value: Any) -> bool:
    """Whether ``featherweight.json`` may say so: nothing, or the positive label and its threshold."""
    return value is None or (
        isinstance(value, dict)
        and set(value) == {"pos_label", "threshold"}
        and isinstance(value["pos_label"], str)
        and is_number(value["threshold"])
    )
