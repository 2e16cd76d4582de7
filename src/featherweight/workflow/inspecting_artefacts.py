"""Looking into a model, an adapter or a run without loading it: headers and JSON, and whether every file is sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featherweight import recipe as recipes
from featherweight.answers import kind_of
from featherweight.engine.training import checkpoints
from featherweight.errors import ConfigError, FeatherweightError
from featherweight.inference.facts import read_facts
from featherweight.methods.peft import adapters
from featherweight.recipe import PACKAGE_PREFIX
from featherweight.registry import METHODS, did_you_mean
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.sources import archives, gguf_files, models, packages, tensors
from featherweight.sources.json_files import read_json
from featherweight.sources.tensors import TensorInfo
from featherweight.storage.names import beside

_CONFIG_FACTS = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")


def inspect_model(name: str, *, console: Console | None = None) -> dict[str, Any]:
    """Architecture, size, dtypes and labels of a model, and that each of its files is sound.

    Raises:
        ModelError: it can't be found or trusted, or a file is damaged; the message names the file.
    """
    console = console or Console(quiet=True)
    path = packages.locate(name) if name.startswith(PACKAGE_PREFIX) else Path(name)
    if path.suffix == ".gguf" and path.is_file():
        found = {"model": name, **gguf_files.describe(path)}
    else:
        source = models.find(name)
        config = read_json(source.folder / "config.json")
        files = models.weight_files(source.folder)
        found = {
            "model": name,
            "revision": source.revision,
            "architectures": config.get("architectures"),
            **{key: config[key] for key in _CONFIG_FACTS if key in config},
            "head": _head_of(config),
            "labels": _labels_of(config),
            **_weights([*files]),
            "fingerprint": source.fingerprint,
            "files": {file.name: "sound" for file in files},
        }
    console.show(tables.key_values(name, found))
    return found


def inspect_adapter(name: str, *, console: Console | None = None) -> dict[str, Any]:
    """Kind, rank, targets, base model and labels of an adapter, and that its files are sound.

    Args:
        name: adapter folder, archive, hub id, or a run, whose adapter is meant.

    Raises:
        ModelError: it is no adapter, can't be trusted, or is damaged; the message names the file.
    """
    console = console or Console(quiet=True)
    folder, commit = models.placed(name)
    folder = folder / "adapter" if (folder / "adapter").is_dir() else folder
    config = adapters.check(folder)
    known = read_facts(folder)
    base = known.get("base_model", {})
    keys = ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "modules_to_save")
    found = {
        "adapter": str(folder) if str(folder) == name else name,
        **({"revision": commit} if commit else {}),
        **{key: config.get(key) for key in keys},
        "base_model": base.get("name") or config.get("base_model_name_or_path"),
        "base_model_revision": base.get("revision") or config.get("revision"),
        "base_model_fingerprint": base.get("fingerprint"),
        "task": known.get("task"),
        **{key: known.get(key) for key in kind_of(known).known},
        "max_length": known.get("max_length"),
        **_weights([folder / adapters.WEIGHTS]),
        "files": {adapters.CONFIG: "sound", adapters.WEIGHTS: "sound"},
    }
    console.show(tables.key_values(name, {key: one for key, one in found.items() if not _is_table(one)}))
    return found


def inspect_run(name: str, *, console: Console | None = None) -> dict[str, Any]:
    """How far a run has come, and which of its files are sound; a damaged one is named and not raised.

    Raises:
        ConfigError: the folder holds no run.
    """
    console = console or Console(quiet=True)
    run = RunDirectory(archives.unpacked(name))
    if not run.environment.is_file():
        near = "" if run.path.is_dir() else did_you_mean(name, beside(run.path))
        raise ConfigError(f"{name}: holds no run (no environment.json){near}")
    files: dict[str, str] = {}
    found: dict[str, Any] = {
        "run": name,
        "state": "complete" if run.is_complete else "unfinished; --resume continues it",
    }
    with _noted(files, "recipe.toml"):
        if run.recipe.is_file():
            recipe = recipes.load(run.recipe)
            found |= {"model": recipe.model.name, "data": ", ".join(recipe.data.sources), "method": recipe.method.name}
            artefact = METHODS[recipe.method.name].artefact
            if run.is_complete:
                with _noted(files, artefact):
                    (inspect_adapter if artefact == "adapter" else inspect_model)(str(run.path / artefact))
    found["steps"] = max((event.get("step", 0) for event in run.read_history()), default=0)
    if run.is_complete:
        with _noted(files, "metrics.json"):
            metrics = run.read_metrics()
            found["headline"] = metrics.get("headline")
            split = metrics.get("evaluated_split", "validation")
            for model in ("base", "tuned"):
                with _noted(files, f"predictions/{model}-{split}.parquet"):
                    run.read_predictions(model, split)
    for path in sorted(run.checkpoints.glob("step-*")) if run.checkpoints.is_dir() else []:
        with _noted(files, f"checkpoints/{path.name}"):
            checkpoints.read(path)
    found["files"] = files
    console.show(
        tables.key_values(name, found | {"files": "\n".join(f"{key}: {value}" for key, value in files.items())})
    )
    return found


@contextmanager
def _noted(files: dict[str, str], name: str) -> Iterator[None]:
    """Write down that a file is sound, or what is wrong with it."""
    try:
        yield
    except FeatherweightError as error:
        files[name] = str(error).splitlines()[0]
    else:
        files[name] = "sound"


def _weights(files: Iterable[Path]) -> dict[str, Any]:
    """Size and dtypes, from the headers; the weights pass by in blocks to see that all of them are finite."""
    infos: list[TensorInfo] = []
    for path in files:
        infos += tensors.read_header(path).values()
        tensors.require_finite(path)
    dtypes: Counter[str] = Counter()
    for info in infos:
        dtypes[info.dtype] += info.elements
    return {"parameters": sum(dtypes.values()), "tensors": len(infos), "dtypes": dict(dtypes)}


def _head_of(config: Mapping[str, Any]) -> str | None:
    """The task that the stored head is for, as the architecture's name has it."""
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return first.partition("For")[2] or None


def _is_table(value: Any) -> bool:
    """Whether it is more than a line can hold."""
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _labels_of(config: Mapping[str, Any]) -> list[str] | None:
    labels = config.get("id2label")
    return [str(label) for label in labels.values()] if isinstance(labels, dict) else None
