"""How much a figure flatters because the rows it is of also chose what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from featherweight.records.outcome import ModelFigures, Selection
from featherweight.records.sweeps import Flattery, Trial


def optimism(standard_error: float, candidates: int) -> float:
    """The most that choosing the best of several equally good candidates adds to its figure by chance alone.

    The figure's standard error times the expected largest of so many independent standard normal values.
    Epochs of one run answer most rows alike, so what they add is less; with one candidate it is nothing.
    """
    return standard_error * expected_largest(candidates)


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
    split: str,
    evaluated: str,
    candidates: int,
    before: ModelFigures,
    after: ModelFigures,
    rows: int,
    standard_error: float,
) -> Selection:
    """Which split chose the checkpoint out of how many, the models' figures on it, and how hopeful those are.

    Args:
        split: that chose.
        evaluated: that the run's figures are of.
        candidates: evaluations that the best checkpoint was chosen from; 1 where none was.
        before: the untuned model's metrics on ``split``.
        after: the tuned model's.
        rows: of ``split``.
        standard_error: of the tuned model's headline there.
    """
    return {
        "split": split,
        "rows": rows,
        "candidates": candidates,
        "is_evaluated": split == evaluated,
        "optimism_at_most": optimism(standard_error, candidates),
        "base": before,
        "tuned": after,
    }


def of_trials(
    trials: Sequence[Trial], split: str, rows: int, standard_error: float, figures: tuple[float, float]
) -> Flattery:
    """By how much the winner of several trials is flattered by the rows that chose it.

    Whatever was compared on them is a candidate: each trial, and of one that kept its best checkpoint each of its
    evaluations. What was pruned was compared, too.

    Args:
        split: that chose.
        rows: of ``split``.
        standard_error: of the winner's headline there.
        figures: the winner's headline there, and on rows that chose nothing.
    """
    candidates = sum(
        one["candidates"] if one["state"] == "complete" else min(len(one["evaluations"]), 1) for one in trials
    )
    return {
        "split": split,
        "rows": rows,
        "candidates": candidates,
        "optimism_at_most": optimism(standard_error, candidates),
        "chosen_on": figures[0],
        "untouched": figures[1],
    }
