"""What a run will take, before it is started."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.process.signals import stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.rows import Encoding
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.workflow.laying import steps_within
from featherweight.workflow.preparing import SELECTION_SPLIT, adapt, count_parameters, measure, prepare, trainer_for

if TYPE_CHECKING:
    from featherweight.engine.training.forecast import Forecast


def plan(recipe: Recipe, *, console: Console | None = None) -> dict[str, Any]:
    """What a run of the recipe will take on this machine: steps, time, memory, disk. Trains nothing that is kept.

    The model is loaded and a few real steps are made, so the figures are measured ones; ``seconds.doubt`` is how far
    single steps were from the fitted line.
    """
    from featherweight.engine.training.checkpoints import Checkpoints, disk_bytes, size_of
    from featherweight.engine.training.forecast import forecast

    console = console or Console(quiet=True)
    started = time.perf_counter()
    prepared = prepare(recipe, console)
    prepare_seconds = time.perf_counter() - started
    validation = prepared.encodings[SELECTION_SPLIT]
    started = time.perf_counter()
    with stop_on_signals(console.say) as stop:
        evaluated = measure(prepared, prepared.model, "rehearsing the evaluation", console, stop)
        evaluation_seconds = time.perf_counter() - started
        adapted = adapt(prepared, console)
        trainable, total = count_parameters(adapted.model)
        trainer = trainer_for(
            prepared, adapted.model, lambda: evaluated, Checkpoints(Path(), 1), lambda event: None, stop
        )
        console.begin("rehearsing a few steps")
        found = forecast(trainer)
    training = prepared.recipe.training
    if training.time_limit is not None:
        found = found.of(steps_within(training.time_limit, found, evaluation_seconds, trainer.evaluations_within))
    evaluations = 2 + trainer.evaluations_within(found.steps)  # the base model, every so often, the tuned model
    passes = evaluations + _other_passes(prepared.encodings, validation)
    result = {
        "trainable_parameters": trainable,
        "total_parameters": total,
        "rows": {name: len(one) for name, one in prepared.examples.items()},
        "validation_tokens": int(validation.tokens.offsets[-1]),
        "execution": prepared.execution.describe(),
        "steps": found.steps,
        "tokens": found.tokens,
        "padding_avoided": found.padding_avoided if prepared.execution.describe()["batches"] == "packed" else 0.0,
        "seconds": _seconds(prepare_seconds, found, passes * evaluation_seconds),
        "peak_memory_bytes": found.peak_memory_bytes,
        "disk_bytes": disk_bytes(size_of(adapted.model), training.save_total_limit) + 4 * trainable,
    }
    console.show(tables.plan(result))
    return result


def _seconds(preparing: float, found: Forecast, evaluations: float) -> dict[str, float]:
    return {
        "preparing": preparing,
        "training": found.train_seconds,
        "evaluations": evaluations,
        "total": preparing + found.train_seconds + evaluations,
        "doubt": found.spread,
    }


def _other_passes(encodings: Mapping[str, Encoding], validation: Encoding) -> float:
    """Passes over tokens of other splits, in passes over validation: the linear probe's features, or the reference, and
    test thrice."""
    from featherweight.evidence.baselines import MOST_PROBE_ROWS

    train = encodings["train"]
    most = 1.0 if train.compares else min(1.0, MOST_PROBE_ROWS / len(train))  # the reference is of all
    tokens = train.tokens.offsets[-1] * most + validation.tokens.offsets[-1]
    if "test" in encodings:
        tokens += 3 * encodings["test"].tokens.offsets[-1]
    return float(tokens / validation.tokens.offsets[-1])
