"""Accuracy against the number of labels: through a linear probe on frozen features, or by tuning again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from featherweight.answers import headline
from featherweight.errors import ConfigError, DataError, Interrupted
from featherweight.evidence import learning_curve as curves
from featherweight.evidence.baselines import Probe, through
from featherweight.process.signals import stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.rows import Examples
from featherweight.registry import BASELINES, TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks import Task
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
    console = console or Console(quiet=True)
    directory = RunDirectory(output_dir or Path("runs") / f"{recipe.name}-learning-curve")
    target = directory.path / "learning-curve.json"
    _refuse(target, seeds)
    recipe = recipe.model_copy(update={"data": data.found(recipe.data)})
    task, examples = _read(recipe)
    if not tune and not task.answer.probe:
        raise ConfigError(f"learning-curve: {recipe.task} has no linear probe; give --tune")
    first = headline(task.answer)
    measured = _tuned(recipe, examples, directory, seeds, console) if tune else _probed(recipe, seeds, console)
    split = evaluated_split(examples)
    found = {
        "recipe": recipe.name,
        "answer": task.answer.name,
        "metric": first.name,
        "method": recipe.method.name if tune else task.answer.probe,
        "evaluated_split": split,
        "evaluated_rows": len(examples[split]),
        "seeds": seeds,
        **curves.summarise(_by_size(measured), recipe.training.seed, first.less_is_better),
    }
    found["headline"] = curves.headline(found, first)
    _write(directory, target, found)
    console.show(tables.learning_curve(found), found["headline"], f"{target.with_suffix('.html')}: written")
    return found


def _refuse(target: Path, seeds: int) -> None:
    """What can be refused before anything is read."""
    if target.exists():
        raise ConfigError(f"{target}: is there already; choose another --output-dir")
    if seeds < _FEWEST_SEEDS:
        raise ConfigError(f"--seeds {seeds}: a scatter needs at least {_FEWEST_SEEDS}")


def _read(recipe: Recipe) -> tuple[Task, Mapping[str, Examples]]:
    """The rows as the task sees them, which have to be enough for an eighth of them to teach anything."""
    reader: type[Task] = TASKS[recipe.task]
    task, examples = reader.prepare(data.load(recipe.data), recipe.data, recipe.training.seed)
    train = examples["train"]
    if len(train) < _FEWEST_ROWS:
        raise DataError(f"{train.origin}: {len(train)} rows of train; a curve needs {_FEWEST_ROWS}")
    return task, examples


def _write(directory: RunDirectory, target: Path, found: Mapping[str, Any]) -> None:
    from featherweight.report.page import one_curve

    directory.path.mkdir(parents=True, exist_ok=True)
    directory.write_text(target.with_suffix(".html"), one_curve(found))
    directory.write_json(target, found)


def _by_size(measured: Iterable[Point]) -> dict[int, list[float]]:
    figures: dict[int, list[float]] = {}
    for rows, figure in measured:
        figures.setdefault(rows, []).append(figure)
    return figures


def _probed(recipe: Recipe, seeds: int, console: Console) -> Iterator[Point]:
    """Every row's features once, then a probe for each size and seed, which takes a moment."""
    prepared = prepare(recipe, console)
    with stop_on_signals(console.say) as stop:
        kind, train = prepared.task.answer, prepared.examples["train"]
        asked = prepared.examples[prepared.evaluated_split].truth
        read, held_out = (
            frozen_part(prepared, name, console, stop).all_features() for name in ("train", prepared.evaluated_split)
        )
        probe: type[Probe] = BASELINES[kind.probe]
        groups = prepared.groups_of(train)
        for fraction in curves.FRACTIONS:
            for seed in range(seeds):
                if stop():
                    raise Interrupted("stopped while measuring the learning curve; nothing was written")
                rows = curves.subset(kind.strata(train.truth)[0], fraction, seed, groups)
                weight, bias = probe.layer(read[rows], train.truth[rows], kind)
                answers = kind.of_outputs(through(held_out, weight, bias), {})
                yield len(rows), headline(kind).of(answers, asked).of_all_rows


def _tuned(
    recipe: Recipe, examples: Mapping[str, Examples], directory: RunDirectory, seeds: int, console: Console
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
