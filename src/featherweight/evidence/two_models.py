"""Two models on the same rows: by the headline, and by every statistic of their kind of answer as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from featherweight.answers import Answer, headline
from featherweight.records.answers import Answers
from featherweight.statistics import paired
from featherweight.statistics.proportions import detectable_difference, smallest_significant_difference

Pair = tuple[Answers, Answers]
Groups = Sequence[str | None] | None


def by_headline(kind: Answer, pair: Pair, truth: Any, groups: Groups = None, seed: int = 0) -> dict[str, Any]:
    """The paired comparison by the kind's first statistic, with what this test set could have shown.

    Args:
        pair: answers of the one model and of the other.
        groups: what each row belongs to, where rows are not independent.

    Returns:
        The fields of :class:`~featherweight.records.answers.Comparison`; ``verdict`` is what the kind confirms, and
        ``<metric>_verdict`` what the test of the metric alone says.
    """
    first = headline(kind)
    one, other = (first.of(side, truth) for side in pair)
    found = paired.compare(first.name, (one, other), groups, less_is_better=first.less_is_better, seed=seed)
    counts = paired.discordant((one, other))
    changed = None if counts is None else (counts.fixed, counts.broken, found.n)
    return {
        **asdict(found),
        "verdict": kind.confirm(found.verdict, pair, truth, groups, seed),
        f"{first.name}_verdict": found.verdict,
        "confidence_interval": list(found.confidence_interval),
        "smallest_significant_difference": smallest_significant_difference(*changed) if changed else None,
        "detectable_difference": detectable_difference(*changed) if changed else None,
    }


def by_every_statistic(
    kind: Answer, pair: Pair, truth: Any, groups: Groups = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Difference, interval and p-value of each statistic, adjusted as one family (Holm).

    The headline is in the family with its own test; the others share their resamples, by rows or by groups.

    Returns:
        Statistic to ``base``, ``tuned``, ``difference``, ``confidence_interval``, ``p_value``, ``p_value_holm``,
        ``test``, ``resamples`` where it is by resampling, and ``verdict`` after the adjustment.
    """
    first, *others = kind.statistics
    one, other = (first.of(side, truth) for side in pair)
    alone = asdict(paired.compare(first.name, (one, other), groups, less_is_better=first.less_is_better, seed=seed))
    rows: dict[str, dict[str, Any]] = {
        first.name: {
            "base": one.of_all_rows,
            "tuned": other.of_all_rows,
            **{key: alone[key] for key in ("difference", "p_value", "test")},
            "confidence_interval": list(alone["confidence_interval"]),
        }
    }
    pairs = {statistic.name: (statistic.of(pair[0], truth), statistic.of(pair[1], truth)) for statistic in others}
    rows |= paired.family(pairs, groups, seed=seed)
    paired.adjust(list(rows.values()))
    for statistic in kind.statistics:
        row = rows[statistic.name]
        row["verdict"] = paired.verdict(row["difference"], row["p_value_holm"], statistic.less_is_better)
    return rows
