"""Two models on the same rows: by the headline, and by every statistic of their kind of answer as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from featherweight.answers import Answer, headline, statistics_of
from featherweight.records.answers import Answers
from featherweight.records.outcome import PairedFigure, PairedTest
from featherweight.statistics import paired
from featherweight.statistics.additive import Statistic
from featherweight.statistics.proportions import detectable_difference, smallest_significant_difference

Pair = tuple[Answers, Answers]
Groups = Sequence[str | None] | None


def by_headline(kind: Answer, pair: Pair, truth: Any, groups: Groups = None, seed: int = 0) -> PairedTest:
    """The paired comparison by the kind's first statistic, with what this test set could have shown.

    Args:
        pair: answers of the one model and of the other.
        groups: what each row belongs to, where rows are not independent.

    Returns:
        Besides the keys of its type ``<metric>_verdict``, what the test of the metric alone says.
    """
    first = headline(kind)
    one, other = (first.of(side, truth) for side in pair)
    found = paired.compare(first.name, (one, other), groups, less_is_better=first.less_is_better, seed=seed)
    counts = paired.discordant((one, other))
    changed = None if counts is None else (counts.fixed, counts.broken, found.n)
    told = {
        **asdict(found),
        "verdict": kind.confirm(found.verdict, pair, truth, groups, seed),
        f"{first.name}_verdict": found.verdict,
        "confidence_interval": list(found.confidence_interval),
        "smallest_significant_difference": smallest_significant_difference(*changed) if changed else None,
        "detectable_difference": detectable_difference(*changed) if changed else None,
    }
    return cast(PairedTest, told)


def by_every_statistic(
    kind: Answer, pair: Pair, truth: Any, groups: Groups = None, seed: int = 0
) -> dict[str, PairedFigure]:
    """Difference, interval and p-value of each statistic, adjusted as one family (Holm)."""
    return by_statistics(kind, statistics_of(kind), pair, truth, groups, seed)


def by_statistics(
    kind: Answer,
    statistics: Sequence[Statistic],
    pair: Pair,
    truth: Any,
    groups: Groups = None,
    seed: int = 0,
) -> dict[str, PairedFigure]:
    """The same of some of them.

    The headline and shares of rows are in the family with tests of their own; the others share their resamples, by rows
    or by groups.

    Returns:
        By the statistic's name; ``verdict`` is after the adjustment.
    """
    found: dict[str, dict[str, Any]] = {}
    resampled: dict[str, paired.Pair] = {}
    for statistic in statistics:
        one, other = (statistic.of(side, truth) for side in pair)
        if statistic is headline(kind) or one.outcomes is not None:
            found[statistic.name] = _alone(statistic, (one, other), groups, seed)
        else:
            resampled[statistic.name] = (one, other)
    found |= paired.family(resampled, groups, seed=seed)
    rows = {statistic.name: found[statistic.name] for statistic in statistics}
    paired.adjust(list(rows.values()))
    for statistic in statistics:
        row = rows[statistic.name]
        row["verdict"] = paired.verdict(row["difference"], row["p_value_holm"], statistic.less_is_better)
    return cast(dict[str, PairedFigure], rows)


def _alone(statistic: Statistic, pair: paired.Pair, groups: Groups, seed: int) -> dict[str, Any]:
    """By a test of its own."""
    found = asdict(paired.compare(statistic.name, pair, groups, less_is_better=statistic.less_is_better, seed=seed))
    return {
        "base": pair[0].of_all_rows,
        "tuned": pair[1].of_all_rows,
        **{key: found[key] for key in ("difference", "p_value", "test")},
        "confidence_interval": list(found["confidence_interval"]),
    }
