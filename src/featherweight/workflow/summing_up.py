"""What a sweep shows, from its trials and the runs that were published of them, written down and shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherweight.answers import headline, kind_of, standard_error
from featherweight.evidence import selection, winner
from featherweight.records.sweeps import Flattery, Sweep, Trial
from featherweight.report import tables
from featherweight.runs.directory import SCHEMA_VERSION, SWEEP, RunDirectory
from featherweight.workflow.preparing import SELECTION_SPLIT

if TYPE_CHECKING:
    from featherweight.workflow.sweeping import EndedBy, Sweeping


def sum_up(sweep: Sweeping, best: Trial, runs: Mapping[str, RunDirectory], ended_by: EndedBy) -> dict[str, Any]:
    """Write ``report.html`` and, last of all, ``sweep.json``; and show what they say.

    Args:
        best: the winner's trial.
        runs: the published runs by their names, the winner first, and the recipe as it stands where that is another and
            did not fail.
    """
    from featherweight.report.page import one_sweep

    found = _found(sweep, best, runs, ended_by)
    if len(runs) > 1:
        split = found["evaluated_split"]
        won, recipe = ((run.read_predictions("tuned", split), run.read_metrics()) for run in runs.values())
        found["comparison"] = winner.compare(recipe, won, sweep.recipe.training.seed)
    found["headline"] = winner.headline(found, kind_of(found))
    sweep.root.write_text(sweep.root.report, one_sweep(found))
    sweep.root.write_json(sweep.root.path / SWEEP, found)
    _show(sweep, found)
    return dict(found)


def _found(sweep: Sweeping, best: Trial, runs: Mapping[str, RunDirectory], ended_by: EndedBy) -> Sweep:
    """All but the comparison, and what it says."""
    first, *others = runs
    won = runs[first].read_metrics()
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": sweep.recipe.name,
        "task": sweep.recipe.task,
        "answer": won["answer"],
        "compared_by": sweep.compared_by,
        "less_is_better": sweep.less_is_better,
        "parameters": sweep.asked.model_dump(exclude_none=True)["parameters"],
        "budget": sweep.budget(ended_by),
        "trials": sweep.trials,
        "winner": {
            "trial": best["number"],
            "settings": best["settings"],
            "run": first,
            "headline": won["headline"],
        },
        "default": others[0] if others else first if best["number"] == 0 else None,
        "evaluated_split": won["evaluated_split"],
        "held_out": sweep.held_out,
        "selection": _selection(sweep, runs[first], won),
        "comparison": None,
        "importance": sweep.search.importance(sweep.trials),
        "headline": "",
    }


def _selection(sweep: Sweeping, run: RunDirectory, metrics: Mapping[str, Any]) -> Flattery:
    first = headline(sweep.kind)
    answers = run.read_predictions("tuned", SELECTION_SPLIT)
    error = standard_error(answers.kind, answers.answers, answers.truth)
    name = f"eval_{first.name}"
    figures = metrics["selection"]["tuned"][name], metrics["tuned"][name]
    return selection.of_trials(sweep.trials, SELECTION_SPLIT, len(answers.ids), error, figures)


def _show(sweep: Sweeping, found: Sweep) -> None:
    root, kind = sweep.root.path, kind_of(found)
    run = RunDirectory(root / found["winner"]["run"])
    sweep.console.show(
        tables.trials(found),
        *([tables.importance(found)] if found["importance"] else []),
        f"\n{found['headline']} {winner.flattery(found, kind)}",
        f"The winner (trial {found['winner']['trial']}): {found['winner']['headline']}",
        f"\nEverything is in {root}; the winner is a run like any other:",
        tables.command(tables.predict_command(run.path, run.read_metrics())),
    )
