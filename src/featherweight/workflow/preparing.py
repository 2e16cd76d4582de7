"""Everything that a run needs, made ready: data, model, tokens, and every choice that the recipe left open."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight import recipe as recipes
from featherweight.answers import Answer, statistics_of
from featherweight.errors import ConfigError
from featherweight.evidence.data.duplicates import Fingerprints
from featherweight.evidence.data.label_issues import Suspects
from featherweight.methods import Adapted, Fit, Method
from featherweight.process import launch
from featherweight.recipe import DataSection, Recipe, TrainingSection
from featherweight.recipe.sections import EvaluationSection
from featherweight.records.answers import Evaluation
from featherweight.records.cutting import Cutting
from featherweight.records.outcome import TrunkCache
from featherweight.records.rows import Column, Encoding, Examples
from featherweight.registry import METHODS
from featherweight.report import held_base
from featherweight.report.console import Console
from featherweight.runs.directory import QUANTISES, RECORDED_PACKAGES, package_versions
from featherweight.sources import data, general_texts, models
from featherweight.sources.models import ModelSource
from featherweight.sources.trial_texts import Frame
from featherweight.storage import cache
from featherweight.storage.cache import key_of
from featherweight.tasks import Task, heads
from featherweight.tasks.losses import Objective
from featherweight.tasks.reading import lengths
from featherweight.tasks.reading.continuing import as_seen
from featherweight.tasks.reading.lengths import encoded
from featherweight.workflow import alike, best_metric, defaults, reading, settling
from featherweight.workflow.once import Once
from featherweight.workflow.own_rates import own_rates
from featherweight.workflow.sampling import TrainSample
from featherweight.workflow.starting import Start

if TYPE_CHECKING:
    from featherweight.engine import Lowered
    from featherweight.engine.running.execution import Execution
    from featherweight.engine.shards import Shards
    from featherweight.engine.training.checkpoints import Kept
    from featherweight.engine.training.train import Trainer

_ROWS_LOOKED_AT = 32
_USUAL_WIDTH = 768  # of a base model, for an architecture whose configuration does not say
# Keys that unfinished runs of earlier versions don't have, with the value that is what those did.
_LATER: Mapping[str, Any] = {
    "training.optim": recipes.ADAMW[0],
    "training.focal_gamma": 2.0,
    "training.label_smoothing_factor": 0.0,
    "training.gradient_checkpointing": False,
    "training.fsdp": False,
    "data.long_texts": "cut",
    "data.drop_suspects": False,
    **{f"evaluation.{key}": value for key, value in EvaluationSection().model_dump().items()},
}
# What decides nothing of the outcome: names of files, whose content does, and who is told of it.
_NAMES: Any = {
    "name": True, "model": {"name"}, "data": {"name", "mix", *recipes.FILE_KEYS}, "evaluation": {"forgetting_file"},
    "training": {"report_to"},
}  # fmt: skip
_OF_EVALUATIONS = tuple(
    f"training.{key}" for key in ("seed", "bf16", "fp16", "fsdp", "per_device_eval_batch_size", "metric_for_best_model")
)
SELECTION_SPLIT = "validation"  # measured while training; it chooses the best checkpoint
WITH_SUSPECTS = "train with its suspects"  # the rows of train before those were left out


def evaluated_split(splits: Container[str]) -> str:
    """The split that a run's figures are of: test, which chose nothing, and validation where there is none."""
    return "test" if "test" in splits else SELECTION_SPLIT


@dataclass
class Prepared:
    """Everything a run needs, resolved: every error of the user's that can be seen early was seen."""

    recipe: Recipe
    reasons: dict[str, str]
    asked: Recipe
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
    once: Once
    start: Start | None = None
    adapted: Adapted | None = None
    trunk: TrunkCache | None = None
    dropped_twins: int = 0
    suspects: Suspects | None = None
    laid_steps: int | None = None
    rounds: bool | None = None
    kept_features: tuple[Any, Column] | None = None

    @property
    def settings(self) -> TrainingSection:
        """What training follows: the recipe, in as many steps as were laid for its time limit, and in the precision
        that was found."""
        found = {"max_steps": self.laid_steps, "bf16": self.rounds}
        update = {key: value for key, value in found.items() if value is not None}
        return self.recipe.training.model_copy(update=update)

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

    def groups_of(self, examples: Examples) -> list[str | None] | None:
        """What each row belongs to; None where the recipe names no group."""
        return examples.groups(self.recipe.data.group)

    def encoding_of(self, split: str) -> Encoding:
        """A split, or :data:`WITH_SUSPECTS`, as the engine sees it."""
        if split != WITH_SUSPECTS:
            return self.encodings[split]
        assert self.suspects is not None
        return self.task.encode(self.suspects.train, self.tokenizer, self.cutting)

    def identity(self) -> dict[str, Any]:
        """Flat facts that decide the outcome. File names are not among them, their content is."""
        values = self.recipe.model_dump(exclude=_NAMES)
        flat = {
            f"{section}.{key}": value
            for section in ("data", "method", "training", "evidence", "evaluation")
            for key, value in values[section].items()
        }
        sources = [one.fingerprint for one in self.examples.values()]
        drawn = self.recipe.data.max_train_samples is not None or len(set(sources)) < len(sources)
        if self.recipe.data.group is not None and drawn:
            flat["data.drawn_by"] = "group"  # where earlier versions drew single rows
        flat = {key: value for key, value in flat.items() if key not in _LATER or value != _LATER[key]}
        flat |= {f"data.{name}": examples.fingerprint for name, examples in self.examples.items()}
        if beside := self.recipe.evaluation.forgetting_file:
            flat["evaluation.forgetting_file"] = general_texts.fingerprint(beside)
        from featherweight.engine.training.checkpoints import CONTRACT

        flat |= {"model": self.source.fingerprint, "model.head": self.recipe.model.head}
        flat |= {f"model.{key}": value for key, value in self.recipe.model.holding.items()}
        if self.start is not None:
            flat["model.adapter"] = self.start.fingerprint
        if self.execution.fleet.size > 1:  # whose steps are of as many times as many rows
            flat["processes"] = self.execution.fleet.size
        return flat | {"task": self.recipe.task, "checkpoint_contract": CONTRACT}

    @property
    def measured_as(self) -> str:
        """A name for all that decides what is measured before anything is trained: no option of the method, and of the
        training what evaluations depend on."""
        facts = {
            key: value
            for key, value in self.identity().items()
            if not key.startswith("method.") and (not key.startswith("training.") or key in _OF_EVALUATIONS)
        }
        return key_of(facts, self.task.answer.facts(), {name: one.key for name, one in self.encodings.items()})

    def environment(self) -> dict[str, Any]:
        from featherweight.engine import hardware

        return {
            "versions": package_versions(
                [*RECORDED_PACKAGES, *([QUANTISES] if self.recipe.model.quantization else [])]
            ),
            "hardware": hardware.describe(),
            "processes": self.execution.fleet.size,
            "execution": self.execution.describe(),
            "precision": self.execution.precision,
            **({"base_weights": self.recipe.model.holding} if self.recipe.model.holding else {}),
            "seed": self.recipe.training.seed,
            "model": {
                "name": self.source.name,
                "revision": self.source.revision,
                "fingerprint": self.source.fingerprint,
            },
            "started_from": self.start.describe() if self.start else None,
            "data": {name: {"rows": len(one), "fingerprint": one.fingerprint} for name, one in self.examples.items()},
            "chosen": sorted(key for key in self.reasons if _left_open(self.asked, key)),
        }


def _left_open(recipe: Recipe, key: str) -> bool:
    section, _, name = key.partition(".")
    return name not in getattr(recipe, section).model_fields_set


def read_rows(recipe: Recipe, console: Console, once: Once) -> tuple[DataSection, reading.Rows]:
    """The data's section with its columns found, and the rows."""

    def read() -> tuple[DataSection, reading.Rows]:
        console.begin("reading the data")
        section = data.found(recipe.data)
        return section, reading.read(recipe.model_copy(update={"data": section}), console)

    return once.made(("rows", *_of_rows(recipe)), read)


def _of_rows(recipe: Recipe) -> tuple[str, ...]:
    """What the rows depend on."""
    return recipe.task, recipe.data.model_dump_json(), str(recipe.training.seed), str(recipe.evidence.baselines)


def prepare(recipe: Recipe, console: Console, once: Once | None = None) -> Prepared:
    """Read the data, tokenise (both ``once``), load the model; what the recipe left open is chosen, with its reason."""
    asked, once, reasons = recipe, once or Once(), dict[str, str]()
    source = models.find(recipe.model.name, recipe.model.revision)
    start = Start.of(recipe, source)
    recipe = recipe if start is None else start.settle(recipe, reasons)
    recipe = settling.held(recipe, source, reasons)
    given, (found, rows) = recipe, read_rows(recipe, console, once)
    recipe = recipe.model_copy(update={"data": found})
    recipe = best_metric.settle(recipe, rows.task.answer, reasons)
    task = settling.as_trained(settling.as_it_answers(rows.task, start, source, recipe), recipe)
    recipe, objective = settling.deciding(recipe, rows, reasons), _objective(recipe, task, rows, console)
    is_fresh = start is None and not task.head().is_stored(models.load_config(source))
    recipe = settling.with_head(recipe, is_fresh, reasons)
    method, loaded = _tunable(recipe, task, source, reasons, console)
    section, cutting = _settled(recipe, given.data, task, loaded, reasons, method.virtual_tokens)
    tokens = "tokens", source.fingerprint, recipe.model.model_dump_json(), cutting, *_of_rows(given)
    rows, encodings = once.made(tokens, partial(_encoded, task, rows, loaded.tokenizer, cutting, console))
    _show_row(task, encodings["train"], loaded.tokenizer, console)
    model, execution = _executed(loaded, task, recipe.training, console)
    facts = _facts(recipe, task, model, loaded.head, encodings["train"].trained, execution)
    recipe = _with_defaults(recipe, facts, reasons, console)
    return Prepared(
        recipe=recipe.model_copy(update={"data": section}),
        reasons=reasons,
        asked=asked,
        task=task,
        method=method,
        source=source,
        model=model,
        without_weights=partial(models.without_weights, type(model), copy.deepcopy(model.config)),
        tokenizer=loaded.tokenizer,
        head=loaded.head,
        examples=rows.examples,
        encodings=encodings,
        accelerator=loaded.accelerator,
        execution=execution,
        cutting=cutting,
        prints=rows.prints,
        objective=objective,
        dropped_twins=rows.dropped_twins,
        suspects=rows.suspects,
        once=once,
        start=start,
    )


def _objective(recipe: Recipe, task: Task, rows: reading.Rows, console: Console) -> Objective:
    """What training lowers, of the rows that it is trained on."""
    found = task.objective(recipe.training, rows.examples["train"])
    if found.said:
        console.say(found.said)
    return found


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
    if method.trains_head_alone and task.head().is_pretrained:
        raise ConfigError(
            f"method.name: {recipe.method.name} trains a fresh head and nothing else, and for {recipe.task} the model "
            "keeps its own; choose lora"
        )
    if (modules := heads.skeleton(task.head(), source)) is not None:
        _require_tunable(recipe, method, modules)
    loaded = _load(recipe, task, source, reasons, console)
    if modules is None:
        _require_tunable(recipe, method, loaded.model)
    return method, loaded


def _require_tunable(recipe: Recipe, method: Method, model: Any) -> None:
    """Raises ConfigError where the model has nothing that the method tunes, or can't be trained as the recipe says."""
    from featherweight.engine import hardware

    method.require_targets(model)
    hardware.require_fp16(recipe.training, model)


def _load(recipe: Recipe, task: Task, source: ModelSource, reasons: dict[str, str], console: Console) -> _Loaded:
    import transformers

    from featherweight.engine import hardware
    from featherweight.sources.held import numel

    console.begin("loading the model")
    if recipe.model.holding:
        console.say(f"base model: held with {held_base.weights(recipe.model.holding)}")
    accelerator = hardware.accelerator_for(recipe.training)
    transformers.set_seed(recipe.training.seed)  # a fresh head is drawn while loading
    shares = _shares(recipe.training, accelerator.device)
    model, tokenizer, head = heads.load(task.head(), source, recipe.model, shares)
    if shares is not None:
        console.say(
            f"base model: {launch.place().size} processes share out its {numel(model):,} frozen weights, "
            f"{shares.kept_bytes / 1e6:,.1f} MB each"
        )
    for name in heads.mend(model, head):
        reasons["model.head"] = f"{name} of the model was not usable (not finite, or all zero) and is drawn afresh"
        console.say(f"model.head: {reasons['model.head']}")
    return _Loaded(model, tokenizer, head, accelerator)


def _shares(training: TrainingSection, device: Any) -> Shards | None:
    """The processes among which the base is shared out, where there are several and the recipe says so."""
    from featherweight.engine import fleet
    from featherweight.engine.shards import Shards

    processes = fleet.join()
    if not isinstance(processes, fleet.Together):
        return None
    processes.meanwhile = fleet.nothing  # whatever an earlier run has shared out is gone
    return Shards(processes, device) if training.fsdp else None


def _settled(
    recipe: Recipe, given: DataSection, task: Task, loaded: _Loaded, reasons: dict[str, str], reserved: int
) -> tuple[DataSection, Cutting]:
    """The data's section with what was read from the data, and what becomes of long texts, beside which ``reserved``
    tokens have to find room."""
    asked = recipe.data.max_length, recipe.data.longest
    max_length, reason = lengths.usable(loaded.tokenizer, loaded.model, *asked, reserved=reserved)
    if reason:
        reasons["data.max_length"] = reason
    section = task.settled(recipe.data)
    reasons |= {f"data.{key}": "read from the data" for key, value in section if value != getattr(given, key)}
    cutting = lengths.require_room(section.cutting(max_length), loaded.tokenizer)
    cutting = lengths.with_reply(cutting, loaded.tokenizer, loaded.model)
    said = cutting.facts()
    reasons |= {
        f"data.{key}": "chosen automatically" for key in said if getattr(section, key) is None and key != "max_length"
    }
    return section.model_copy(update=said), cutting


def _encoded(
    task: Task, rows: reading.Rows, tokenizer: Any, cutting: Cutting, console: Console
) -> tuple[reading.Rows, dict[str, Encoding]]:
    """Every split as the engine sees it, and the rows without those of which nothing is left to compare."""
    console.begin("tokenising")
    examples, prints, encodings = dict(rows.examples), dict(rows.prints), dict[str, Encoding]()
    for name, whole in rows.examples.items():
        examples[name], encodings[name] = encoded(task, whole, tokenizer, cutting)
        if gone := len(whole) - len(examples[name]):
            prints[name] = prints[name].select(np.flatnonzero(np.isin(whole.ids, examples[name].ids)))
            console.say(f"{name}: {gone:,} rows left out because nothing of an answer is left at data.max_length")
    return replace(rows, examples=examples, prints=prints), encodings


def _show_row(task: Task, train: Encoding, tokenizer: Any, console: Console) -> None:
    """Where a part of each row is learned, which part of the first that is."""
    if not task.scores_tokens:
        return
    which = "A row of train as the model sees it; it learns what stands in ⟦ ⟧:"
    sequences = [0]
    if train.compares:
        which = "A pair of train as the model sees it, the better answer first; what stands in ⟦ ⟧ is compared:"
        sequences = [0, 1]
    shown = "\n".join(as_seen(train, tokenizer, sequence) for sequence in sequences)
    console.show(f"\n{which}\n{shown}\n")


def _executed(loaded: _Loaded, task: Task, training: TrainingSection, console: Console) -> tuple[Any, Execution]:
    """The model where it runs, and how it is run, which is proven in fp32: under 16 bits packed and padded logits
    differ by rounding, and prove nothing."""
    from featherweight.engine import fleet, hardware
    from featherweight.engine.running.execution import Execution

    tokenizer, accelerator = loaded.tokenizer, loaded.accelerator
    model = loaded.model.to(accelerator.device)
    execution = Execution(
        model, tokenizer.pad_token_id, training.seed, Frame.of(tokenizer), task.reads_tokens,
        hardware.precision_of(training), fleet.join(),
    )  # fmt: skip
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    if task.scores_tokens:
        execution.score_next_tokens(model)
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
    if recipe.training.learning_rate is None and head:
        rows = np.unique(np.linspace(0, len(train) - 1, _ROWS_LOOKED_AT).astype(int))
        size = head_input_size(model, head, train, rows, execution=execution)
    width = getattr(model.config.get_text_config(), "hidden_size", None) or _USUAL_WIDTH
    kind = task.answer
    best, processes = _best(kind, recipe.training), execution.fleet.size
    return defaults.Facts(len(train), width, size, best, kind.fewest_steps, processes)


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
        prepared.execution.fleet.announce("adapt")
        if prepared.start is None:
            sample = TrainSample(prepared.encodings["train"].trained, lowered(prepared), prepared.execution)
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
        alike.share_trained(adapted.model, prepared.execution)
        prepared.adapted = adapted
    return prepared.adapted


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
    checkpoints: Kept,
    observer: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
) -> Trainer:
    """The engine's loop over the train split, as the recipe has it."""
    from featherweight.engine.training.train import Hooks, Means, Trainer

    return Trainer(
        model,
        lowered(prepared),
        prepared.encodings["train"].trained,
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
