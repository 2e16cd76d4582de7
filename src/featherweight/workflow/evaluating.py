"""Measuring any model, adapter, export or run on any data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featherweight import recipe as recipes
from featherweight.answers import evaluation_of, interval
from featherweight.errors import ConfigError
from featherweight.inference.predictor import is_export, load_predictor
from featherweight.recipe import DataSection, Recipe, TrainingSection
from featherweight.records.answers import Evaluation
from featherweight.records.rows import Examples
from featherweight.registry import DEFAULT_TASK, TASKS, did_you_mean
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.sources import archives, data
from featherweight.storage.names import beside
from featherweight.tasks import Task
from featherweight.tasks.reading.labels import listed
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
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a run, an adapter, an export or any model, on a run's own held-out rows or on other data.

    Args:
        target: run folder, adapter folder, folder of an export, or a model as in a recipe.
        section: the data; a run's own if None. Its ``labels`` name the model's outputs in their order.
        split: which split to measure; validation, else test, else train.
        base_model: where an adapter's base model is on this machine; where the adapter says itself if None.

    Returns:
        ``eval_*`` metrics with Wilson's interval for the accuracy; ``labels``, each with ``precision``, ``recall``,
        ``f1`` and ``support``; the number of rows and the label shares. ``own_held_out_rows`` says whether these are
        rows that the run held out, ``changed_since_run`` which of the run's data is not as it was.
    """
    console = console or Console(quiet=True)
    directory = RunDirectory(archives.unpacked(target))
    recipe = recipes.load(directory.recipe) if directory.recipe.is_file() else None
    task_class: type[Task] = TASKS[recipe.task if recipe else DEFAULT_TASK]
    changed: list[str] = []
    own = False
    if section is None:
        examples, own, changed = _own(target, directory, recipe, split)
        model = _load(target, directory.path, None, base_model)
        names = model.labels
    else:
        splits = data.load(section)
        split = split or next(name for name in (SELECTION_SPLIT, "test", "train") if name in splits)
        if split not in splits:
            raise ConfigError(f"--split {split}: the data has {', '.join(splits)}")
        model = _load(target, directory.path, lambda: task_class.labels_of(splits[split], section), base_model)
        names = _names(target, model.labels, section.labels)
        examples = task_class.measure_only(splits[split], section, names)
    for line in _said_of(examples, own, changed, holds_train(directory, examples)):
        console.say(line)
    evaluation = model.measure(examples, console)
    task = task_class(names)
    asked = task.answer, evaluation.answers, examples.labels
    metrics = {**evaluation.metrics, **interval(*asked)}
    details = task.answer.details(evaluation.answers, examples.labels)
    shares = task.shares(examples)
    called = examples.name if section is None else Path(examples.origin).name
    console.show(
        tables.label_shares({called: shares}, {called: len(examples)}),
        tables.measured(target, metrics, task.answer),
        tables.by_label(details["labels"]),
    )
    return {
        "model": target,
        "data": examples.origin,
        "split": examples.name,
        "own_held_out_rows": own,
        "changed_since_run": changed,
        "n": len(examples),
        "label_shares": shares,
        **metrics,
        **details,
    }


@dataclass(frozen=True)
class _Model:
    """Something that can be measured: the names of its outputs, and how."""

    labels: Sequence[str]
    measure: Callable[[Examples, Console], Evaluation]


def _load(
    target: str, folder: Path, fresh_labels: Callable[[], Sequence[str]] | None, base_model: str | None
) -> _Model:
    if is_export(folder):
        return _export(folder, base_model)
    from featherweight.inference import loading

    loaded = loading.load(target, fresh_labels, base_model)

    def measure(examples: Examples, console: Console) -> Evaluation:
        from featherweight.engine import hardware
        from featherweight.engine.running.evaluate import evaluate as run_over

        model = hardware.accelerator_for(TrainingSection()).prepare_model(loaded.model, evaluation_mode=True)
        return run_over(
            model,
            loaded.task,
            loaded.task.encode(examples, loaded.tokenizer, loaded.max_length),
            execution=loading.execution_of(loaded),
            batch_size=_BATCH_SIZE,
            what="evaluating",
            observer=console.observe,
        )

    return _Model(loaded.task.labels, measure)


def _export(folder: Path, base_model: str | None) -> _Model:
    """What answers through the predictor alone, such as ONNX."""
    predictor = load_predictor(folder, base_model=base_model)

    def measure(examples: Examples, console: Console) -> Evaluation:
        console.begin("evaluating")
        started = time.perf_counter()
        answers = predictor.answers(examples.all_texts())
        seconds = time.perf_counter() - started
        loss = predictor.kind.loss(answers, examples.labels)
        return evaluation_of(predictor.kind, answers, examples.labels, loss, seconds, _BATCH_SIZE)

    return _Model(predictor.kind.facts()["labels"], measure)


def _own(
    target: str, directory: RunDirectory, recipe: Recipe | None, split: str | None
) -> tuple[Examples, bool, list[str]]:
    """The run's own rows, those that its figures are of unless another split is asked for.

    Besides whether these are the rows that it held out, and what of its data changed since.
    """
    if recipe is None:
        near = did_you_mean(target, beside(Path(target)))
        raise ConfigError(f"{target} is no run{near}, so say what to measure it on: --data FILE")
    split = split or directory.read_metrics()["evaluated_split"]
    found = read_own_data(directory, recipe)
    if split not in found.examples:
        raise ConfigError(f"--split {split}: the run has {', '.join(found.examples)}")
    examples = found.examples[split]
    if split in found.kept:
        return examples, split != "train", found.changed
    return replace(examples, origin=examples.origin.removesuffix(HELD_OUT)), False, found.changed


def _names(target: str, outputs: Sequence[str], configured: Sequence[str] | None) -> tuple[str, ...]:
    """What the model's outputs are called in the data: ``data.labels``, by name where these are the model's own names.

    Raises ConfigError where they are neither the model's names nor as many new ones.
    """
    if configured is None:
        return tuple(outputs)
    spelt = {name.casefold(): name for name in configured}
    own = [name.casefold() for name in outputs]
    if sorted(spelt) == sorted(own):
        return tuple(spelt[name] for name in own)
    if len(configured) != len(outputs) or set(spelt) & set(own):
        raise ConfigError(
            f"data.labels: {target} answers {listed(list(map(repr, outputs)))}; give these names, or {len(outputs)} "
            "wholly other ones in their order"
        )
    return tuple(configured)


def _said_of(examples: Examples, own: bool, changed: Sequence[str], holds_rows_of_train: bool) -> list[str]:
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
