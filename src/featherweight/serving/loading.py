"""Whatever can answer, loaded: a run, an adapter folder, a model folder, a hub id, a GGUF file, a package's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight import recipe as recipes
from featherweight.collector import importing_models
from featherweight.errors import ConfigError, ModelError
from featherweight.methods import adapters
from featherweight.recipe import ModelSection
from featherweight.registry import METHODS, TASKS
from featherweight.runs import FACTS, RunDirectory
from featherweight.serving.facts import read_facts
from featherweight.sources import archives, models
from featherweight.sources.models import ModelSource
from featherweight.sources.tensors import read_header

if TYPE_CHECKING:
    from featherweight.engine.execution import Execution


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer.

    Attributes:
        name: what was asked for.
        task: knows the labels.
        model: in evaluation mode.
        tokenizer: with a pad token.
        max_length: tokens after which texts are cut.
        temperature: fitted on held-out rows; dividing the logits by it calibrates the probabilities. None if unknown.
        thresholds: confidence to abstain below, for each wanted error rate, as in ``metrics.json``.
    """

    name: str
    task: Any
    model: Any
    tokenizer: Any
    max_length: int
    temperature: float | None = None
    thresholds: Sequence[dict[str, Any]] = ()


def facts(
    task: Any, source: ModelSource, max_length: int, pad_token_id: int, calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """What a model needs to answer, beside what PEFT or transformers keeps: ``featherweight.json`` in its folder.

    Args:
        calibration: of the tuned model, as in ``metrics.json``.
    """
    return {
        "schema_version": 1,
        "task": task.name,
        "labels": list(task.labels),
        "max_length": max_length,
        "pad_token_id": pad_token_id,
        "temperature": calibration["temperature"],
        "thresholds": calibration["thresholds"],
        "base_model": {"name": source.name, "revision": source.revision, "fingerprint": source.fingerprint},
    }


@importing_models()
def load(name: str, fresh_labels: Callable[[], Sequence[str]] | None = None) -> LoadedModel:
    """Load a run, an adapter or any model.

    Args:
        fresh_labels: gives the class names of a model that has no head yet; one is drawn for them. Without it, such a
            model is refused.

    Raises:
        ModelError: it can't be found, trusted or read, or was made for another base model.
        ConfigError: the name means nothing.
    """
    path = archives.unpacked(name)
    run = RunDirectory(path)
    if (path / adapters.CONFIG).is_file() or run.recipe.is_file():
        models.require_plain_files(path)
    if run.recipe.is_file():
        metrics = run.read_metrics()
        recipe = recipes.load(run.recipe)
        artefact = METHODS[recipe.method.name].artefact
        base = (recipe.model.name, recipe.model.revision)
        return _load_tuned(name, path / artefact, base, metrics["base_model_fingerprint"])
    if (path / adapters.CONFIG).is_file() or (path / FACTS).is_file():
        return _load_tuned(name, path, None, None)
    return _load_plain(name, fresh_labels)


def execution_of(loaded: LoadedModel) -> Execution:
    """How the loaded model is run, on the device that it is on by now."""
    from featherweight.engine.execution import Execution

    model = loaded.model
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return Execution(plain, loaded.tokenizer.pad_token_id)


def _load_tuned(name: str, folder: Path, base: tuple[str, str | None] | None, fingerprint: str | None) -> LoadedModel:
    """An adapter on its base, or a whole tuned model, as the folder has it."""
    known = read_facts(folder)
    if not (folder / adapters.CONFIG).is_file():
        source = models.find(str(folder))
    else:
        config = adapters.check(folder)
        recorded = known.get("base_model", {})
        where, revision = base or (
            recorded.get("name") or config.get("base_model_name_or_path"),
            recorded.get("revision") or config.get("revision"),
        )
        if not where:
            raise ModelError(f"{folder / adapters.CONFIG}: does not say which base model the adapter is for")
        source = models.find(where, revision)
        wanted = fingerprint or recorded.get("fingerprint")
        if wanted and source.fingerprint != wanted:
            raise ModelError(
                f"{folder}: the adapter was made for {where} as it was ({wanted[:12]}), which has changed since "
                f"({source.fingerprint[:12]}); bring that version back"
            )
    task = TASKS[known.get("task", "sequence-classification")](known.get("labels") or _stored_labels(source, folder))
    model, tokenizer, head = _load_base(task, source, folder)
    if (folder / adapters.CONFIG).is_file():
        model = adapters.load(model, folder, [] if task.has_head(models.load_config(source)) else head)
    max_length, _ = task.max_length(tokenizer, model, known.get("max_length"))
    temperature, thresholds = known.get("temperature"), known.get("thresholds", ())
    return LoadedModel(name, task, model, tokenizer, max_length, temperature, thresholds)


def _load_base(task: Any, source: ModelSource, folder: Path) -> tuple[Any, Any, list[str]]:
    """The base model with its own head, or with a fresh one where that has other labels and the adapter brings one."""
    try:
        return task.load_model(source, ModelSection(name=source.name))  # type: ignore[no-any-return]
    except ConfigError:
        has_adapter = (folder / adapters.CONFIG).is_file()
        if not (has_adapter and adapters.check(folder).get("modules_to_save")):
            raise
        return task.load_model(source, ModelSection(name=source.name, head="new"))  # type: ignore[no-any-return]


def _load_plain(name: str, fresh_labels: Callable[[], Sequence[str]] | None) -> LoadedModel:
    source = models.find(name)
    task_class = TASKS["sequence-classification"]
    if task_class.has_head(models.load_config(source)):
        labels: Sequence[str] = _stored_labels(source, None)
    elif fresh_labels is not None:
        labels = fresh_labels()
    else:
        raise ModelError(f"{name}: has no classification head, so it can't answer; tune it first")
    task = task_class(labels)
    model, tokenizer, _ = task.load_model(source, ModelSection(name=name))
    max_length, _ = task.max_length(tokenizer, model, None)
    return LoadedModel(name, task, model, tokenizer, max_length)


def _stored_labels(source: ModelSource, adapter: Path | None) -> list[str]:
    """The base configuration's label names, or generic ones for as many outputs as the adapter's head has."""
    if adapter is not None and (adapter / adapters.WEIGHTS).is_file():
        header = read_header(adapter / adapters.WEIGHTS)
        heads = [
            info.shape[0]
            for key, info in header.items()
            if key.endswith("weight") and ".lora_" not in key and len(info.shape) == 2
        ]
        if heads:
            return [f"LABEL_{index}" for index in range(min(heads))]
    config = models.load_config(source)
    return [str(config.id2label[index]) for index in range(len(config.id2label))]
