"""A recipe with several seeds: a whole run for each, and what they show together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featherweight.answers import headline_of
from featherweight.errors import ConfigError, Interrupted
from featherweight.process import launch
from featherweight.process.signals import stop_on_signals
from featherweight.recipe import Recipe
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.running import run

_SEEDS = 2**32


def run_seeds(
    recipe: Recipe,
    seeds: int | Sequence[int],
    output_dir: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
    continue_with: str | None = None,
) -> dict[str, Any]:
    """Run a recipe with several values of ``training.seed``: an ordinary run each, in ``seed-<seed>``, all measured on
    the same rows. Each measures its own base model, whose fresh head is drawn by the seed.

    Args:
        seeds: how many, counted on from the recipe's, or which.
        output_dir: where the runs, ``seeds.json`` and ``seeds.html`` go; ``runs/<recipe's name>-seeds`` if None.
        resume: go on with the run that is not finished; finished ones stay.
        force, continue_with: as for :func:`featherweight.workflow.run`.

    Returns:
        What ``seeds.json`` has: ``runs``; ``mean``, ``standard_deviation`` and ``range`` of each statistic; ``pooled``,
        the comparison with the base model over rows and seeds; ``headline``.

    Raises:
        FeatherweightError: of the first run that fails; ConfigError also for the seeds and the folder.
    """
    console = console or Console(quiet=True)
    chosen = _chosen(seeds, recipe.training.seed)
    root = RunDirectory(output_dir or Path("runs") / f"{recipe.name}-seeds")
    _refuse(root, resume)
    folders = {seed: root.path / f"seed-{seed}" for seed in chosen}
    with stop_on_signals(console.say) as stop:
        for number, (seed, folder) in enumerate(folders.items(), start=1):
            if stop():
                raise Interrupted(f"stopped before seed {seed}; continue with: {continue_with or 'resume=True'}")
            done = RunDirectory(folder).is_complete
            console.say(f"seed {seed}, {number} of {len(folders)}{': complete already' if done else ''}")
            shown = Console(quiet=True) if done else console  # it still has to be a run of this recipe
            one = _with_seed(recipe, seed)
            run(one, folder, resume=resume, force=force, console=shown, continue_with=continue_with)
    found = _together(recipe.name, folders)
    _write(root, found)
    console.show(tables.over_seeds(found), f"\n{found['headline']}", f"\nEverything is in {root.path}.")
    return found


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})


def _chosen(seeds: int | Sequence[int], first: int) -> list[int]:
    if not launch.place().is_alone:
        raise ConfigError("--seeds: makes runs of one process each; start it without a launcher")
    chosen = list(range(first, first + seeds)) if isinstance(seeds, int) else list(seeds)
    if len(chosen) < 2:
        raise ConfigError("--seeds: give how many, 2 or more, or a list of them such as 1,2,3")
    if len(set(chosen)) < len(chosen):
        raise ConfigError("--seeds names one seed twice")
    if outside := [one for one in chosen if not 0 <= one < _SEEDS]:
        raise ConfigError(f"--seeds: {outside[0]} is no seed; they go from 0 to {_SEEDS - 1}")
    return chosen


def _refuse(root: RunDirectory, resume: bool) -> None:
    """Before hours of training: a folder that holds something else."""
    there = [path.name for path in root.path.iterdir()] if root.path.is_dir() else []
    if root.environment.is_file():
        raise ConfigError(f"{root.path}: holds a single run; choose another --output-dir")
    if there and not resume:
        raise ConfigError(f"{root.path}: is not empty; go on with --resume, or choose another --output-dir")


def _together(name: str, folders: Mapping[int, Path]) -> dict[str, Any]:
    """What the finished runs show, from their files alone."""
    from featherweight.evidence import several, verdict

    runs = {str(folder): RunDirectory(folder) for folder in folders.values()}
    metrics = {one: directory.read_metrics() for one, directory in runs.items()}
    environments = {one: directory.read_environment() for one, directory in runs.items()}
    first = next(iter(metrics.values()))
    split, metric = first["evaluated_split"], headline_of(first).name
    base, tuned = ([one.read_predictions(model, split) for one in runs.values()] for model in ("base", "tuned"))
    figures = several.table(list(zip(runs, tuned, strict=True)), metrics)
    groups = several.over_seeds(figures, environments, tuned[0].kind)
    if len(groups) != 1 or len(groups[0]["runs"]) != len(runs):
        raise ConfigError(f"{next(iter(folders.values())).parent}: holds runs that differ in more than their seed")
    found = {
        "recipe": name,
        "answer": first["answer"],
        "metric": metric,
        "evaluated_split": split,
        "train_rows": first["rows"]["train"],
        "runs": [
            {"seed": seed, **row, **_of_run(metrics[row["run"]], metric)}
            for seed, row in zip(folders, figures, strict=True)
        ],
        **{key: groups[0][key] for key in ("mean", "standard_deviation", "range")},
        "pooled": several.pooled(base, tuned, seed=min(folders)),
    }
    found["headline"] = verdict.over_seeds(found)
    return found


def _of_run(metrics: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """What a run says of itself, beside its figures."""
    return {
        "base": metrics["base"][f"eval_{metric}"],
        "verdict": metrics["comparison"]["verdict"],
        "headline": metrics["headline"],
    }


def _write(root: RunDirectory, found: Mapping[str, Any]) -> None:
    from featherweight.report.page import several_seeds

    root.write_text(root.path / "seeds.html", several_seeds(found))
    root.write_json(root.path / "seeds.json", found)
