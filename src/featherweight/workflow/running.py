"""The main path. Read :func:`run` first: it is the whole of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight import recipe as recipes
from featherweight.errors import Interrupted
from featherweight.evidence import data_checks
from featherweight.evidence.assess import assess, with_interval
from featherweight.evidence.verdict import headline
from featherweight.recipe import Recipe
from featherweight.records import Evaluation, RunRecord, TrainingResult
from featherweight.registry import BASELINES, METRICS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs import FACTS, SCHEMA_VERSION, RunDirectory
from featherweight.signals import stop_on_signals
from featherweight.workflow.preparing import (
    EVALUATED_SPLIT,
    Prepared,
    count_parameters,
    measure,
    prepare,
    shares,
    trainer_for,
)

if TYPE_CHECKING:
    from featherweight.engine.checkpoints import Checkpoint

_EXAMPLES_SHOWN = 3


def run(
    recipe: Recipe, output_dir: str | Path | None = None, *, resume: bool | str = False, console: Console | None = None
) -> RunRecord:
    """Measure the base model, tune it, measure again, compare, publish.

    Args:
        recipe: what to do, from :func:`featherweight.recipe.load`.
        output_dir: the run's folder; ``runs/<recipe's name>`` if None.
        resume: True continues from the newest checkpoint that is whole; a path names one checkpoint.
        console: where tables and progress go; nowhere if None.

    Raises:
        FeatherweightError: one of its kinds, each with its exit code.
    """
    console = console or Console(quiet=True)
    directory = RunDirectory(output_dir or Path("runs") / recipe.name)
    directory.refuse_occupied(bool(resume))
    with stop_on_signals(console.say) as stop:
        prepared = prepare(recipe, console)
        directory.create(prepared.identity(), prepared.environment())
        if directory.is_complete:
            console.say(f"{directory.path}: complete already")
            return _finish(directory, console)
        try:
            base = _measure_base(prepared, directory, console, stop)
            model, result = _tune(prepared, directory, resume, console, stop)
            tuned = measure(prepared, model, "evaluating the tuned model", console, stop)
        except Interrupted as interrupted:
            raise Interrupted(f"{interrupted}; continue with: {_resume_command(directory)}") from None
        _publish(prepared, directory, model, base, tuned, result)
    return _finish(directory, console)


def load_run(path: str | Path) -> RunRecord:
    """A finished run, from its folder. Raises ModelError where it is not complete."""
    return RunRecord(str(path), RunDirectory(path).read_metrics())


def _measure_base(
    prepared: Prepared, directory: RunDirectory, console: Console, stop: Callable[[], bool]
) -> dict[str, Any]:
    """The data's checks, the cheap baselines and the model as it is; a resumed run finds what it measured before."""
    for event in directory.read_history():
        if event["event"] == "base":
            return dict(event)
    validation = prepared.examples[EVALUATED_SPLIT]
    console.say("checking the data")
    checks = data_checks.check(prepared.checked, prepared.prints, prepared.recipe.training.seed)
    checks["warnings"] += data_checks.truncation_warnings(_truncation(prepared))
    console.show(*(f"Take care: {line}" for line in checks["warnings"]))
    baselines = {}
    for name in BASELINES:
        if stop():
            raise Interrupted("stopped while measuring the baselines")
        console.say(f"measuring the baseline {name}")
        started = time.perf_counter()
        probabilities = BASELINES[name]().predict(prepared.examples["train"], validation, len(prepared.task.labels))
        measured = {
            f"eval_{metric}": METRICS[metric](probabilities, validation.labels) for metric in prepared.task.metrics
        }
        baselines[name] = {**with_interval(measured, len(validation)), "runtime": time.perf_counter() - started}
        answers = Evaluation(measured, probabilities, validation.labels)
        directory.write_predictions(name, validation, answers, prepared.task.labels)
    evaluation = measure(prepared, prepared.model, "evaluating the base model", console, stop)
    directory.write_predictions("base", validation, evaluation, prepared.task.labels)
    measured = with_interval(evaluation.metrics, len(validation))
    event = {"event": "base", "baselines": baselines, "metrics": measured, "data_checks": checks}
    directory.append_history(event)
    return event


def _tune(
    prepared: Prepared, directory: RunDirectory, resume: bool | str, console: Console, stop: Callable[[], bool]
) -> tuple[Any, TrainingResult]:
    import transformers

    from featherweight.engine.checkpoints import Checkpoints

    training = prepared.recipe.training
    transformers.set_seed(training.seed)  # so that what was measured before has no say in what is drawn now
    adapted = prepared.method.apply(prepared.model, prepared.task.peft_task_type, prepared.head)
    prepared.execution.adopt(adapted.model)
    _record_choices(prepared, directory, adapted.chosen)
    trainable, total = count_parameters(adapted.model)
    console.show(tables.parameters(trainable, total))

    if training.trunk_cache != "off":
        prepared.trunk = prepared.execution.cache_trunk(
            adapted.model, prepared.encodings, prepared.source.fingerprint, training.trunk_cache, console.observe, stop
        )
        console.say("frozen trunk: {frozen_blocks} blocks run once, without dropout".format(**prepared.trunk))

    checkpoints = Checkpoints(directory.checkpoints, training.save_total_limit)
    start = _find_checkpoint(checkpoints, resume, console)
    directory.forget_history_after(start.step if start else 0)

    def observe(event: dict[str, Any]) -> None:
        if event["event"] != "evaluating":
            directory.append_history(event)
        console.observe(event)

    def evaluate_now() -> Evaluation:
        return measure(prepared, adapted.model, "evaluating", console, stop)

    trainer = trainer_for(prepared, adapted.model, evaluate_now, checkpoints, observe, stop)
    result = trainer.fit(start)
    return adapted.model, result


def _publish(
    prepared: Prepared,
    directory: RunDirectory,
    model: Any,
    base: Mapping[str, Any],
    tuned: Evaluation,
    result: TrainingResult,
) -> None:
    """Write predictions, the artefact with its card, the report, and last of all ``metrics.json``."""
    from featherweight.engine.hardware import peak_memory_bytes
    from featherweight.report.model_card import model_card
    from featherweight.report.page import one_run
    from featherweight.serving.loading import facts

    task, source, recipe = prepared.task, prepared.source, prepared.recipe
    validation = prepared.examples[EVALUATED_SPLIT]
    directory.write_predictions("tuned", validation, tuned, task.labels)
    saved = {name: directory.read_predictions(name, EVALUATED_SPLIT) for name in ("base", *base["baselines"])}
    evidence = assess(
        validation,
        task.labels,
        saved.pop("base").probabilities,
        tuned.probabilities,
        {name: one.probabilities for name, one in saved.items()},
        twins=np.isin(validation.ids, base["data_checks"]["twins"][EVALUATED_SPLIT]["ids"]),
        slice_columns=recipe.data.slices,
        group_column=recipe.data.group,
        seed=recipe.training.seed,
    )
    trainable, total = count_parameters(model)
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "task": recipe.task,
        "label_shares": shares(task, prepared.examples),
        "rows": {name: len(one) for name, one in prepared.examples.items()},
        "dropped_empty_rows": {name: one.dropped for name, one in prepared.examples.items()},
        "truncated_rows": {name: one.truncated for name, one in prepared.encodings.items()},
        "truncation": _truncation(prepared),
        "evaluated_split": EVALUATED_SPLIT,
        "baselines": base["baselines"],
        "base": base["metrics"],
        "tuned": with_interval(tuned.metrics, len(validation)),
        "epochs": [
            {"epoch": record.epoch, "training_loss": record.training_loss, **_outcomes(record.metrics)}
            for record in result.epochs
        ],
        "best_step": result.best_step,
        "trainable_parameters": trainable,
        "total_parameters": total,
        **evidence,
        "data_checks": base["data_checks"],
        "resources": {**result.metrics, "peak_memory_bytes": peak_memory_bytes()},
        "trunk_cache": prepared.trunk,
        "pad_token_id": prepared.tokenizer.pad_token_id,
        "base_model_fingerprint": source.fingerprint,
    }
    metrics["headline"] = headline(metrics)
    card = model_card(recipe, source, list(task.labels), metrics, prepared.method.artefact)

    known = facts(task, source, prepared.max_length, prepared.tokenizer.pad_token_id, metrics["calibration"]["tuned"])

    def fill(folder: Path) -> None:
        prepared.method.save(model, folder, source.name, source.revision)
        prepared.tokenizer.save_pretrained(str(folder))
        directory.write_json(folder / FACTS, known)
        (folder / "README.md").write_text(card, encoding="utf-8")

    directory.publish_folder(prepared.method.artefact, fill)
    directory.write_text(directory.report, one_run(directory, metrics))
    directory.write_json(directory.metrics, metrics)


def _finish(directory: RunDirectory, console: Console) -> RunRecord:
    """Show a complete run's results, from its files alone."""
    metrics = directory.read_metrics()
    shown = {kind: rows[:_EXAMPLES_SHOWN] for kind, rows in metrics["examples"].items()}
    console.show(
        tables.epochs(metrics["epochs"]),
        tables.evaluations({"base model": metrics["base"], "tuned model": metrics["tuned"]}),
        tables.ladder(metrics),
        *(tables.examples(f"Examples {kind} by tuning", shown[kind]) for kind in ("fixed", "broken") if shown[kind]),
        *(f"Take care: {line}" for line in metrics["data_checks"]["warnings"]),
        tables.verdict(metrics),
        tables.against_baselines(metrics),
        f"\nEverything is in {directory.path}. Try it:\n"
        f'  featherweight predict {directory.path} --text "A film I would gladly see again."',
    )
    return RunRecord(str(directory.path), metrics)


def _record_choices(prepared: Prepared, directory: RunDirectory, chosen: Mapping[str, tuple[Any, str]]) -> None:
    """Save the recipe as resolved, with the method's own choices and every reason."""
    reasons = prepared.reasons | {f"method.{key}": reason for key, (_, reason) in chosen.items()}
    method = prepared.recipe.method.model_copy(update={key: value for key, (value, _) in chosen.items()})
    resolved = prepared.recipe.model_copy(update={"method": method})
    directory.write_text(directory.recipe, recipes.dump(resolved, reasons, directory.path))


def _find_checkpoint(checkpoints: Any, resume: bool | str, console: Console) -> Checkpoint | None:
    from featherweight.engine.checkpoints import read

    if not resume:
        return None
    found: Checkpoint | None = read(Path(resume)) if isinstance(resume, str) else checkpoints.newest(console.say)
    console.say(f"continuing after step {found.step}" if found else "no checkpoint yet: starting from the beginning")
    return found


def _truncation(prepared: Prepared) -> dict[str, dict[str, float]]:
    """For each split the rows that were cut at ``max_length`` and the share of tokens that went."""
    return {
        name: {
            "rows": one.truncated,
            "lost_tokens": one.lost_tokens,
            "share": one.lost_tokens / (one.lost_tokens + int(one.offsets[-1])),
        }
        for name, one in prepared.encodings.items()
    }


def _outcomes(metrics: Mapping[str, float]) -> dict[str, float]:
    timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return {key: value for key, value in metrics.items() if key not in timings}


def _resume_command(directory: RunDirectory) -> str:
    return f"the same command with --resume (the run is in {directory.path})"
