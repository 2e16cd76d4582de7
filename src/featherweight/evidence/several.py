"""Several runs at once: each against the first and every pair on the same rows, and what the seed alone changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from featherweight.answers import Answer, figures, headline, statistics_of
from featherweight.errors import DataError
from featherweight.evidence.two_models import Pair, by_every_statistic, by_headline
from featherweight.records.rows import equal
from featherweight.runs.predictions import Predictions
from featherweight.statistics import resampling
from featherweight.statistics.paired import adjust
from featherweight.statistics.proportions import CONFIDENCE, not_inferior

SEED = "training.seed"


def against_first(
    sides: Sequence[tuple[str, Predictions]], margin: float | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Compare each set of predictions with the first; the p-values are one family (Holm).

    Args:
        sides: name and predictions; all of the same rows.
        margin: a difference in the headline's statistic that would not matter; adds ``not_inferior``.
        seed: of the resampling.

    Raises:
        DataError: they are not of the same rows.
    """
    (against, first), *others = sides
    rows: list[dict[str, Any]] = []
    for name, other in others:
        asked = first.kind, _pair(against, first, name, other), first.truth, first.groups, seed
        found: dict[str, Any] = {**by_headline(*asked), "paired": by_every_statistic(*asked)}
        if margin is not None:
            low, high = found["confidence_interval"]
            gain = (-high, -low) if headline(first.kind).less_is_better else (low, high)
            found |= {"margin": margin, "not_inferior": not_inferior(gain, margin)}
        rows.append({"run": name, "against": against, **found})
    adjust(rows)
    return rows


def every_pair(sides: Sequence[tuple[str, Predictions]]) -> list[dict[str, Any]]:
    """The headline of every pair, the later against the earlier; the p-values are one family (Holm)."""
    rows: list[dict[str, Any]] = []
    for (against, first), (name, other) in combinations(sides, 2):
        pair = _pair(against, first, name, other)
        rows.append({"run": name, "against": against, **by_headline(first.kind, pair, first.truth, first.groups)})
    adjust(rows)
    return rows


def table(sides: Sequence[tuple[str, Predictions]], runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every run's figures, from its predictions; cost from its ``metrics.json``."""
    rows = []
    for name, side in sides:
        metrics = runs.get(name)
        cost = {"eval_loss": metrics["tuned"]["eval_loss"], "trainable_parameters": metrics["trainable_parameters"],
                "train_runtime": metrics["resources"].get("train_runtime")} if metrics else {}  # fmt: skip
        rows.append({"run": name, **figures(side.kind, side.answers, side.truth), **cost})
    return rows


def over_seeds(
    rows: Sequence[Mapping[str, Any]], environments: Mapping[str, Mapping[str, Any]], kind: Answer
) -> list[dict[str, Any]]:
    """Mean, standard deviation (n - 1) and range over runs that differ in nothing but their seed, if there are several.

    What they chose for themselves may differ: they see other samples of the rows, and so find other rates.

    Args:
        rows: from :func:`table`.
        environments: content of each run's ``environment.json``, by run.
        kind: of their answers.
    """
    identities = {name: one["identity"] for name, one in environments.items()}
    by_run = {row["run"]: row for row in rows}
    names = [f"eval_{one.name}" for one in statistics_of(kind) if one.in_evaluations]
    found = []
    for members in _alike(environments):
        if len({identities[name].get(SEED) for name in members}) > 1:
            values = {one: [by_run[name][one] for name in members] for one in names}
            found.append(
                {
                    "runs": members,
                    "seeds": [identities[name].get(SEED) for name in members],
                    "mean": {name: float(np.mean(one)) for name, one in values.items()},
                    "standard_deviation": {name: float(np.std(one, ddof=1)) for name, one in values.items()},
                    "range": {name: [float(min(one)), float(max(one))] for name, one in values.items()},
                }
            )
    return found


def _alike(environments: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Runs that are alike but for their seed, in what decides their outcome or in what they were asked for."""
    groups: list[tuple[set[str], list[str]]] = []
    for name, environment in environments.items():
        identity, chosen = {**environment["identity"], SEED: None}, environment.get("chosen", [])
        keys = {_key(identity), _key(identity | dict.fromkeys(chosen, "chosen"))}
        same = [group for group in groups if group[0] & keys]
        groups = [group for group in groups if group not in same]
        groups.append((keys.union(*(one for one, _ in same)), [*(run for _, runs in same for run in runs), name]))
    return [names for _, names in groups]


def _key(facts: Mapping[str, Any]) -> str:
    return repr(sorted((key, repr(value)) for key, value in facts.items()))


def pooled(base: Sequence[Predictions], tuned: Sequence[Predictions], seed: int = 0) -> dict[str, Any]:
    """Base and tuned models of several seeds as one comparison, by the headline: a row counts with its mean over the
    seeds, and the interval is that of other rows and other seeds.

    Args:
        base: a seed each, all of the same rows.
        tuned: in the order of ``base``.
        seed: of the resampling.

    Returns:
        ``base`` and ``tuned``, means over the seeds; their ``difference`` with its interval; ``verdict``, which is
        ``no-difference`` where the interval holds 0, or what the kind of answer asks besides is not so for every seed.

    Raises:
        DataError: they are not of the same rows.
    """
    first = base[0]
    kind, truth = first.kind, first.truth
    statistic = headline(kind)
    written = partial(_pair, "the first seed", first, "another seed")  # as the first seed's run writes them
    pairs = [(written(one)[1], written(other)[1]) for one, other in zip(base, tuned, strict=True)]
    measured = [(statistic.of(one, truth), statistic.of(other, truth)) for one, other in pairs]
    units = resampling.clusters_of(first.groups, len(first.ids))
    resamples = resampling.resamples_for(len(pairs) * (int(units.max()) + 1))
    low, high = resampling.interval(resampling.crossed(measured, units, resamples=resamples, seed=seed), CONFIDENCE)
    before, after = (float(np.mean([pair[side].of_all_rows for pair in measured])) for side in (0, 1))
    verdict = "no-difference" if low <= 0 <= high else "better" if (high < 0) == statistic.less_is_better else "worse"
    agreed = {kind.confirm(verdict, pair, truth, first.groups, seed) for pair in pairs}
    return {
        "metric": statistic.name,
        "n": len(first.ids),
        "seeds": len(pairs),
        "base": before,
        "tuned": after,
        "difference": after - before,
        "confidence_interval": [low, high],
        "confidence": CONFIDENCE,
        "test": "bootstrap-of-rows-and-seeds",
        "verdict": verdict if agreed == {verdict} else "no-difference",
    }


def _pair(against: str, first: Predictions, name: str, other: Predictions) -> Pair:
    """Both answers as the first run writes them. Raises DataError where they are not of the same rows."""
    same = first.kind.name == other.kind.name and np.array_equal(first.ids, other.ids)
    taken = first.kind.taken_from(other.kind, other.answers, other.truth) if same else None
    if taken is None or not equal(first.truth, taken[1]):
        raise DataError(f"{name} and {against} were not measured on the same rows, so they can't be paired")
    return first.answers, taken[0]
