"""What a run measured, put together as ``metrics.json`` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from featherweight.answers import interval, standard_error
from featherweight.evidence import selection
from featherweight.records.answers import Evaluation
from featherweight.records.outcome import (
    EpochFigures,
    Measured,
    ModelFigures,
    ReadRows,
    Selection,
    Truncation,
    TuningCost,
)
from featherweight.records.training import EpochRecord, TrainingResult
from featherweight.runs.directory import SCHEMA_VERSION
from featherweight.tasks.reading import continuing, replying
from featherweight.workflow.preparing import SELECTION_SPLIT, Prepared, count_parameters

TIMINGS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def measured(
    prepared: Prepared,
    base: Mapping[str, Any],
    model: Any,
    tuned: Mapping[str, Evaluation],
    result: TrainingResult,
    cost: TuningCost,
) -> Measured:
    """All that was measured, before anything is compared.

    Args:
        base: what the run's history has of the base model and the baselines.
        model: as tuned.
        tuned: its evaluation on each measured split.
    """
    from featherweight.engine.hardware import peak_memory_bytes

    split = prepared.evaluated_split
    trainable, total = count_parameters(model)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": prepared.recipe.task,
        "answer": prepared.task.answer.name,
        **_read_rows(prepared),
        "evaluated_split": split,
        "selection": _selection(prepared, base, tuned[SELECTION_SPLIT], len(result.epochs)),
        "baselines": base["baselines"],
        "baselines_left_out": base.get("baselines_left_out", {}),
        "base": base["metrics"][split],
        "tuned": with_interval(prepared, split, tuned[split]),
        "epochs": [_epoch(record) for record in result.epochs],
        "best_step": result.best_step,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "data_checks": base["data_checks"],
        "resources": {**result.metrics, "peak_memory_bytes": peak_memory_bytes(), "tuning": cost},
        "trunk_cache": prepared.trunk,
        "batch_dependence": prepared.execution.describe()["batch_dependence"],
        "pad_token_id": prepared.tokenizer.pad_token_id,
        "base_model_fingerprint": prepared.source.fingerprint,
        "started_from": prepared.start.describe() if prepared.start else None,
    }


def with_interval(prepared: Prepared, split: str, one: Evaluation) -> ModelFigures:
    """An evaluation's metrics with the headline's interval, whose names are the kind of answer's to give."""
    found = {**one.metrics, **interval(prepared.task.answer, one.answers, prepared.examples[split].truth)}
    return cast(ModelFigures, found)


def truncation(prepared: Prepared) -> dict[str, Truncation]:
    """What was cut off each split at ``max_length``."""
    return {
        name: {
            "rows": one.cut,
            "lost_tokens": one.lost,
            "share": one.lost / (one.lost + int(one.lengths.sum())),
        }
        for name, one in prepared.encodings.items()
    }


def token_cautions(prepared: Prepared) -> list[str]:
    """What is likely wrong with how texts that are continued become tokens."""
    if not prepared.task.scores_tokens:
        return []
    train, found = prepared.encodings["train"], list[str]()
    if train.replies is not None:
        found = replying.cautions(train, prepared.model.generation_config)
    return continuing.cautions(train.flat, prepared.tokenizer) + found


def _read_rows(prepared: Prepared) -> ReadRows:
    return {
        "rows": {name: len(one) for name, one in prepared.examples.items()},
        "dropped_twin_rows": prepared.dropped_twins,
        "dropped_suspect_rows": len(prepared.suspects.found) if prepared.suspects else 0,
        "dropped_empty_rows": {name: one.dropped for name, one in prepared.examples.items()},
        "skipped_bad_rows": {name: one.skipped for name, one in prepared.examples.items()},
        "truncated_rows": {name: one.cut for name, one in prepared.encodings.items()},
        "truncation": truncation(prepared),
    }


def _selection(prepared: Prepared, base: Mapping[str, Any], tuned: Evaluation, evaluations: int) -> Selection:
    """How the checkpoint was chosen.

    Args:
        tuned: on the split that chose it.
        evaluations: made during training.
    """
    examples = prepared.examples[SELECTION_SPLIT]
    return selection.describe(
        SELECTION_SPLIT,
        prepared.evaluated_split,
        evaluations if prepared.recipe.training.load_best_model_at_end else 1,
        base["metrics"][SELECTION_SPLIT],
        with_interval(prepared, SELECTION_SPLIT, tuned),
        len(examples),
        standard_error(prepared.task.answer, tuned.answers, examples.truth),
    )


def _epoch(record: EpochRecord) -> EpochFigures:
    """An evaluation during training, without its timings."""
    figures = {key: value for key, value in record.metrics.items() if key not in TIMINGS}
    return cast(EpochFigures, {"epoch": record.epoch, "training_loss": record.training_loss, **figures})
