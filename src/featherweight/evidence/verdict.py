"""The first sentences: what was shown, and no more than that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.evidence.compare import rows_to_tell


def headline(metrics: Mapping[str, Any]) -> str:
    """What a run showed, from the content of ``metrics.json``: against its base model and against its cheaper rivals.

    A rival that is not beaten comes first. Each is compared with the tuned model on the same rows at the stated
    confidence. To claim that tuning beats every one of them each test has to reject, so no adjustment for their number
    is due (an intersection-union test, Berger 1982).
    """
    base = _of_base(metrics)
    rungs: Mapping[str, Any] = metrics.get("rungs", {})
    accuracy = {name: metrics["baselines"][name]["eval_accuracy"] for name in rungs}
    best_first = sorted(rungs, key=lambda name: -accuracy[name])
    if ahead := [name for name in best_first if rungs[name]["verdict"] == "worse"]:
        return f"{_ahead(ahead, metrics)} {base}"
    if level := [name for name in best_first if rungs[name]["verdict"] == "no-difference"]:
        return f"{_level(level, metrics)} {base}"
    if best_first:
        return f"{base} It is better than every cheaper rival ({best_first[0]} has {accuracy[best_first[0]]:.4f})."
    return base


def of_several(against: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What comparing several runs with one of them showed; p-values count as adjusted over all of them (Holm).

    Args:
        against: the run that the others are compared with.
        rows: ``comparisons`` of :func:`featherweight.workflow.compare`.
    """
    by_verdict: dict[str, list[str]] = {"better": [], "worse": [], "no-difference": []}
    for row in rows:
        shown = row["p_value_holm"] < 1 - row["confidence"]
        more = "" if shown else _rows_that_tell(row)
        by_verdict[row["verdict"] if shown else "no-difference"].append(
            f"{row['run']} ({row['difference']:+.4f}{more})"
        )
    found = [
        f"{_listed(names)} {_are(names)} {verdict} than {against}"
        for verdict in ("better", "worse")
        if (names := by_verdict[verdict])
    ]
    if level := by_verdict["no-difference"]:
        found.append(f"{'no' if found else 'No'} difference is shown between {against} and {_listed(level)}")
    return f"{'; '.join(found)}."


def _of_base(metrics: Mapping[str, Any]) -> str:
    pair, before, after = metrics["comparison"], metrics["base"]["eval_accuracy"], metrics["tuned"]["eval_accuracy"]
    if pair["verdict"] == "no-difference":
        figures = _level_figures(after, before, pair)
        return f"No difference is shown between the tuned model and the base model ({figures})."
    figures = f"accuracy {before:.4f} before, {after:.4f} after"
    return f"The tuned model is {pair['verdict']} than the base model ({figures})."


def _ahead(names: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """Rivals that are shown to be better."""
    first, *others = names
    pair = metrics["rungs"][first]
    figures = f"{metrics['baselines'][first]['eval_accuracy']:.4f} against {metrics['tuned']['eval_accuracy']:.4f}"
    so_are = f", and so {_are(others)} {_listed(others)}" if others else ""
    return (
        f"{first}, which is cheaper, is better than the tuned model by {-pair['difference']:.4f} of accuracy "
        f"({figures}, p = {pair['p_value']:.2g}){so_are}."
    )


def _level(names: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """Rivals of which neither is shown."""
    first, *others = names
    accuracies = metrics["tuned"]["eval_accuracy"], metrics["baselines"][first]["eval_accuracy"]
    nor = f", nor between it and {_listed(others)}" if others else ""
    return (
        f"No difference is shown between the tuned model and {first}, which is cheaper "
        f"({_level_figures(*accuracies, metrics['rungs'][first])}){nor}."
    )


def _level_figures(one: float, other: float, pair: Mapping[str, Any]) -> str:
    return f"accuracy {one:.4f} against {other:.4f}, n = {pair['n']:,}{_rows_that_tell(pair)}"


def _rows_that_tell(pair: Mapping[str, Any]) -> str:
    """How many rows would tell; nothing where no number would, or where it is not rows that are independent."""
    needed = rows_to_tell(pair["fixed"], pair["broken"], pair["n"], pair["confidence"])
    if needed is None or needed <= pair["n"] or pair["test"] != "mcnemar-exact":
        return ""
    unit = 10 ** max(math.floor(math.log10(needed)) - 1, 0)  # two digits: it is no better known than that
    return f"; about {math.ceil(needed / unit) * unit:,} rows would tell one of this size"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
