"""Whatever can answer, loaded: a run, an adapter, a model, as a folder or of the hub, a GGUF file, a package's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight import recipe as recipes
from featherweight.answers import FIRST, kind_of
from featherweight.errors import ConfigError, ModelError
from featherweight.inference.facts import read_facts
from featherweight.methods.peft import adapters
from featherweight.process.imports import importing_models
from featherweight.recipe import ModelSection, Recipe
from featherweight.records.cutting import Cutting
from featherweight.records.questions import columns_of
from featherweight.registry import METHODS
from featherweight.runs.directory import FACTS, RunDirectory
from featherweight.sources import models
from featherweight.sources.models import ModelSource
from featherweight.sources.tensors import read_header
from featherweight.sources.trial_texts import Frame
from featherweight.tasks import Task, heads, stored_task, task_of
from featherweight.tasks.heads import stored_labels
from featherweight.tasks.reading import lengths

if TYPE_CHECKING:
    from featherweight.engine.running.execution import Execution


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer.

    Attributes:
        name: what was asked for.
        task: knows the labels.
        model: in evaluation mode.
        tokenizer: with a pad token.
        cutting: what becomes of long texts.
        head: dotted names of the modules that its own checkpoint may lack, and that tuning trains whole.
        fitted: on held-out rows, as the kind of answer has it; empty where nobody knows.
        text_columns: what the column of the texts, or the two of their pairs, was called where it was tuned.
        untuned: loads what its tuning began with; None where nobody says what that was.
    """

    name: str
    task: Task
    model: Any
    tokenizer: Any
    cutting: Cutting
    head: Sequence[str] = ()
    fitted: Mapping[str, Any] = field(default_factory=dict)
    text_columns: tuple[str, ...] = ()
    untuned: Callable[[], LoadedModel] | None = None


def facts(
    task: Task,
    source: ModelSource,
    cutting: Cutting,
    pad_token_id: int,
    fitted: Mapping[str, Any],
    text_columns: Sequence[str],
    equal_lengths: bool,
) -> dict[str, Any]:
    """What a model needs to answer, beside what PEFT or transformers keeps: ``featherweight.json`` in its folder.

    Args:
        fitted: what the kind of answer fitted on held-out rows.
        text_columns: what the column of the texts, or the two of their pairs, is called.
        equal_lengths: whether only texts of equal length may run together.
    """
    return {
        "schema_version": 1,
        "task": task.name,
        "answer": task.answer.name,
        **task.answer.facts(),
        **cutting.facts(),
        "pad_token_id": pad_token_id,
        "equal_lengths": equal_lengths,
        "text_column": text_columns[0] if len(text_columns) == 1 else list(text_columns),
        **fitted,
        "base_model": {"name": source.name, "revision": source.revision, "fingerprint": source.fingerprint},
    }


@dataclass(frozen=True)
class Origin:
    """What a run or an adapter was made from, and where the result lies.

    Attributes:
        folder: of the adapter or of the whole tuned model.
        known: its ``featherweight.json``.
        where: the base model's name, or None where nothing says it.
        revision: the base model's, on its hub.
        fingerprint: that the base model had; None where nothing says it.
        run: the recipe, where this is a run.
        commit: the hub's, where the adapter came from there.
    """

    folder: Path
    known: Mapping[str, Any]
    where: str | None
    revision: str | None
    fingerprint: str | None
    run: Recipe | None
    commit: str | None = None

    @property
    def is_adapter(self) -> bool:
        return (self.folder / adapters.CONFIG).is_file()

    @property
    def holding(self) -> dict[str, Any]:
        """How the base model's weights are held, by the keys of a recipe's ``[model]``."""
        if self.run is not None:
            return dict(self.run.model.holding)
        known = self.known.get("base_model", {})
        return {key: known[key] for key in ("dtype", "quantization") if key in known}

    @cached_property
    def base(self) -> ModelSource:
        """The base model, as it was.

        Raises:
            ModelError: nothing says which it is, or it has changed since.
            ConfigError: it is not there.
        """
        if not self.where:
            raise ModelError(f"{self.folder / adapters.CONFIG}: does not say which base model the adapter is for")
        try:
            source = models.find(self.where, self.revision)
        except (ConfigError, ModelError) as error:
            raise type(error)(
                f"{error}, where {self.folder} has its base model; say where it is with --base-model"
            ) from None
        if self.fingerprint and source.fingerprint != self.fingerprint:
            raise ModelError(
                f"{self.folder}: the adapter was made for {self.where} as it was ({self.fingerprint[:12]}), which has "
                f"changed since ({source.fingerprint[:12]}); bring that version back"
            )
        return source


def origin_of(name: str, base_model: str | None = None) -> Origin | None:
    """Where a run or an adapter comes from; None for a model that stands alone.

    Args:
        base_model: where its base model is on this machine, as in a recipe; where it says itself if None.

    Raises:
        ModelError: the folder or a file in it can't be trusted or read.
        ConfigError: its recipe can't be read, or what is told its base model has none.
    """
    origin = _origin_of(name)
    if base_model is None:
        return origin
    if origin is None or not origin.is_adapter:
        raise ConfigError(f"--base-model: {name} is no adapter, so it has no base model")
    return replace(origin, where=base_model, revision=None)


def _origin_of(name: str) -> Origin | None:
    path, commit = models.placed(name)
    run = RunDirectory(path)
    if (path / adapters.CONFIG).is_file() or run.recipe.is_file():
        models.require_plain_files(path)
    if run.recipe.is_file():
        fingerprint = run.read_metrics()["base_model_fingerprint"]
        recipe = recipes.load(run.recipe)
        folder = path / METHODS[recipe.method.name].artefact
        return Origin(folder, read_facts(folder), recipe.model.name, recipe.model.revision, fingerprint, recipe)
    if not (path / adapters.CONFIG).is_file():
        return None
    config, known = adapters.check(path), read_facts(path)
    base = known.get("base_model", {})
    where = base.get("name") or config.get("base_model_name_or_path")
    revision = base.get("revision") or config.get("revision")
    return Origin(path, known, where, revision, base.get("fingerprint"), None, commit)


@importing_models()
def load(name: str, fresh: Callable[[], Task] | None = None, base_model: str | None = None) -> LoadedModel:
    """Load a run, an adapter or any model.

    Args:
        fresh: gives the task of a model that has no head yet; one is drawn for it. Without it, such a model is refused.
        base_model: where an adapter's base model is on this machine; where the adapter says itself if None.

    Raises:
        ModelError: it can't be found, trusted or read, or was made for another base model.
        ConfigError: the name means nothing.
    """
    origin = origin_of(name, base_model)
    if origin is not None:
        return load_tuned(name, origin)
    folder, _ = models.placed(name)
    return _load_whole(name, folder) if (folder / FACTS).is_file() else _load_plain(name, fresh)


def load_tuned(name: str, origin: Origin) -> LoadedModel:
    """Load what a run or an adapter made of its base model."""
    before = partial(load_untuned, name, origin)
    if not origin.is_adapter:
        return replace(_load_whole(name, origin.folder), untuned=before)
    untuned = before()
    fresh = [] if untuned.task.head().is_stored(models.load_config(origin.base)) else untuned.head
    model = adapters.load(untuned.model, origin.folder, fresh)
    return replace(untuned, model=model, untuned=before, **_beside(_with_columns(origin)))


@importing_models()
def load_untuned(name: str, origin: Origin) -> LoadedModel:
    """Load what a run or an adapter began with: its base model and the head that tuning found.

    A head that is drawn comes from torch's global generator: seeded as the run was, it is the one that the run began
    with.
    """
    source = origin.base
    task = _task(origin.known, source, origin.folder)
    if origin.run is not None:
        model, tokenizer, head = heads.load(task.head(), source, origin.run.model)
        heads.mend(model, head)
    else:
        model, tokenizer, head = _load_base(task, source, origin)
    tried = "max_length" in origin.known
    config = adapters.check(origin.folder) if origin.is_adapter and not tried else {}
    max_length, _ = lengths.usable(
        tokenizer,
        model,
        origin.known.get("max_length"),
        tried=tried,
        reserved=config.get("num_virtual_tokens") or 0,
    )
    columns = columns_of(_with_columns(origin))
    cutting = _cutting(origin.known, max_length, tokenizer, model)
    return LoadedModel(name, task, model, tokenizer, cutting, head, text_columns=columns)


def _with_columns(origin: Origin) -> dict[str, Any]:
    """The facts, with the columns of the texts, which facts of before lack."""
    return ({"text_column": origin.run.data.text} if origin.run else {}) | dict(origin.known)


def execution_of(loaded: LoadedModel) -> Execution:
    """How the loaded model is run, on the device that it is on by now."""
    from featherweight.engine.running.execution import Execution

    model = loaded.model
    plain = adapters.base_of(model)
    frame = Frame.of(loaded.tokenizer)
    execution = Execution(plain, loaded.tokenizer.pad_token_id, frame=frame, reads_tokens=loaded.task.reads_tokens)
    if loaded.task.scores_tokens:
        execution.score_next_tokens(plain)
    if plain is not model:
        execution.adopt(model)
    return execution


def _load_whole(name: str, folder: Path) -> LoadedModel:
    """A model that was tuned as a whole, with the facts beside it."""
    known = read_facts(folder)
    source = models.find(str(folder))
    task = _task(known, source, folder)
    model, tokenizer, head = heads.load(task.head(), source, ModelSection(name=source.name))
    max_length, _ = lengths.usable(tokenizer, model, known.get("max_length"), tried="max_length" in known)
    cutting = _cutting(known, max_length, tokenizer, model)
    loaded = LoadedModel(name, task, model, tokenizer, cutting, head, **_beside(known))
    if base := known.get("base_model", {}):
        origin = Origin(folder, known, base.get("name"), base.get("revision"), base.get("fingerprint"), None)
        loaded = replace(loaded, untuned=partial(load_untuned, name, origin))
    return loaded


def _cutting(known: Mapping[str, Any], max_length: int, tokenizer: Any, model: Any) -> Cutting:
    """What becomes of long texts, as ``featherweight.json`` has it."""
    cutting = Cutting.of(known, max_length)
    return lengths.with_reply(cutting, tokenizer, model, tried=cutting.max_target_length is not None)


def _beside(known: Mapping[str, Any]) -> dict[str, Any]:
    """What ``featherweight.json`` has of answers that the model itself does not know."""
    fitted = {key: known[key] for key in kind_of(known).known if key in known}
    return {"fitted": fitted, "text_columns": columns_of(known)}


def _load_base(task: Task, source: ModelSource, origin: Origin) -> tuple[Any, Any, list[str]]:
    """An adapter's base model, held as it was, with its own head, or with a fresh one where that has other labels and
    the adapter brings one."""
    try:
        return heads.load(task.head(), source, ModelSection(name=source.name, **origin.holding))
    except ConfigError:
        if not adapters.check(origin.folder).get("modules_to_save"):
            raise
        return heads.load(task.head(), source, ModelSection(name=source.name, head="new", **origin.holding))


def _load_plain(name: str, fresh: Callable[[], Task] | None) -> LoadedModel:
    source = models.find(name)
    task = stored_task(models.load_config(source))
    if task is not None and task.scores_tokens and fresh is not None:
        task = fresh()  # a model that continues texts was not tuned for anything yet
    if task is None and fresh is None:
        raise ModelError(f"{name}: has no head, so it can't answer; tune it first")
    task = task or fresh()  # type: ignore[misc]
    model, tokenizer, _ = heads.load(task.head(), source, ModelSection(name=name))
    max_length, _ = lengths.usable(tokenizer, model, None, task.Columns.longest)
    return LoadedModel(name, task, model, tokenizer, _cutting({}, max_length, tokenizer, model))


def _task(known: Mapping[str, Any], source: ModelSource, folder: Path) -> Task:
    """What ``featherweight.json`` says, or else the stored head: generic names for as many outputs as an adapter's head
    has, or those of the base model's configuration.

    Raises:
        ModelError: the file says of what kind the answers are, and lacks what these can't be had without.
    """
    try:
        return task_of(known)
    except KeyError as error:
        if known.get("answer", FIRST) != FIRST:
            raise ModelError(
                f"{folder / FACTS}: lacks {error.args[0]!r}, without which nobody knows what the model answers; "
                "bring the file back as the run wrote it"
            ) from None
    config = models.load_config(source)
    if (width := _width_of(folder)) is not None:
        return task_of({**known, "labels": [f"LABEL_{index}" for index in range(width)]})
    return stored_task(config) or task_of({**known, "labels": stored_labels(config)})


def _width_of(adapter: Path) -> int | None:
    """How many outputs an adapter's own head has."""
    if not (adapter / adapters.WEIGHTS).is_file():
        return None
    header = read_header(adapter / adapters.WEIGHTS)
    found = [
        info.shape[0]
        for key, info in header.items()
        if key.endswith("weight") and ".lora_" not in key and len(info.shape) == 2
    ]
    return min(found, default=None)
