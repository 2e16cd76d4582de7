"""Accuracy against the number of labels: through a linear probe on frozen features, or by tuning again and again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.errors import ConfigError, DataError, Interrupted
from featherweight.evidence import learning_curve as curves
from featherweight.evidence.baselines import fit_probe
from featherweight.process.signals import stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.rows import Examples
from featherweight.registry import TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.workflow.preparing import evaluated_split, prepare
from featherweight.workflow.rungs import frozen_part
from featherweight.workflow.running import run

_FEWEST_ROWS = 64
_FEWEST_SEEDS = 3

Point = tuple[int, float]


def learning_curve(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    seeds: int = 5,
    tune: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure with an eighth of train up to all of it, and say what more labels would bring.

    Args:
        output_dir: where ``learning-curve.json`` and ``learning-curve.html`` go; ``runs/<name>-learning-curve`` if
            None. Tuned runs go there too, and those that are complete are not made again.
        seeds: draws of the rows for each size, at least 3.
        tune: tune the recipe at every size and seed, rather than fit a linear probe on the untuned model's features.

    Raises:
        ConfigError: there is a curve in the folder already, or there are too few seeds.
        DataError: train has fewer than 64 rows.
    """
    from featherweight.report.page import one_curve

    console = console or Console(quiet=True)
    directory = RunDirectory(output_dir or Path("runs") / f"{recipe.name}-learning-curve")
    target = directory.path / "learning-curve.json"
    if target.exists():
        raise ConfigError(f"{target}: is there already; choose another --output-dir")
    if seeds < _FEWEST_SEEDS:
        raise ConfigError(f"--seeds {seeds}: a scatter needs at least {_FEWEST_SEEDS}")
    _, examples = TASKS[recipe.task].prepare(data.load(recipe.data), recipe.data, recipe.training.seed)
    if len(examples["train"]) < _FEWEST_ROWS:
        raise DataError(f"{examples['train'].origin}: {len(examples['train'])} rows of train; a curve needs 64")
    measured = _tuned(recipe, examples, directory, seeds, console) if tune else _probed(recipe, seeds, console)
    accuracies: dict[int, list[float]] = {}
    for rows, accuracy in measured:
        accuracies.setdefault(rows, []).append(accuracy)
    split = evaluated_split(examples)
    found = {
        "recipe": recipe.name,
        "answer": TASKS[recipe.task].answers_with.name,
        "method": recipe.method.name if tune else "linear-probe",
        "evaluated_split": split,
        "evaluated_rows": len(examples[split]),
        "seeds": seeds,
        **curves.summarise(accuracies, recipe.training.seed),
    }
    found["headline"] = curves.headline(found)
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.write_text(directory.path / "learning-curve.html", one_curve(found))
    directory.write_json(target, found)
    console.show(tables.learning_curve(found), found["headline"], f"{target.with_suffix('.html')}: written")
    return found


def _probed(recipe: Recipe, seeds: int, console: Console) -> Iterator[Point]:
    """Every row's features once, then a probe for each size and seed, which takes a moment."""
    prepared = prepare(recipe, console)
    with stop_on_signals(console.say) as stop:
        train, held_out = (
            frozen_part(prepared, name, console, stop).all_features() for name in ("train", prepared.evaluated_split)
        )
        labels, group = prepared.examples["train"].labels, prepared.recipe.data.group
        groups = prepared.examples["train"].groups(group) if group else None
        answers = prepared.examples[prepared.evaluated_split].labels
        for fraction in curves.FRACTIONS:
            for seed in range(seeds):
                if stop():
                    raise Interrupted("stopped while measuring the learning curve; nothing was written")
                rows = curves.subset(labels, fraction, seed, groups)
                model = fit_probe(train[rows], labels[rows])
                yield len(rows), float(np.mean(model.predict(held_out) == answers))


def _tuned(
    recipe: Recipe, examples: dict[str, Examples], directory: RunDirectory, seeds: int, console: Console
) -> Iterator[Point]:
    """A whole run for each size and seed; the seed also draws the rows of train."""
    for fraction in curves.FRACTIONS:
        rows = round(fraction * len(examples["train"]))
        for seed in range(seeds):
            console.say(f"tuning with {rows:,} rows of train, seed {seed}")
            section = recipe.data.model_copy(update={"max_train_samples": rows})
            training = recipe.training.model_copy(update={"seed": seed})
            one = recipe.model_copy(update={"data": section, "training": training})
            record = run(one, directory.path / f"rows-{rows}-seed-{seed}", resume=True, progress=False)
            yield rows, record.metrics["tuned"][f"eval_{record.metrics['comparison']['metric']}"]
