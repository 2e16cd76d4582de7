"""Measuring any model, adapter, export or run on any data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featherweight import recipe as recipes
from featherweight.answers import evaluation_of, interval
from featherweight.errors import ConfigError
from featherweight.inference.facts import task_named
from featherweight.inference.predictor import is_export, load_predictor
from featherweight.recipe import DataSection, TrainingSection
from featherweight.records.answers import Answers, Evaluation, joined
from featherweight.records.rows import Examples, Split
from featherweight.registry import TASKS, did_you_mean
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.report.fitted import FittedTable
from featherweight.runs.directory import RunDirectory
from featherweight.sources import archives, data, models
from featherweight.storage.names import beside
from featherweight.tasks import Task
from featherweight.tasks.reading import lengths
from featherweight.tasks.reading.splits import HELD_OUT
from featherweight.workflow.own_data import holds_train, read_own_data
from featherweight.workflow.preparing import SELECTION_SPLIT

_BATCH_SIZE = TrainingSection().per_device_eval_batch_size


def evaluate(
    target: str,
    section: DataSection | None = None,
    *,
    split: str | None = None,
    base_model: str | None = None,
    task: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a run, an adapter, an export or any model, on a run's own held-out rows or on other data.

    Args:
        target: run folder, adapter folder, folder of an export, or a model or adapter as in a recipe.
        section: the data; a run's own if None. Its ``labels`` name the model's outputs in their order.
        split: which split to measure; validation, else test, else train.
        base_model: where an adapter's base model is on this machine; where the adapter says itself if None.
        task: what a model is measured as that was not tuned here; what it says itself if None.

    Returns:
        ``eval_*`` metrics with the headline's interval; what the kind of answer has in detail, such as ``labels``, each
        with ``precision``, ``recall``, ``f1`` and ``support``; the number of rows and what their truth is like.
        ``own_held_out_rows`` says whether these are rows that the run held out, ``changed_since_run`` which of the
        run's data is not as it was; ``revision`` is the hub's commit, where the model came from there.
    """
    console = console or Console(quiet=True)
    directory = RunDirectory(archives.unpacked(target))
    if section is None:
        rows = _own(target, directory, split)
        model = _load(target, directory.path, None, base_model)
    else:
        fresh: type[Task] = TASKS[task or task_named(target)]
        model, rows = _given(target, directory.path, data.found(section), split, base_model, fresh)
    asked, examples = model.task, rows.examples
    for line in _said_of(rows, holds_train(directory, examples)):
        console.say(line)
    examples, evaluation = model.measure(examples, console)
    found = _measured(asked, examples, evaluation)
    _show(target, examples.name if section is None else Path(examples.origin).name, examples, asked, found, console)
    origin = {"data": examples.origin, "split": examples.name}
    return {**_called(target), **origin, "own_held_out_rows": rows.own, "changed_since_run": rows.changed, **found}


def _called(target: str) -> dict[str, str]:
    _, commit = models.placed(target)
    return {"model": target, **({"revision": commit} if commit else {})}


@dataclass(frozen=True)
class _Rows:
    """What is measured on.

    Attributes:
        own: whether these are rows that the run held out.
        changed: which of the run's data is not as it was.
    """

    examples: Examples
    own: bool
    changed: list[str]


def _show(target: str, called: str, examples: Examples, task: Task, found: Mapping[str, Any], console: Console) -> None:
    kind = task.answer
    console.show(
        tables.described(kind.described, {called: kind.describe(examples.truth)}, {called: examples}),
        tables.measured(target, found, kind),
        *map(FittedTable.of, kind.briefs(found)),
    )


def _split(section: DataSection, name: str | None) -> Split:
    """The split of the data that is measured on."""
    splits = data.load(section)
    name = name or next(one for one in (SELECTION_SPLIT, "test", "train") if one in splits)
    if name not in splits:
        raise ConfigError(f"--split {name}: the data has {', '.join(splits)}")
    return splits[name]


def _measured(task: Task, examples: Examples, evaluation: Evaluation) -> dict[str, Any]:
    """All figures of some rows."""
    kind, asked = task.answer, (evaluation.answers, examples.truth)
    return {
        "n": len(examples),
        kind.described.key: kind.describe(examples.truth),
        **evaluation.metrics,
        **interval(kind, *asked),
        **kind.details(*asked),
    }


@dataclass(frozen=True)
class _Model:
    """Something that can be measured, and how: which also says which rows, where something can be left out."""

    task: Task
    measure: Callable[[Examples, Console], tuple[Examples, Evaluation]]


def _load(target: str, folder: Path, fresh: Callable[[], Task] | None, base_model: str | None) -> _Model:
    if is_export(folder):
        return _export(folder, base_model)
    from featherweight.inference import loading
    from featherweight.inference.torch_backend import Reference

    loaded = loading.load(target, fresh, base_model)

    def measure(examples: Examples, console: Console) -> tuple[Examples, Evaluation]:
        from featherweight.engine import Watch, hardware
        from featherweight.engine.running.evaluate import evaluate as run_over

        model = hardware.accelerator_for(TrainingSection()).prepare_model(loaded.model, evaluation_mode=True)
        left, encoding = lengths.encoded(loaded.task, examples, loaded.tokenizer, loaded.cutting)
        return left, run_over(
            model,
            loaded.task,
            Reference(loaded).beside(encoding),
            execution=loading.execution_of(loaded),
            batch_size=_BATCH_SIZE,
            watch=Watch("evaluating", console.observe),
        )

    return _Model(loaded.task, measure)


def _export(folder: Path, base_model: str | None) -> _Model:
    """What answers through the predictor alone, such as ONNX."""
    predictor = load_predictor(folder, base_model=base_model)
    kind = predictor.kind

    def measure(examples: Examples, console: Console) -> tuple[Examples, Evaluation]:
        console.begin("evaluating")
        started = time.perf_counter()
        found: list[Answers] = []
        loss, items, done = 0.0, 0, 0
        for questions, outputs in predictor.blocks(examples.questions()):
            rows = np.arange(done, done + len(questions))
            of_block, counted = kind.losses(outputs, examples.truth[rows])
            loss, items, done = loss + of_block, items + counted, done + len(rows)
            found.append(kind.of_outputs(outputs, {}))
        seconds = time.perf_counter() - started
        return examples, evaluation_of(kind, joined(found), examples.truth, loss / items, seconds, _BATCH_SIZE)

    return _Model(predictor.task, measure)


def _given(
    target: str,
    folder: Path,
    section: DataSection,
    split: str | None,
    base_model: str | None,
    fresh: type[Task],
) -> tuple[_Model, _Rows]:
    """The model, and the rows as it answers them: ``labels`` of the section name its outputs."""
    read = _split(section, split)
    model = _load(target, folder, lambda: fresh.of_split(read, section), base_model)
    task = model.task.named_by(section, target)
    return replace(model, task=task), _Rows(task.read(read, section), own=False, changed=[])


def _own(target: str, directory: RunDirectory, split: str | None) -> _Rows:
    """The run's own rows, those that its figures are of unless another split is asked for."""
    recipe = recipes.load(directory.recipe) if directory.recipe.is_file() else None
    if recipe is None:
        near = did_you_mean(target, beside(Path(target)))
        raise ConfigError(f"{target} is no run{near}, so say what to measure it on: --data FILE")
    split = split or directory.read_metrics()["evaluated_split"]
    found = read_own_data(directory, recipe)
    if split not in found.examples:
        raise ConfigError(f"--split {split}: the run has {', '.join(found.examples)}")
    examples = found.examples[split]
    if split in found.kept:
        return _Rows(examples, split != "train", found.changed)
    return _Rows(replace(examples, origin=examples.origin.removesuffix(HELD_OUT)), False, found.changed)


def _said_of(read: _Rows, holds_rows_of_train: bool) -> list[str]:
    examples, own, changed = read.examples, read.own, read.changed
    lines = [f"{examples.name}: {examples.reading}"] if examples.reading else []
    if changed:
        rows = (
            f"the {examples.name} rows are those that it held out" if own else
            "these are not rows that it is known to have held out, and it may have been trained on some of them"
        )  # fmt: skip
        lines.append(f"{', '.join(changed)} changed since the run; {rows}")
    elif holds_rows_of_train and not own:
        lines.append(f"{examples.origin} is what the run was trained on, so these figures are not of held-out rows")
    return lines
