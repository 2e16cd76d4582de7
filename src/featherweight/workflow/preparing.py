"""Everything that a run needs, made ready: data, model, tokens, and every choice that the recipe left open."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight import recipe as recipes
from featherweight.answers import Answer, statistics_of
from featherweight.errors import ConfigError
from featherweight.evidence.data import checks, label_issues
from featherweight.evidence.data.duplicates import Fingerprints
from featherweight.evidence.data.label_issues import Suspects
from featherweight.methods import Adapted, Fit, Method
from featherweight.recipe import DataSection, Recipe, TrainingSection
from featherweight.records.answers import Evaluation
from featherweight.records.cutting import Cutting
from featherweight.records.outcome import TrunkCache
from featherweight.records.rows import Column, Encoding, Examples
from featherweight.registry import BASELINES, METHODS, TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import SUSPECTS, package_versions
from featherweight.sources import data, models
from featherweight.sources.models import ModelSource
from featherweight.sources.trial_texts import Frame
from featherweight.storage import cache
from featherweight.tasks import Task, heads, task_of
from featherweight.tasks.losses import Objective
from featherweight.tasks.reading import lengths
from featherweight.workflow import best_metric, defaults
from featherweight.workflow.own_rates import own_rates
from featherweight.workflow.sampling import TrainSample
from featherweight.workflow.starting import Start

if TYPE_CHECKING:
    from featherweight.engine import Lowered
    from featherweight.engine.running.execution import Execution
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.train import Trainer

_ROWS_LOOKED_AT = 32
_USUAL_WIDTH = 768  # of a base model, for an architecture whose configuration does not say
# Keys that unfinished runs of earlier versions don't have, with the value that is what those did.
_LATER: Mapping[str, Any] = {
    "training.optim": recipes.ADAMW[0],
    "training.focal_gamma": 2.0,
    "training.label_smoothing_factor": 0.0,
    "training.gradient_checkpointing": False,
    "data.long_texts": "cut",
    "data.drop_suspects": False,
}
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
    cutting: Cutting
    prints: dict[str, Fingerprints]
    objective: Objective
    start: Start | None = None
    adapted: Adapted | None = None
    trunk: TrunkCache | None = None
    dropped_twins: int = 0
    suspects: Suspects | None = None
    laid_steps: int | None = None
    kept_features: tuple[Any, Column] | None = None

    @property
    def settings(self) -> TrainingSection:
        """What training follows: the recipe, in as many steps as were laid for its time limit."""
        training = self.recipe.training
        return training if self.laid_steps is None else training.model_copy(update={"max_steps": self.laid_steps})

    @property
    def evaluated_split(self) -> str:
        return evaluated_split(self.examples)

    @property
    def base_identity(self) -> str:
        """Of the base model's numbers as they are multiplied with."""
        return " ".join([self.source.fingerprint, *self.recipe.model.holding.values()])

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
        flat = {key: value for key, value in flat.items() if key not in _LATER or value != _LATER[key]}
        flat |= {f"data.{name}": examples.fingerprint for name, examples in self.examples.items()}
        from featherweight.engine.training.checkpoints import CONTRACT

        flat |= {"model": self.source.fingerprint, "model.head": self.recipe.model.head}
        flat |= {f"model.{key}": value for key, value in self.recipe.model.holding.items()}
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
            **({"base_weights": self.recipe.model.holding} if self.recipe.model.holding else {}),
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
    source = models.find(recipe.model.name, recipe.model.revision)
    start = Start.of(recipe, source)
    if start is not None:
        recipe = start.settle(recipe, reasons)
    recipe = _held(recipe, source, reasons)
    console.begin("reading the data")
    given, recipe = recipe.data, recipe.model_copy(update={"data": data.found(recipe.data)})
    read = _read(recipe, console)
    recipe = best_metric.settle(recipe, read.task.answer, reasons)
    task = _as_it_answers(read.task, start, source, recipe)
    recipe, objective = _deciding(recipe, read, reasons), _objective(recipe, task, read, console)
    recipe = _with_head(recipe, start is None and not task.head().is_stored(models.load_config(source)), reasons)
    method, loaded = _tunable(recipe, task, source, reasons, console)
    section, cutting = _settled(recipe, given, task, loaded, reasons, method.virtual_tokens)
    console.begin("tokenising")
    encodings = {name: task.encode(one, loaded.tokenizer, cutting) for name, one in read.examples.items()}
    model, execution = _executed(loaded, task, recipe.training.seed, console)
    facts = _facts(recipe, task, model, loaded.head, encodings["train"].flat, execution)
    recipe = _with_defaults(recipe, facts, reasons, console)
    return Prepared(
        recipe=recipe.model_copy(update={"data": section}),
        reasons=reasons,
        task=task,
        method=method,
        source=source,
        model=model,
        without_weights=partial(models.without_weights, type(model), copy.deepcopy(model.config)),
        tokenizer=loaded.tokenizer,
        head=loaded.head,
        examples=read.examples,
        encodings=encodings,
        accelerator=loaded.accelerator,
        execution=execution,
        cutting=cutting,
        prints=read.prints,
        objective=objective,
        dropped_twins=read.dropped_twins,
        suspects=read.suspects,
        start=start,
    )


def _held(recipe: Recipe, source: ModelSource, reasons: dict[str, str]) -> Recipe:
    """The recipe with the dtype that the base model's frozen weights are held in.

    Raises ConfigError where they can't be held so.
    """
    if recipe.model.quantization is not None:
        from featherweight.sources.held import require_package

        require_package()
    problem = METHODS[recipe.method.name](recipe.method).unheld
    if recipe.model.dtype == "auto":
        dtype = "float32" if problem else heads.held_dtype(recipe.model, source)
        reasons["model.dtype"] = f"{recipe.method.name} {problem}" if problem else f"as {source.name} is stored"
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})
    if problem and (key := next(iter(recipe.model.holding), None)):
        raise ConfigError(
            f"model.{key}: not for {recipe.method.name}, which {problem}; leave it out, or choose another method"
        )
    return recipe


def _objective(recipe: Recipe, task: Task, read: _Read, console: Console) -> Objective:
    """What training lowers, of the rows that it is trained on."""
    found = task.objective(recipe.training, read.examples["train"])
    if found.said:
        console.say(found.said)
    return found


def _with_head(recipe: Recipe, is_fresh: bool, reasons: dict[str, str]) -> Recipe:
    """The recipe with what its head begins at."""
    recipe, chosen = defaults.choose_head(recipe, is_fresh)
    reasons |= chosen
    return recipe


def _deciding(recipe: Recipe, read: _Read, reasons: dict[str, str]) -> Recipe:
    """With the label that a decision threshold is for, the rarer of train where that is left open.

    Raises ConfigError where answers are not one of two labels, or none is called so.
    """
    evidence, kind = recipe.evidence, read.task.answer
    if evidence.decision_threshold is None:
        return recipe
    if "decision-threshold" not in kind.exhibits or len(kind.possible) != 2:
        have = f"has {len(kind.possible)} labels" if kind.possible else "answers otherwise"
        raise ConfigError(
            f"evidence.decision_threshold: is for one of two labels, and {recipe.task} here {have}; leave it out"
        )
    if evidence.pos_label is None:
        shares = kind.describe(read.examples["train"].truth)
        rarer = min(reversed(kind.possible), key=shares.__getitem__)
        reasons["evidence.pos_label"] = f"the rarer label of train ({shares[rarer]:.1%} of its rows)"
        evidence = evidence.model_copy(update={"pos_label": rarer})
    if evidence.pos_label not in kind.possible:
        raise ConfigError(
            f"evidence.pos_label: {evidence.pos_label!r} is no label of the data; known: {', '.join(kind.possible)}"
        )
    return recipe.model_copy(update={"evidence": evidence})


def _as_it_answers(task: Task, start: Start | None, source: ModelSource, recipe: Recipe) -> Task:
    """The task as what training starts from answers already. Outputs with names are matched by these; those without
    have a scale, which a trained head keeps whatever the data's is."""
    if task.head().names is not None:
        return task
    if start is not None:
        return task_of(start.origin.known)
    stored = type(task).of_model(models.load_config(source)) if recipe.model.head == "auto" else None
    return task if stored is None else stored


@dataclass(frozen=True)
class _Loaded:
    """The model as it comes, with a head that was drawn where it lacked one, and what goes with it."""

    model: Any
    tokenizer: Any
    head: list[str]
    accelerator: Any


def _tunable(
    recipe: Recipe, task: Task, source: ModelSource, reasons: dict[str, str], console: Console
) -> tuple[Method, _Loaded]:
    """The method, and the model, which has what it tunes: seen before weights are read, where that can be."""
    method: Method = METHODS[recipe.method.name](recipe.method)
    if (modules := heads.skeleton(task.head(), source)) is not None:
        method.require_targets(modules)
    loaded = _load(recipe, task, source, reasons, console)
    if modules is None:
        method.require_targets(loaded.model)
    return method, loaded


def _load(recipe: Recipe, task: Task, source: ModelSource, reasons: dict[str, str], console: Console) -> _Loaded:
    import transformers

    from featherweight.engine import hardware

    console.begin("loading the model")
    accelerator = hardware.accelerator_for(recipe.training)
    transformers.set_seed(recipe.training.seed)  # a fresh head is drawn while loading
    model, tokenizer, head = heads.load(task.head(), source, recipe.model)
    for name in heads.mend(model, head):
        reasons["model.head"] = f"{name} of the model was not usable (not finite, or all zero) and is drawn afresh"
        console.say(f"model.head: {reasons['model.head']}")
    return _Loaded(model, tokenizer, head, accelerator)


def _settled(
    recipe: Recipe, given: DataSection, task: Task, loaded: _Loaded, reasons: dict[str, str], reserved: int
) -> tuple[DataSection, Cutting]:
    """The data's section with what was read from the data, and what becomes of long texts, beside which ``reserved``
    tokens have to find room."""
    max_length, reason = lengths.usable(loaded.tokenizer, loaded.model, recipe.data.max_length, reserved=reserved)
    if reason:
        reasons["data.max_length"] = reason
    section = task.settled(recipe.data)
    reasons |= {f"data.{key}": "read from the data" for key, value in section if value != getattr(given, key)}
    cutting = lengths.require_room(section.cutting(max_length), loaded.tokenizer)
    said = cutting.facts()
    reasons |= {
        f"data.{key}": "chosen automatically" for key in said if getattr(section, key) is None and key != "max_length"
    }
    return section.model_copy(update=said), cutting


def _executed(loaded: _Loaded, task: Task, seed: int, console: Console) -> tuple[Any, Execution]:
    """The model where it runs, and how it is run, which is proven in fp32: under 16 bits packed and padded logits
    differ by rounding, and prove nothing."""
    from featherweight.engine.running.execution import Execution

    tokenizer, accelerator = loaded.tokenizer, loaded.accelerator
    model = loaded.model.to(accelerator.device)
    execution = Execution(model, tokenizer.pad_token_id, seed, Frame.of(tokenizer), task.reads_tokens)
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    _say_how(execution.describe(), console)
    return prepared, execution


def _with_defaults(recipe: Recipe, facts: defaults.Facts, reasons: dict[str, str], console: Console) -> Recipe:
    """The recipe with what it left open of its training."""
    recipe, chosen = defaults.choose(recipe, facts)
    reasons |= chosen
    if line := defaults.said(recipe, reasons):
        console.say(line)
    return recipe


def _facts(
    recipe: Recipe, task: Task, model: Any, head: list[str], train: Encoding, execution: Execution
) -> defaults.Facts:
    from featherweight.engine.running.features import head_input_size

    size = None
    if recipe.training.learning_rate is None:
        rows = np.unique(np.linspace(0, len(train) - 1, _ROWS_LOOKED_AT).astype(int))
        size = head_input_size(model, head, train, rows, execution=execution)
    width = getattr(model.config.get_text_config(), "hidden_size", None) or _USUAL_WIDTH
    kind = task.answer
    return defaults.Facts(len(train), width, size, _best(kind, recipe.training), kind.fewest_steps)


def _best(kind: Answer, training: TrainingSection) -> str:
    """The metric that chooses the checkpoint. Where classes are weighted it is one in which they weigh the same, for
    the loss of evaluations weighs rows."""
    rare = next((one.name for one in statistics_of(kind) if one.minds_rare), None)
    return kind.best if training.class_weights is None or rare is None else f"eval_{rare}"


def adapt(prepared: Prepared, console: Console) -> Adapted:
    """The model with what trains in it, fresh or as the adapter has it that training goes on from; made once."""
    import transformers

    from featherweight.sources.held import require_trainable

    seed = prepared.recipe.training.seed
    transformers.set_seed(seed)  # what was measured before has no say in what is drawn now
    if prepared.adapted is None:
        if prepared.start is None:
            sample = TrainSample(prepared.encodings["train"].flat, lowered(prepared), prepared.execution)
            fit = Fit(prepared.task.peft_task_type, prepared.head, sample)
            adapted: Adapted = prepared.method.apply(prepared.model, fit)
        else:
            has_head = prepared.task.head().is_stored(models.load_config(prepared.source))
            adapted = prepared.start.load(prepared.model, [] if has_head else prepared.head)
            transformers.set_seed(seed)
        require_trainable(adapted.model)
        if not prepared.execution.adopt(adapted.model):
            _say_how(prepared.execution.describe(), console)
        if prepared.recipe.training.gradient_checkpointing:
            prepared.execution.recompute(adapted.model)
        prepared.adapted = adapted
    return prepared.adapted


@dataclass(frozen=True)
class _Read:
    """The rows as the task sees them, with what the data's checks know of them so far."""

    task: Task
    examples: dict[str, Examples]
    prints: dict[str, Fingerprints]
    dropped_twins: int
    suspects: Suspects | None


def _read(recipe: Recipe, console: Console) -> _Read:
    """Read every split, and refuse rows that are measured though they stand in train."""
    splits = data.load(recipe.data)
    task_class: type[Task] = TASKS[recipe.task]
    task, read = task_class.prepare(splits, recipe.data, recipe.training.seed)
    examples = dict(read)
    for name, split in splits.items():
        if name not in examples or examples[name].origin != split.origin:
            console.say(f"{name}: left out, for {split.origin} has no labels")
    kind = task.answer
    _require_own_rivals(recipe, kind)
    prints = checks.fingerprint(examples)
    if not recipe.data.allow_leak:
        checks.refuse_leaks(examples, prints, recipe.data.group)
    dropped = 0
    if recipe.data.drop_train_twins:
        kept = checks.rows_without_twins(kind, examples, prints)
        dropped = len(examples["train"]) - len(kept)
        examples["train"] = examples["train"].select(kept)
        prints["train"] = prints["train"].select(kept)
        console.say(f"train: {dropped:,} rows left out because their text also stands in a held-out split")
    suspects = _drop_suspects(recipe, kind, examples, prints, console) if recipe.data.drop_suspects else None
    console.show(tables.described(kind.described, described(kind, examples), examples))
    for one in examples.values():
        for line in _said_of(one):
            console.say(f"{one.name}: {line}")
    return _Read(task, examples, prints, dropped, suspects)


def _drop_suspects(
    recipe: Recipe, kind: Answer, examples: dict[str, Examples], prints: dict[str, Fingerprints], console: Console
) -> Suspects:
    """Take out of train, and of nothing else, the rows whose label is suspected to be wrong."""
    if "suspected-label-errors" not in kind.checks:
        raise ConfigError(f"data.drop_suspects: is for one label a row, which {recipe.task} has not; leave it out")
    console.begin("looking for labels that are likely wrong")
    look = checks.Look(kind, {"train": examples["train"]}, prints, {}, recipe.training.seed, None)
    found = label_issues.suspects(look)
    examples["train"] = examples["train"].select(found.kept)
    prints["train"] = prints["train"].select(found.kept)
    console.say(
        f"train: {len(found.found):,} rows left out because their label is suspected to be wrong, of "
        f"{found.looked_at:,} looked at; {SUSPECTS} in the run's folder lists them"
    )
    return found


def _say_how(chosen: Mapping[str, Any], console: Console) -> None:
    """How the model will run, and what of this machine could be better."""
    console.say("batches: {batches} ({reason})".format(**chosen))
    if dependence := chosen["batch_dependence"]:
        console.say(f"Take care: {dependence}")
    if not chosen["compiled_kernels"]:
        console.say(f"compiled kernels: {chosen['compiled_kernels_reason']}")
    if elsewhere := cache.problem():
        console.say(f"cache: {elsewhere}")


def lowered(prepared: Prepared) -> Lowered:
    """What training lowers."""
    from featherweight.engine import Lowered

    return Lowered(prepared.task.answer, prepared.objective.loss, prepared.objective.weight)


def trainer_for(
    prepared: Prepared,
    model: Any,
    evaluate_now: Callable[[], Evaluation],
    checkpoints: Checkpoints,
    observer: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
) -> Trainer:
    """The engine's loop over the train split, as the recipe has it."""
    from featherweight.engine.training.train import Hooks, Means, Trainer

    return Trainer(
        model,
        lowered(prepared),
        prepared.encodings["train"].flat,
        settings=prepared.settings,
        means=Means(
            prepared.accelerator,
            prepared.execution,
            checkpoints,
            None if prepared.adapted is None else prepared.adapted.keeper,
        ),
        hooks=Hooks(evaluate_now, observer, stop),
        own_rates=own_rates(model, prepared.head, prepared.settings),
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
    from featherweight.engine import Watch
    from featherweight.engine.running.evaluate import evaluate

    return evaluate(
        model,
        prepared.task,
        prepared.encodings[split],
        execution=prepared.execution,
        batch_size=prepared.recipe.training.per_device_eval_batch_size,
        watch=Watch(what, console.observe, stop),
        also=prepared.settings.metric_for_best_model,
    )


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters, counted as PEFT counts them."""
    from featherweight.sources.held import numel

    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes) + numel(model)


def described(kind: Answer, examples: Mapping[str, Examples]) -> dict[str, dict[str, float]]:
    """What the truth of each split is like."""
    return {name: kind.describe(one.truth) for name, one in examples.items()}


def _said_of(examples: Examples) -> Iterator[str]:
    """What a person has to be told of how a split was read."""
    if examples.reading:
        yield examples.reading
    if examples.skipped:
        yield f"{examples.skipped} rows left out because they can't be read"
    if examples.dropped:
        yield f"{examples.dropped} rows left out because their text is empty"


def _require_own_rivals(recipe: Recipe, kind: Answer) -> None:
    own = BASELINES.for_kind(kind.baselines, kind.name)
    if foreign := [name for name in recipe.evidence.baselines or [] if name not in own]:
        raise ConfigError(
            f"evidence.baselines: {foreign[0]!r} does not answer as {recipe.task} does; known: {', '.join(own)}"
        )
