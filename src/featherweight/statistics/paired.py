"""Two models on the same rows, by one statistic or by a family of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featherweight.records.answers import Comparison
from featherweight.statistics import resampling
from featherweight.statistics.additive import Additive
from featherweight.statistics.proportions import CONFIDENCE, holm, mcnemar_exact, newcombe_paired

Pair = tuple[Additive, Additive]
Groups = Sequence[str | None] | None


def compare(
    metric: str,
    pair: Pair,
    groups: Groups = None,
    *,
    less_is_better: bool = False,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """Compare two models by one statistic on the same rows.

    Args:
        metric: its name.
        pair: the statistic of the one model and of the other.
        groups: what each row belongs to, where rows are not independent (sentences of one document).
        seed: of the resampling.

    Where the statistic is a share and the rows are independent, the test is McNemar's, exact: under the null hypothesis
    each row that only one model gets right is a fair coin (McNemar 1947). The interval is Newcombe's for a paired
    difference of proportions (1998, method 10). Otherwise rows, or whole groups, are exchanged between the models
    (permutation test) and drawn (bootstrap).
    """
    counts = discordant(pair)
    n = pair[0].rows
    if counts is not None and groups is None:
        test, p_value = "mcnemar-exact", mcnemar_exact(counts.fixed, counts.broken)
        interval = newcombe_paired(counts.both, counts.fixed, counts.broken, n, confidence)
    else:
        test = "permutation" if groups is None else "permutation-by-group"
        p_value, interval = _resampled(pair, groups, confidence, seed)
    difference = pair[1].of_all_rows - pair[0].of_all_rows if counts is None else (counts.fixed - counts.broken) / n
    return Comparison(
        metric=metric,
        n=n,
        difference=difference,
        confidence_interval=interval,
        confidence=confidence,
        test=test,
        p_value=p_value,
        fixed=None if counts is None else counts.fixed,
        broken=None if counts is None else counts.broken,
        verdict=verdict(difference, p_value, less_is_better, confidence),
    )


@dataclass(frozen=True)
class Discordant:
    """Rows that both models get right, that only the second does (``fixed``), and that only the first (``broken``)."""

    both: int
    fixed: int
    broken: int


def discordant(pair: Pair) -> Discordant | None:
    """None where the statistic is no share of rows."""
    base, tuned = pair[0].outcomes, pair[1].outcomes
    if base is None or tuned is None:
        return None
    return Discordant(int((base & tuned).sum()), int((tuned & ~base).sum()), int((base & ~tuned).sum()))


def _resampled(pair: Pair, groups: Groups, confidence: float, seed: int) -> tuple[float, tuple[float, float]]:
    """Permutation p-value and bootstrap interval of the difference."""
    units = resampling.clusters_of(groups, pair[0].rows)
    resamples = resampling.resamples_for(int(units.max()) + 1)
    (p_value,) = resampling.permutation_p_values([pair], units, resamples=resamples, seed=seed)
    (differences,) = resampling.bootstrap([pair], units, resamples=resamples, seed=seed)
    return p_value, resampling.interval(differences, confidence)


def family(pairs: Mapping[str, Pair], groups: Groups = None, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Difference, percentile interval and permutation p-value of each statistic, on the same resamples.

    Args:
        pairs: by the statistic's name.
        groups: what each row belongs to, where rows are not independent.

    Returns:
        Statistic to ``base``, ``tuned``, ``difference``, ``confidence_interval``, ``p_value``, ``test`` and
        ``resamples``; the same input gives the same output.
    """
    if not pairs:
        return {}
    units = resampling.clusters_of(groups, next(iter(pairs.values()))[0].rows)
    resamples = resampling.resamples_for(int(units.max()) + 1)
    both = list(pairs.values())
    bootstrapped = resampling.bootstrap(both, units, resamples=resamples, seed=seed)
    p_values = resampling.permutation_p_values(both, units, resamples=resamples, seed=seed)
    return {
        name: {
            "base": one.of_all_rows,
            "tuned": other.of_all_rows,
            "difference": other.of_all_rows - one.of_all_rows,
            "confidence_interval": list(resampling.interval(differences, CONFIDENCE)),
            "p_value": p_value,
            "test": "permutation",
            "resamples": resamples,
        }
        for (name, (one, other)), differences, p_value in zip(pairs.items(), bootstrapped, p_values, strict=True)
    }


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Add ``p_value_holm`` to each row: its ``p_value`` with all of them as one family (Holm 1979)."""
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_value_holm"] = adjusted


def verdict(difference: float, p_value: float, less_is_better: bool, confidence: float = CONFIDENCE) -> str:
    """``better`` or ``worse``, for the second of two models, or ``no-difference``."""
    if p_value >= 1 - confidence or difference == 0:
        return "no-difference"
    return "better" if (difference < 0) == less_is_better else "worse"
