"""The first sentences: what was shown, and no more than that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.answers import Answer, headline_of, kind_of, statistics_of
from featherweight.answers import headline as headline_statistic
from featherweight.statistics.proportions import rows_to_tell


def headline(metrics: Mapping[str, Any]) -> str:
    """What a run showed, from the content of ``metrics.json``: against its base model and against its cheaper rivals.

    A rival that is not beaten comes first. Each is compared with the tuned model on the same rows at the stated
    confidence. To claim that tuning beats every one of them each test has to reject, so no adjustment for their number
    is due (an intersection-union test, Berger 1982).
    """
    return _of_rare(metrics) + _of_all(metrics)


def _of_all(metrics: Mapping[str, Any]) -> str:
    base = _of_base(metrics)
    rungs: Mapping[str, Any] = metrics.get("rungs", {})
    figure = {name: _figure(metrics["baselines"][name], metrics) for name in rungs}
    best_first = sorted(rungs, key=figure.__getitem__, reverse=not headline_of(metrics).less_is_better)
    if ahead := [name for name in best_first if rungs[name]["verdict"] == "worse"]:
        return f"{_ahead(ahead, metrics)} {base}"
    if level := [name for name in best_first if rungs[name]["verdict"] == "no-difference"]:
        return f"{_level(level, metrics)} {base}"
    if best_first:
        return f"{base} It is better than every cheaper rival ({best_first[0]} has {figure[best_first[0]]:.4f})."
    return base


def of_several(against: str, rows: Sequence[Mapping[str, Any]], kind: type[Answer]) -> str:
    """What comparing several runs with one of them showed; p-values count as adjusted over all of them (Holm).

    Args:
        against: the run that the others are compared with.
        rows: ``comparisons`` of :func:`featherweight.workflow.compare`.
        kind: of the runs' answers.
    """
    found: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    withheld: list[str] = []
    for row in rows:
        run, difference = row["run"], f"{row['difference']:+.4f}"
        if row["p_value_holm"] >= 1 - row["confidence"]:
            found["not told apart from"].append(f"{run} ({difference}{_rows_that_tell(row)})")
        elif is_withheld(row):
            withheld.append(held_back(run, against, row, difference, kind))
        else:
            found[f"{row['verdict']} than"].append(f"{run} ({difference})")
    shown = [f"{_listed(names)} {_are(names)} {how} {against}" for how, names in found.items() if names]
    return f"{'; '.join([*shown, *withheld])}."


def over_seeds(found: Mapping[str, Any]) -> str:
    """What several seeds of one recipe showed together, and how far they scatter, which with few rows is far.

    Args:
        found: what :func:`featherweight.workflow.run_seeds` gives.
    """
    pair, name = found["pooled"], f"eval_{found['metric']}"
    low, high = pair["confidence_interval"]
    least, most = found["range"][name]
    title = headline_of(found).title
    how = "No difference is shown between the tuned model and the base model"
    if pair["verdict"] != "no-difference":
        how = f"The tuned model is {pair['verdict']} than the base model"
    return (
        f"{how} over {pair['seeds']} seeds ({title} {pair['base']:.4f} before, {pair['tuned']:.4f} after; "
        f"{pair['difference']:+.4f}, 95% interval over rows and seeds {low:+.4f} to {high:+.4f}, n = {pair['n']:,}). "
        f"The seed alone moves {title} from {least:.4f} to {most:.4f} (standard deviation "
        f"{found['standard_deviation'][name]:.4f}, {found['train_rows']:,} rows of train)."
    )


def _figure(rung: Mapping[str, Any], metrics: Mapping[str, Any]) -> float:
    """A rung's headline."""
    found: float = rung[f"eval_{metrics['comparison']['metric']}"]
    return found


def _of_base(metrics: Mapping[str, Any]) -> str:
    pair, kind = metrics["comparison"], kind_of(metrics)
    before, after = _figure(metrics["base"], metrics), _figure(metrics["tuned"], metrics)
    base = "the adapter that it started from" if metrics.get("started_from") else "the base model"
    if is_withheld(pair):
        return f"{held_back('The tuned model', base, pair, f'{before:.4f} before, {after:.4f} after', kind)}."
    if pair["verdict"] == "no-difference":
        figures = _level_figures(after, before, pair, kind)
        return f"No difference is shown between the tuned model and {base} ({figures})."
    figures = f"{headline_statistic(kind).title} {before:.4f} before, {after:.4f} after"
    return f"The tuned model is {pair['verdict']} than {base} ({figures})."


def _of_rare(metrics: Mapping[str, Any]) -> str:
    """What has to be read first where nearly all rows have one label; empty where they don't."""
    common = metrics.get("data_checks", {}).get("one_sided", {}).get(metrics.get("evaluated_split"))
    if common is None:
        return ""
    statistic = next(one for one in statistics_of(kind_of(metrics)) if one.minds_rare)
    pair = metrics["paired"][statistic.name]
    moved = (
        "which is no difference beyond chance" if pair["verdict"] == "no-difference" else f"which is {pair['verdict']}"
    )
    return (
        f"{common['share']:.1%} of the {metrics['evaluated_split']} rows are {common['label']!r}, so read "
        f"{statistic.title}: {pair['base']:.4f} before, {pair['tuned']:.4f} after, {moved}. "
    )


def _ahead(names: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """Rivals that are shown to be better."""
    first, *others = names
    pair = metrics["rungs"][first]
    figures = f"{_figure(metrics['baselines'][first], metrics):.4f} against {_figure(metrics['tuned'], metrics):.4f}"
    so_are = f", and so {_are(others)} {_listed(others)}" if others else ""
    return (
        f"{first}, which is cheaper, is better than the tuned model by {abs(pair['difference']):.4f} of "
        f"{headline_of(metrics).title} ({figures}, p = {pair['p_value']:.2g}){so_are}."
    )


def _level(names: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """Rivals of which neither is shown."""
    first, *others = names
    pair, kind = metrics["rungs"][first], kind_of(metrics)
    tuned, its = _figure(metrics["tuned"], metrics), _figure(metrics["baselines"][first], metrics)
    if is_withheld(pair):
        found = held_back("The tuned model", f"the cheaper {first}", pair, f"{tuned:.4f} against {its:.4f}", kind)
    else:
        figures = _level_figures(tuned, its, pair, kind)
        found = f"No difference is shown between the tuned model and {first}, which is cheaper ({figures})"
    nor = f"; nor is the tuned model shown to be better than {_listed(others)}" if others else ""
    return f"{found}{nor}."


def is_withheld(pair: Mapping[str, Any]) -> bool:
    """Whether the metric alone differs, and the kind of answer does not confirm it. Runs of before don't say."""
    return bool(_alone(pair) != pair["verdict"])


def _alone(pair: Mapping[str, Any]) -> str:
    """What the test of the metric alone says."""
    return str(pair.get(f"{pair['metric']}_verdict", pair["verdict"]))


def held_back(one: str, other: str, pair: Mapping[str, Any], figures: str, kind: type[Answer]) -> str:
    title = headline_statistic(kind).title
    if _alone(pair) == "better":
        return f"{one} is ahead of {other} in {title} ({figures}), but {kind.reservation}"
    return f"{one} is behind {other} in {title} ({figures}), which {kind.reservation}"


def _level_figures(one: float, other: float, pair: Mapping[str, Any], kind: type[Answer]) -> str:
    title = headline_statistic(kind).title
    return f"{title} {one:.4f} against {other:.4f}, n = {pair['n']:,}{_rows_that_tell(pair)}"


def _rows_that_tell(pair: Mapping[str, Any]) -> str:
    """How many rows would tell; nothing where no number would, or where it is not rows that are independent."""
    if pair["test"] != "mcnemar-exact":
        return ""
    needed = rows_to_tell(pair["fixed"], pair["broken"], pair["n"], pair["confidence"])
    if needed is None or needed <= pair["n"]:
        return ""
    unit = 10 ** max(math.floor(math.log10(needed)) - 1, 0)  # two digits: it is no better known than that
    return f"; about {math.ceil(needed / unit) * unit:,} rows would tell one of this size"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
