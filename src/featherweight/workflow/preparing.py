"""Everything that a run needs, made ready: data, model, tokens, and every choice that the recipe left open."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight import recipe as recipes
from featherweight.errors import ConfigError
from featherweight.evidence.data import checks
from featherweight.evidence.data.checks import LabelledTexts
from featherweight.evidence.data.duplicates import Fingerprints
from featherweight.methods import Adapted
from featherweight.recipe import Recipe, TrainingSection
from featherweight.records.answers import Evaluation
from featherweight.records.rows import Encoding, Examples
from featherweight.registry import METHODS, TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import package_versions
from featherweight.sources import data, models
from featherweight.sources.models import ModelSource
from featherweight.sources.trial_texts import Frame
from featherweight.storage import cache
from featherweight.tasks import Task
from featherweight.workflow import defaults
from featherweight.workflow.starting import Start

if TYPE_CHECKING:
    from featherweight.engine.running.execution import Execution
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.train import Trainer

_ROWS_LOOKED_AT = 32
_USUAL_WIDTH = 768  # of a base model, for an architecture whose configuration does not say
SELECTION_SPLIT = "validation"  # measured while training; it chooses the best checkpoint


def evaluated_split(splits: Container[str]) -> str:
    """The split that a run's figures are of: test, which chose nothing, and validation where there is none."""
    return "test" if "test" in splits else SELECTION_SPLIT


@dataclass
class Prepared:
    """Everything a run needs, resolved: every error of the user's that can be seen early was seen."""

    recipe: Recipe
    reasons: dict[str, str]
    task: Task
    method: Any
    source: ModelSource
    model: Any
    without_weights: Callable[[], Any]  # the model as it was loaded; a method may change its configuration
    tokenizer: Any
    head: list[str]
    examples: dict[str, Examples]
    encodings: dict[str, Encoding]
    accelerator: Any
    execution: Execution
    max_length: int
    checked: dict[str, LabelledTexts]
    prints: dict[str, Fingerprints]
    start: Start | None = None
    adapted: Adapted | None = None
    trunk: dict[str, Any] | None = None
    dropped_twins: int = 0
    laid_steps: int | None = None
    kept_features: tuple[Any, NDArray[np.float32]] | None = None

    @property
    def settings(self) -> TrainingSection:
        """What training follows: the recipe, in as many steps as were laid for its time limit."""
        training = self.recipe.training
        return training if self.laid_steps is None else training.model_copy(update={"max_steps": self.laid_steps})

    @property
    def evaluated_split(self) -> str:
        return evaluated_split(self.examples)

    @property
    def measured_splits(self) -> list[str]:
        """The splits that models are measured on, the evaluated one last."""
        return list(dict.fromkeys([SELECTION_SPLIT, self.evaluated_split]))

    def identity(self) -> dict[str, Any]:
        """Flat facts that decide the outcome. File names are not among them, their content is."""
        values = self.recipe.model_dump(exclude={"name": True, "model": {"name"}, "data": {"name", *recipes.FILE_KEYS}})
        flat = {
            f"{section}.{key}": value
            for section in ("data", "method", "training", "evidence")
            for key, value in values[section].items()
        }
        sources = [one.fingerprint for one in self.examples.values()]
        drawn = self.recipe.data.max_train_samples is not None or len(set(sources)) < len(sources)
        if self.recipe.data.group is not None and drawn:
            flat["data.drawn_by"] = "group"  # where earlier versions drew single rows
        flat |= {f"data.{name}": examples.fingerprint for name, examples in self.examples.items()}
        from featherweight.engine.training.checkpoints import CONTRACT

        flat |= {"model": self.source.fingerprint, "model.head": self.recipe.model.head}
        if self.start is not None:
            flat["model.adapter"] = self.start.fingerprint
        return flat | {"task": self.recipe.task, "checkpoint_contract": CONTRACT}

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
            "started_from": self.start.describe() if self.start else None,
            "data": {name: {"rows": len(one), "fingerprint": one.fingerprint} for name, one in self.examples.items()},
        }


def prepare(recipe: Recipe, console: Console) -> Prepared:
    """Read the data, load the model, tokenise; every choice that the recipe left open is made here, with its reason."""
    reasons: dict[str, str] = {}
    _require_measured(recipe)
    source = models.find(recipe.model.name, recipe.model.revision)
    start = Start.of(recipe, source)
    if start is not None:
        recipe = start.settle(recipe, reasons)
    console.begin("reading the data")
    read = _read(recipe, console)
    task, examples = read.task, read.examples
    recipe, chosen = defaults.choose_head(recipe, start is None and not task.has_head(models.load_config(source)))
    reasons |= chosen

    import transformers

    from featherweight.engine import hardware
    from featherweight.engine.running.execution import Execution

    console.begin("loading the model")
    seed = recipe.training.seed
    accelerator = hardware.accelerator_for(recipe.training)
    transformers.set_seed(seed)  # a fresh head is drawn while loading
    model, tokenizer, head = task.load_model(source, recipe.model)
    for name in task.mend_head(model, head):
        reasons["model.head"] = f"{name} of the model was not usable (not finite, or all zero) and is drawn afresh"
        console.say(f"model.head: {reasons['model.head']}")
    method = METHODS[recipe.method.name](recipe.method)
    method.require_targets(model)
    max_length, reason = task.max_length(tokenizer, model, recipe.data.max_length)
    if reason:
        reasons["data.max_length"] = reason
    section = recipe.data.model_copy(update={"max_length": max_length, "labels": list(task.labels)})
    if recipe.data.labels is None:
        reasons["data.labels"] = "read from the data"
    console.begin("tokenising")
    encodings = {name: task.encode(one, tokenizer, max_length) for name, one in examples.items()}
    # How it is run is proven in fp32: under 16 bits packed and padded logits differ by rounding, and prove nothing.
    execution = Execution(model.to(accelerator.device), tokenizer.pad_token_id, seed, Frame.of(tokenizer))
    model = accelerator.prepare_model(model, evaluation_mode=True)
    _say_how(execution.describe(), console)
    recipe, chosen = defaults.choose(recipe, _facts(recipe, model, head, encodings["train"], execution))
    reasons |= chosen
    if line := defaults.said(recipe, reasons):
        console.say(line)
    return Prepared(
        recipe=recipe.model_copy(update={"data": section}),
        reasons=reasons,
        task=task,
        method=method,
        source=source,
        model=model,
        without_weights=partial(models.without_weights, type(model), copy.deepcopy(model.config)),
        tokenizer=tokenizer,
        head=head,
        examples=examples,
        encodings=encodings,
        accelerator=accelerator,
        execution=execution,
        max_length=max_length,
        checked=read.checked,
        prints=read.prints,
        dropped_twins=read.dropped_twins,
        start=start,
    )


def _facts(recipe: Recipe, model: Any, head: list[str], train: Encoding, execution: Execution) -> defaults.Facts:
    from featherweight.engine.running.features import head_input_size

    size = None
    if recipe.training.learning_rate is None:
        rows = np.unique(np.linspace(0, len(train) - 1, _ROWS_LOOKED_AT).astype(int))
        size = head_input_size(model, head, train, rows, execution=execution)
    width = getattr(model.config.get_text_config(), "hidden_size", None) or _USUAL_WIDTH
    return defaults.Facts(len(train), width, size)


def adapt(prepared: Prepared) -> Adapted:
    """The model with what trains in it, fresh or as the adapter has it that training goes on from; made once."""
    import transformers

    seed = prepared.recipe.training.seed
    transformers.set_seed(seed)  # what was measured before has no say in what is drawn now
    if prepared.adapted is None:
        if prepared.start is None:
            adapted: Adapted = prepared.method.apply(prepared.model, prepared.task.peft_task_type, prepared.head)
        else:
            has_head = prepared.task.has_head(models.load_config(prepared.source))
            adapted = prepared.start.load(prepared.model, [] if has_head else prepared.head)
            transformers.set_seed(seed)
        prepared.execution.adopt(adapted.model)
        prepared.adapted = adapted
    return prepared.adapted


@dataclass(frozen=True)
class _Read:
    """The rows as the task sees them, with what the data's checks know of them so far."""

    task: Task
    examples: dict[str, Examples]
    checked: dict[str, LabelledTexts]
    prints: dict[str, Fingerprints]
    dropped_twins: int


def _read(recipe: Recipe, console: Console) -> _Read:
    """Read every split, and refuse rows that are measured though they stand in train."""
    splits = data.load(recipe.data)
    task_class: type[Task] = TASKS[recipe.task]
    task, examples = task_class.prepare(splits, recipe.data, recipe.training.seed)
    for name, split in splits.items():
        if name not in examples or examples[name].origin != split.origin:
            console.say(f"{name}: left out, for {split.origin} has no labels")
    checked = {name: LabelledTexts.of(one, task.labels) for name, one in examples.items()}
    prints = checks.fingerprint(checked)
    if not recipe.data.allow_leak:
        checks.refuse_leaks(checked, prints, recipe.data.group)
    dropped = 0
    if recipe.data.drop_train_twins:
        kept = checks.rows_without_twins(checked, prints)
        dropped = len(examples["train"]) - len(kept)
        examples["train"] = examples["train"].select(kept)
        checked["train"] = LabelledTexts.of(examples["train"], task.labels)
        prints["train"] = prints["train"].select(kept)
        console.say(f"train: {dropped:,} rows left out because their text also stands in a held-out split")
    console.show(tables.label_shares(shares(task, examples), {name: len(one) for name, one in examples.items()}))
    for one in examples.values():
        for line in _said_of(one):
            console.say(f"{one.name}: {line}")
    return _Read(task, examples, checked, prints, dropped)


def _say_how(chosen: Mapping[str, Any], console: Console) -> None:
    """How the model will run, and what of this machine could be better."""
    console.say("batches: {batches} ({reason})".format(**chosen))
    if dependence := chosen["batch_dependence"]:
        console.say(f"Take care: {dependence}")
    if not chosen["compiled_kernels"]:
        console.say(f"compiled kernels: {chosen['compiled_kernels_reason']}")
    if elsewhere := cache.problem():
        console.say(f"cache: {elsewhere}")


def trainer_for(
    prepared: Prepared,
    model: Any,
    evaluate_now: Callable[[], Evaluation],
    checkpoints: Checkpoints,
    observer: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
) -> Trainer:
    """The engine's loop over the train split, as the recipe has it."""
    from featherweight.engine.training.train import Trainer

    return Trainer(
        model,
        prepared.task,
        prepared.encodings["train"],
        evaluate=evaluate_now,
        settings=prepared.settings,
        execution=prepared.execution,
        accelerator=prepared.accelerator,
        checkpoints=checkpoints,
        observer=observer,
        stop=stop,
        head=prepared.head,
    )


def measure(
    prepared: Prepared,
    model: Any,
    what: str,
    console: Console,
    stop: Callable[[], bool],
    split: str = SELECTION_SPLIT,
) -> Evaluation:
    """Run the model, in whatever state it is, over a split."""
    from featherweight.engine.running.evaluate import evaluate

    return evaluate(
        model,
        prepared.task,
        prepared.encodings[split],
        execution=prepared.execution,
        batch_size=prepared.recipe.training.per_device_eval_batch_size,
        what=what,
        observer=console.observe,
        stop=stop,
    )


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters, counted as PEFT counts them."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def shares(task: Task, examples: Mapping[str, Examples]) -> dict[str, dict[str, float]]:
    """Share of each label in each split."""
    return {name: task.shares(one) for name, one in examples.items()}


def _said_of(examples: Examples) -> Iterator[str]:
    """What a person has to be told of how a split was read."""
    if examples.reading:
        yield examples.reading
    if examples.skipped:
        yield f"{examples.skipped} rows left out because they can't be read"
    if examples.dropped:
        yield f"{examples.dropped} rows left out because their text is empty"


def _require_measured(recipe: Recipe) -> None:
    name, kind = recipe.training.metric_for_best_model, TASKS[recipe.task].answers_with
    known = ["eval_loss", *(f"eval_{one.name}" for one in kind.statistics if one.in_evaluations)]
    if name is not None and name not in {*known, *(one.removeprefix("eval_") for one in known)}:
        raise ConfigError(f"training.metric_for_best_model: {name!r} is not measured; known: {', '.join(known)}")
