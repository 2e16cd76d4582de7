"""Measuring any model, adapter or run on any data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featherweight import recipe as recipes
from featherweight.errors import ConfigError
from featherweight.evidence.assess import with_interval
from featherweight.names import beside
from featherweight.recipe import DataSection, TrainingSection
from featherweight.registry import TASKS, did_you_mean
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs import RunDirectory
from featherweight.sources import archives, data
from featherweight.workflow.preparing import SELECTION_SPLIT


def evaluate(
    target: str,
    section: DataSection | None = None,
    *,
    split: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a run, an adapter or any model, on a run's own held-out rows or on other data.

    Args:
        target: run folder, adapter folder, or a model as in a recipe.
        section: the data; a run's own if None.
        split: which split to measure; validation, else test, else train.

    Returns:
        ``eval_*`` metrics, the number of rows and the label shares.
    """
    from featherweight.engine import hardware
    from featherweight.engine.evaluate import evaluate as measure
    from featherweight.serving import loading

    console = console or Console(quiet=True)
    directory = RunDirectory(archives.unpacked(target))
    recipe = recipes.load(directory.recipe) if directory.recipe.is_file() else None
    if section is None and recipe is None:
        near = did_you_mean(target, beside(Path(target)))
        raise ConfigError(f"{target} is no run{near}, so say what to measure it on: --data FILE")
    seed = recipe.training.seed if recipe else TrainingSection().seed
    task_class = TASKS[recipe.task if recipe else "sequence-classification"]
    if section is None:
        assert recipe is not None
        evaluated = directory.read_metrics()["evaluated_split"]
        _, prepared = task_class.prepare(data.load(recipe.data), recipe.data, seed)
        split = split or evaluated
        if split not in prepared:
            raise ConfigError(f"--split {split}: the run has {', '.join(prepared)}")
        loaded = loading.load(target)
        examples = prepared[split]
    else:
        splits = data.load(section)
        split = split or next(name for name in (SELECTION_SPLIT, "test", "train") if name in splits)
        if split not in splits:
            raise ConfigError(f"--split {split}: the data has {', '.join(splits)}")
        loaded = loading.load(target, lambda: task_class.labels_of(splits[split], section))
        examples = task_class.measure_only(splits[split], section, loaded.task.labels)
    accelerator = hardware.accelerator_for(TrainingSection())
    model = accelerator.prepare_model(loaded.model, evaluation_mode=True)
    evaluation = measure(
        model,
        loaded.task,
        loaded.task.encode(examples, loaded.tokenizer, loaded.max_length),
        execution=loading.execution_of(loaded),
        batch_size=TrainingSection().per_device_eval_batch_size,
        what="evaluating",
        observer=console.observe,
    )
    metrics = with_interval(evaluation.metrics, len(examples))
    console.show(
        tables.label_shares({split: loaded.task.shares(examples)}, {split: len(examples)}),
        tables.evaluations({target: metrics}),
    )
    return {
        "model": target,
        "data": examples.origin,
        "split": split,
        "n": len(examples),
        "label_shares": loaded.task.shares(examples),
        **metrics,
    }
