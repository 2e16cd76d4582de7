"""The main path. Read :func:`run` first: it is the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featherweight import recipe as recipes
from featherweight.answers import headline_of, interval, kind_of, standard_error
from featherweight.evidence import selection, training_checks
from featherweight.evidence.assess import assess
from featherweight.evidence.data import checks
from featherweight.evidence.exhibits import Case, Held
from featherweight.evidence.verdict import headline
from featherweight.process.signals import Stop, stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.answers import Evaluation
from featherweight.records.runs import RunRecord
from featherweight.records.training import TrainingResult
from featherweight.registry import EXHIBITS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.report.fitted import FittedTable
from featherweight.runs.directory import FACTS, SCHEMA_VERSION, RunDirectory
from featherweight.storage.whole import held
from featherweight.workflow import gate
from featherweight.workflow.beginning import begin_at_probe
from featherweight.workflow.laying import lay
from featherweight.workflow.preparing import (
    SELECTION_SPLIT,
    Prepared,
    adapt,
    count_parameters,
    measure,
    prepare,
    shares,
    trainer_for,
)
from featherweight.workflow.resuming import explained, find_checkpoint, record, reliability
from featherweight.workflow.rungs import measure_baselines, measure_model


def run(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    resume: bool | str = False,
    force: bool = False,
    console: Console | None = None,
    continue_with: str | None = None,
    progress: bool = True,
) -> RunRecord:
    """Measure the base model, tune it, measure again, compare, publish.

    Args:
        recipe: what to do, from :func:`featherweight.recipe.load`.
        output_dir: the run's folder; ``runs/<recipe's name>`` if None.
        resume: True continues from the newest checkpoint that is whole; a path names one checkpoint.
        force: begin even where the disk seems too small.
        console: where tables and progress go; bars by tqdm alone if None.
        continue_with: the command that a stopped run tells the user to give.
        progress: False for no bars, where there is no console.

    Raises:
        FeatherweightError: one of its kinds, each with its exit code.
    """
    from featherweight.engine.cost import Meter

    console = console or Console.in_python(progress)
    directory = RunDirectory(output_dir or Path("runs") / recipe.name)
    with (
        stop_on_signals(console.say) as stop,
        held(directory.path),
        directory.taken(bool(resume)),
        explained(directory, continue_with),
    ):
        with stop.at_once("preparing"):
            prepared = prepare(recipe, console)
        directory.create(prepared.identity(), prepared.environment())
        if directory.is_complete:
            console.say(f"{directory.path}: complete already{directory.going_on()}")
            return _finish(directory, console)
        base = _measure_base(prepared, directory, console, stop)
        with Meter() as meter:
            model, result = _tune(prepared, directory, base, resume, force, console, stop)
        tuned = measure_model(prepared, directory, model, "tuned", console, stop)
        with stop.at_once("publishing"):
            console.begin("publishing")
            _publish(prepared, directory, model, base, tuned, result, meter.cost() | {"energy": meter.energy()})
    return _finish(directory, console)


def load_run(path: str | Path) -> RunRecord:
    """A finished run, from its folder. Raises ModelError where it is not complete."""
    return RunRecord(str(path), RunDirectory(path).read_metrics())


def _measure_base(prepared: Prepared, directory: RunDirectory, console: Console, stop: Stop) -> dict[str, Any]:
    """The data's checks, the cheap baselines and the model as it is; a resumed run finds what it measured before."""
    for event in directory.read_history():
        if event["event"] == "base":
            return dict(event)
    from featherweight.engine.cost import Meter

    with stop.at_once("checking the data"):
        console.begin("checking the data")
        checked = checks.check(
            prepared.checked, prepared.prints, prepared.recipe.training.seed, prepared.recipe.data.group
        )
        checked["warnings"] += checks.truncation_warnings(_truncation(prepared))
        console.show(*(f"Take care: {line}" for line in checked["warnings"]))
    with stop.at_once("measuring the baselines"):
        baselines, left_out = measure_baselines(prepared, directory, console, stop)
    started = prepared.model if prepared.start is None else adapt(prepared).model
    with Meter() as meter:
        evaluations = measure_model(prepared, directory, started, "base", console, stop)
    measured = {name: _with_interval(prepared, name, one) for name, one in evaluations.items()}
    measured[prepared.evaluated_split]["cost"] = meter.cost()
    event = {"event": "base", "baselines": baselines, "metrics": measured, "data_checks": checked}
    event |= {"baselines_left_out": left_out} if left_out else {}
    directory.append_history(event)
    return event


def _tune(
    prepared: Prepared,
    directory: RunDirectory,
    base: Mapping[str, Any],
    resume: bool | str,
    force: bool,
    console: Console,
    stop: Stop,
) -> tuple[Any, TrainingResult]:
    from featherweight.engine import TRANSIENT
    from featherweight.engine.training.checkpoints import Checkpoints, size_of

    training = prepared.recipe.training
    checkpoints = Checkpoints(directory.checkpoints, training.save_total_limit, prepared.identity())
    start = find_checkpoint(checkpoints, directory, resume, console)
    if start is None:
        begin_at_probe(prepared, console, stop)
    adapted = adapt(prepared)
    _record_choices(prepared, directory, adapted.chosen)
    trainable, total = count_parameters(adapted.model)
    console.show(tables.parameters(trainable, total))

    if training.trunk_cache != "off":
        prepared.trunk = prepared.execution.cache_trunk(
            adapted.model, prepared.encodings, prepared.source.fingerprint, training.trunk_cache, console.observe, stop
        )
        console.say("frozen trunk: {frozen_blocks} blocks run once, without dropout".format(**prepared.trunk))

    directory.forget_history_after(start.step if start else 0)
    if resume:
        record(directory, start.step if start else 0, prepared.environment(), console)
    if not force:
        checkpoints.require_room(size_of(adapted.model), 4 * trainable)
    if start is None:
        with stop.at_once("trying what would be published"), directory.trial_folder() as folder:
            _write_artefact(prepared, directory, adapted.model, prepared.task.answer.unfitted, folder)
            gate.require_gradients(adapted.model, prepared.execution, prepared.head)
            gate.require_readable(folder, adapted.model, prepared.without_weights, prepared.head)
    if training.time_limit is not None:
        with stop.at_once("rehearsing a few steps"):
            lay(prepared, directory, adapted.model, base, console)
            _record_choices(prepared, directory, adapted.chosen)
    before = gate.fingerprints(adapted.model)

    def observe(event: dict[str, Any]) -> None:
        if event["event"] not in TRANSIENT:
            directory.append_history(event)
        console.observe(event)

    def evaluate_now() -> Evaluation:
        return measure(prepared, adapted.model, "evaluating", console, stop)

    trainer = trainer_for(prepared, adapted.model, evaluate_now, checkpoints, observe, stop)
    result = trainer.fit(start)
    gate.require_effect(adapted.model, before, prepared.head)
    console.say(_cost_of_saves(result.metrics))
    return adapted.model, result


def _publish(
    prepared: Prepared,
    directory: RunDirectory,
    model: Any,
    base: Mapping[str, Any],
    tuned: Mapping[str, Evaluation],
    result: TrainingResult,
    cost: Mapping[str, Any],
) -> None:
    """Write the artefact with its card, the report, and last of all ``metrics.json``."""
    from featherweight.report.model_card import model_card
    from featherweight.report.page import one_run

    split = prepared.evaluated_split
    kind, truth = prepared.task.answer, prepared.examples[split].labels
    gate.require_other_answers(directory.read_predictions("base", split).answers, tuned[split].answers)
    metrics = _outcome(prepared, base, tuned, result, cost, count_parameters(model))
    case = _case(prepared, directory, tuned)
    metrics |= _evidence(case, prepared, directory, base)
    fitted = {key: case.fitted["tuned"][key] for key in kind.unfitted}
    guessing = kind.uninformed_loss(prepared.examples["train"].labels)
    metrics["training_warnings"] = kind.cautions(split, tuned[split].answers, truth) + training_checks.warnings(
        [one.metrics["eval_loss"] for one in result.epochs],
        result.steps,
        prepared.settings.model_dump(),
        trained=(result.epochs[-1].training_loss, guessing) if result.epochs else None,
        ahead=[name for name, pair in metrics["rungs"].items() if pair["verdict"] == "worse"],
        rate_is_given="training.learning_rate" not in prepared.reasons,
    )
    metrics["headline"] = headline(metrics)

    def fill(folder: Path) -> None:
        _write_artefact(prepared, directory, model, fitted, folder)
        card = model_card(
            prepared.recipe, prepared.source, list(prepared.task.labels), metrics, prepared.method.artefact
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        half = prepared.trunk is not None and prepared.trunk["dtype"] == "fp16"
        rounded = half or prepared.accelerator.mixed_precision != "no"
        passed = gate.require_same_answers(folder, prepared.encodings[split], tuned[split].answers, rounded)
        metrics["reliability"] = reliability(directory, result.metrics, passed)

    directory.publish_folder(prepared.method.artefact, fill)
    directory.write_text(directory.report, one_run(directory, metrics))
    directory.write_json(directory.metrics, metrics)


def _case(prepared: Prepared, directory: RunDirectory, tuned: Mapping[str, Evaluation]) -> Case:
    """What the evidence is found in: the evaluated split, answered by both models."""
    split, data = prepared.evaluated_split, prepared.recipe.data
    held = None
    if split != SELECTION_SPLIT:
        before = directory.read_predictions("base", SELECTION_SPLIT)
        held = Held(before.answers, tuned[SELECTION_SPLIT].answers, before.truth)
    return Case(
        prepared.task.answer,
        prepared.examples[split],
        directory.read_predictions("base", split).answers,
        tuned[split].answers,
        prepared.recipe.training.seed,
        fitting=held,
        slice_columns=data.slices,
        keywords=data.keywords,
        group_column=data.group,
    )


def _evidence(case: Case, prepared: Prepared, directory: RunDirectory, base: Mapping[str, Any]) -> dict[str, Any]:
    """What the predictions on the evaluated split prove, from the run's own files."""
    split, checked = prepared.evaluated_split, base["data_checks"]
    rivals = {name: directory.read_predictions(name, split).answers for name in base["baselines"]}
    known = {"without_twins": np.isin(case.examples.ids, checked["twins"][split]["ids"])}
    if prepared.recipe.data.group:
        known["without_shared_groups"] = np.isin(case.examples.ids, checked["shared_groups"][split]["ids"])
    return assess(case, rivals, known)


def _with_interval(prepared: Prepared, split: str, one: Evaluation) -> dict[str, Any]:
    """An evaluation's metrics with the headline's interval."""
    return {**one.metrics, **interval(prepared.task.answer, one.answers, prepared.examples[split].labels)}


def _outcome(
    prepared: Prepared,
    base: Mapping[str, Any],
    tuned: Mapping[str, Evaluation],
    result: TrainingResult,
    cost: Mapping[str, Any],
    parameters: tuple[int, int],
) -> dict[str, Any]:
    """What was measured, as ``metrics.json`` has it."""
    from featherweight.engine.hardware import peak_memory_bytes

    split = prepared.evaluated_split
    measured = {name: _with_interval(prepared, name, one) for name, one in tuned.items()}
    chose = prepared.task.answer, tuned[SELECTION_SPLIT].answers, prepared.examples[SELECTION_SPLIT].labels
    candidates = len(result.epochs) if prepared.recipe.training.load_best_model_at_end else 1
    trainable, total = parameters
    return {
        "schema_version": SCHEMA_VERSION,
        "task": prepared.recipe.task,
        "answer": prepared.task.answer.name,
        "label_shares": shares(prepared.task, prepared.examples),
        "rows": {name: len(one) for name, one in prepared.examples.items()},
        "dropped_twin_rows": prepared.dropped_twins,
        "dropped_empty_rows": {name: one.dropped for name, one in prepared.examples.items()},
        "skipped_bad_rows": {name: one.skipped for name, one in prepared.examples.items()},
        "truncated_rows": {name: one.cut for name, one in prepared.encodings.items()},
        "truncation": _truncation(prepared),
        "evaluated_split": split,
        "selection": selection.describe(
            SELECTION_SPLIT,
            split,
            candidates,
            base["metrics"][SELECTION_SPLIT],
            measured[SELECTION_SPLIT],
            len(prepared.examples[SELECTION_SPLIT]),
            standard_error(*chose),
        ),
        "baselines": base["baselines"],
        "baselines_left_out": base.get("baselines_left_out", {}),
        "base": base["metrics"][split],
        "tuned": measured[split],
        "epochs": [
            {"epoch": record.epoch, "training_loss": record.training_loss, **_outcomes(record.metrics)}
            for record in result.epochs
        ],
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


def _write_artefact(
    prepared: Prepared, directory: RunDirectory, model: Any, calibration: Mapping[str, Any], folder: Path
) -> None:
    """Fill ``folder`` with what is shipped, but for the card: weights, tokenizer, the facts for inference."""
    from featherweight.inference.loading import facts

    task, source, tokenizer = prepared.task, prepared.source, prepared.tokenizer
    prepared.method.save(model, folder, source.name, source.revision)
    tokenizer.save_pretrained(str(folder))
    text = prepared.recipe.data.text
    together = prepared.execution.equal_lengths
    known = facts(task, source, prepared.max_length, tokenizer.pad_token_id, calibration, text, together)
    directory.write_json(folder / FACTS, known)


def _finish(directory: RunDirectory, console: Console) -> RunRecord:
    """Show a complete run's results, from its files alone."""
    metrics = directory.read_metrics()
    first = headline_of(metrics)
    briefs = [brief for name in kind_of(metrics).exhibits for brief in EXHIBITS[name]().brief(metrics)]
    console.show(
        tables.epochs(metrics["epochs"], first),
        tables.evaluations({"base model": metrics["base"], "tuned model": metrics["tuned"]}, first),
        tables.ladder(metrics),
        tables.selection(metrics),
        *map(FittedTable.of, briefs),
        *(f"Take care: {line}" for line in tables.cautions(metrics)),
        f"\n{tables.verdict(metrics)}",
        tables.against_baselines(metrics),
        f"\nEverything is in {directory.path}. Try it:",
        tables.command(tables.predict_command(directory.path, metrics)),
    )
    return RunRecord(str(directory.path), metrics)


def _record_choices(prepared: Prepared, directory: RunDirectory, chosen: Mapping[str, tuple[Any, str]]) -> None:
    """Save the recipe as resolved, with the method's own choices and every reason."""
    reasons = prepared.reasons | {f"method.{key}": reason for key, (_, reason) in chosen.items()}
    method = prepared.recipe.method.model_copy(update={key: value for key, (value, _) in chosen.items()})
    training = prepared.settings
    resolved = prepared.recipe.model_copy(update={"method": method, "training": training})
    directory.write_text(directory.recipe, recipes.dump(resolved, reasons, directory.path))


def _cost_of_saves(resources: Mapping[str, float]) -> str:
    seconds, runtime = resources["save_seconds"], resources["train_runtime"]
    return (
        f"{resources['saves']:.0f} checkpoints saved in {seconds:.2f} s, {seconds / runtime:.1%} of the training time"
    )


def _truncation(prepared: Prepared) -> dict[str, dict[str, float]]:
    """For each split the rows that were cut at ``max_length`` and the share of tokens that went."""
    return {
        name: {
            "rows": one.cut,
            "lost_tokens": one.lost,
            "share": one.lost / (one.lost + int(one.tokens.offsets[-1])),
        }
        for name, one in prepared.encodings.items()
    }


def _outcomes(metrics: Mapping[str, float]) -> dict[str, float]:
    timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return {key: value for key, value in metrics.items() if key not in timings}
