"""Foundation models and their tokenizers: hub id, folder, ``.gguf`` file, or a file that a package ships.

Whatever the kind, a model ends as a local folder that transformers reads: safetensors and JSON only. Remote code is
never run and nothing is unpickled.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.errors import ConfigError, ModelError, first_line
from featherweight.recipe import PACKAGE_PREFIX
from featherweight.registry import did_you_mean
from featherweight.sources import archives, hub, packages
from featherweight.sources.json_files import read_json
from featherweight.sources.tensors import read_header, shard_names
from featherweight.storage.cache import cached, file_hash, key_of
from featherweight.storage.names import beside, exists

INDEX = "model.safetensors.index.json"
_UNPACKING = 2  # goes up where the same GGUF file becomes another folder
_FLOATING = {"F64", "F32", "F16", "BF16"}  # safetensors' names
_TEXT_ALONE = {"input_ids", "attention_mask", "token_type_ids"}  # what a tokenizer may make of a text


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies.

    Attributes:
        name: as the recipe has it; what model cards and adapters record.
        folder: local folder with ``config.json`` and weights.
        gguf: the file that ``folder`` was unpacked from, for GGUF.
        revision: the hub's commit, where it came from a hub.
    """

    name: str
    folder: Path
    gguf: Path | None = None
    revision: str | None = None

    @property
    def fingerprint(self) -> str:
        """The hub's commit, or a hash of the configuration and the weights."""
        if self.revision is not None:
            return self.revision
        if self.gguf is not None:
            return file_hash(self.gguf)
        files = sorted([self.folder / "config.json", *self.folder.glob("*.safetensors")])
        return key_of(*(file_hash(path) for path in files))

    @property
    def from_pretrained(self) -> dict[str, Any]:
        """Arguments for transformers' ``from_pretrained`` that find this model and nothing else."""
        return {
            "pretrained_model_name_or_path": str(self.folder),
            "local_files_only": True,
            "trust_remote_code": False,
        }


def placed(name: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Where on this machine lies what a name means: a path, what an archive or a package holds, or what the hub has as
    ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, downloaded.

    Returns:
        The file or folder, and the hub's commit where it came from there.

    Raises:
        ConfigError: a package or path that isn't there.
        ModelError: an archive can't be trusted; the hub has no such repository, or can't be reached.
    """
    if name.startswith(PACKAGE_PREFIX):
        return packages.locate(name), None
    path = archives.unpacked(name)
    if exists(path):
        return path, None
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix == ".gguf" or _is_among_runs(path):
        raise ConfigError(f"model {name!r}: no such file or folder{did_you_mean(name, beside(path))}")
    repository, pinned = hub.split_revision(name)
    return hub.download_model(repository, revision or pinned)


def find(name: str, revision: str | None = None) -> ModelSource:
    """Find a model, downloading it where it lies on the hub.

    Raises:
        ConfigError: a package or path that isn't there.
        ModelError: the hub has no such model, can't be reached, or what it has can't be trusted.
    """
    path, commit = placed(name, revision)
    if commit is not None:
        return _checked(ModelSource(hub.split_revision(name)[0], path, revision=commit))
    if not path.is_dir():
        if path.suffix != ".gguf":
            raise ConfigError(f"model.name: {name}: name the model's folder, or a .gguf file")
        return ModelSource(name, _unpack_gguf(name, path), gguf=path)
    return _checked(ModelSource(name, path))


def load_tokenizer(source: ModelSource) -> Any:
    """The model's own tokenizer.

    Raises:
        ModelError: it can't be loaded, or makes more of a text than token ids.
    """
    from transformers import AutoTokenizer

    with _explained(source.name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(**source.from_pretrained)
    try:
        made = tokenizer(["a"])
    except Exception as error:
        raise ModelError(f"{source.name}: its tokenizer takes no text alone: {first_line(error)}") from error
    if more := sorted({*made} - _TEXT_ALONE):
        raise ModelError(f"{source.name}: its tokenizer gives the model {', '.join(more)} too, which is not supported")
    if any(made.get("token_type_ids", [[]])[0]):
        raise ModelError(f"{source.name}: its tokenizer gives a text token types other than 0, which is not supported")
    return tokenizer


def load_model(
    source: ModelSource, auto_class: str, config: Any, dtype: str = "float32", **options: Any
) -> tuple[Any, list[str]]:
    """Load the weights under a task's head.

    Args:
        auto_class: name of the transformers Auto class, such as ``AutoModelForSequenceClassification``.
        config: the model's configuration, with what the task sets in it.
        dtype: that the weights get; what the checkpoint lacks is fp32.
        options: more of what ``from_pretrained`` takes.

    Returns:
        The model in evaluation mode, and the names of the parameters that the checkpoint lacks and that are
        therefore freshly initialised from torch's global generator.
    """
    import torch
    import transformers

    generator = torch.get_rng_state()
    with _explained(source.name, "model"):
        model, loading = getattr(transformers, auto_class).from_pretrained(
            **source.from_pretrained,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    if dtype != "float32":
        torch.set_rng_state(generator)
        _initialise_in_fp32(model, loading["missing_keys"])
    return model.eval(), sorted(loading["missing_keys"])


def _initialise_in_fp32(model: Any, missing: Container[str]) -> None:
    """Draw what the checkpoint lacks again, and compute what no checkpoint has, as if the model were loaded in fp32."""
    import torch

    for prefix, module in model.named_modules():
        vars(module).pop("_is_hf_initialized", None)  # transformers' mark
        for key, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is None:
                continue
            lacking = f"{prefix}.{key}".lstrip(".") in missing
            computed = key in module._non_persistent_buffers_set and value.is_floating_point()
            if lacking:
                module._parameters[key] = torch.nn.Parameter(torch.empty_like(value, dtype=torch.float32))
            elif computed:
                module._buffers[key] = value.float()
            else:
                value._is_hf_initialized = True
    model.initialize_weights()


def stored_dtype(source: ModelSource) -> str:
    """torch's name for the narrowest dtype known here that the weights lose nothing in."""
    stored = {info.dtype for path in weight_files(source.folder) for info in read_header(path).values()}
    return "bfloat16" if stored & _FLOATING == {"BF16"} else "float32"


def without_weights(model_class: Any, config: Any) -> Any:
    """A model whose modules are as ``from_pretrained`` makes them, and whose matrices are one zero each in memory."""
    import torch
    from transformers import initialization

    with torch.device("meta"), initialization.no_init_weights(), initialization.meta_device_safe_creation_ops():
        model = model_class(config).eval()
    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, value in kept.items():
                if value is not None:
                    number = torch.zeros((), dtype=value.dtype)
                    filled = number.expand(value.shape) if value.ndim > 1 else number.repeat(value.shape)
                    kept[name] = torch.nn.Parameter(filled, False) if kept is module._parameters else filled
    return model


def require_finite(model: Any, name: str, apart_from: Sequence[str]) -> None:
    """Refuse a model with NaN or infinity in its weights, but for the modules named, which may be fresh.

    Raises:
        ModelError: naming the tensor.
    """
    import torch

    for key, value in model.state_dict().items():
        inside = any(f".{module}." in f".{key}." for module in apart_from)
        if not inside and value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{name}: the tensor {key!r} holds NaN or infinity; the model's file is damaged")


def load_config(source: ModelSource) -> Any:
    """The model's configuration, without its weights."""
    from transformers import AutoConfig

    with _explained(source.name, "configuration"):
        return AutoConfig.from_pretrained(**source.from_pretrained)


def refuse_remote_code(folder: Path) -> None:
    """Refuse a folder whose JSON files ask transformers to import code that they name."""
    for path in sorted(folder.glob("*.json")):
        if path.name not in {"config.json", "tokenizer_config.json", "adapter_config.json", "processor_config.json"}:
            continue
        if "auto_map" in read_json(path):
            raise ModelError(f"{path}: asks to run code of its own ('auto_map'), which Featherweight never does")


def require_plain_files(folder: Path) -> None:
    """Refuse a folder with a pipe or device in it, or a link that leads out of it: reading would hang, or leak.

    A hub's cache keeps the files of a snapshot beside it and links to them; such links stay in the cache's folder for
    that repository.
    """
    home = folder.resolve()
    bounds = home.parent.parent if home.parent.name == "snapshots" else home
    try:
        for path in sorted(folder.iterdir()):
            target = path.resolve()
            if path.is_symlink() and not target.is_relative_to(bounds):
                raise ModelError(f"{path}: a link that leads out of its folder; put the file itself there")
            if not (target.is_file() or target.is_dir()):
                raise ModelError(f"{path}: neither a file nor a folder; take it out")
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{folder}: can't be looked through: {error}") from None


def weight_files(folder: Path) -> list[Path]:
    """The model's files of weights: those that its index names, or all.

    Raises:
        ModelError: the index names a file that is not there or not in the folder.
    """
    index = folder / INDEX
    if index.is_file() and not (folder / "model.safetensors").is_file():
        return [folder / name for name in shard_names(read_json(index), index)]
    return sorted(folder.glob("*.safetensors"))


def _unpack_gguf(name: str, path: Path) -> Path:
    """A GGUF file as a folder of safetensors in fp32 and JSON, in the cache.

    Reading GGUF takes transformers tens of seconds for a model of 135 M parameters, and what needs the model reads it
    more than once.
    """
    import torch
    import transformers
    from safetensors.torch import save_file

    def build(folder: Path) -> None:
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
        with _explained(name, "GGUF file"):
            transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(str(folder))
            config = transformers.AutoConfig.from_pretrained(**source)
            continues = type(config) in transformers.AutoModelForCausalLM._model_mapping  # and has a head that does
            loader = transformers.AutoModelForCausalLM if continues else transformers.AutoModel
            model = loader.from_pretrained(**source, dtype=torch.float32)
        # transformers takes the model for quantised and would not save it, but the weights are plain fp32 by now.
        model.config.__dict__.pop("quantization_config", None)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(str(folder))
        save_file(_each_once(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})

    return cached("gguf", key_of(_UNPACKING, file_hash(path), transformers.__version__), build)


def _each_once(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are another one under a second name, as a head is that shares the embeddings' weights."""
    places = {value.data_ptr(): name for name, value in reversed([*tensors.items()])}
    return {name: value for name, value in tensors.items() if places[value.data_ptr()] == name}


def _checked(source: ModelSource) -> ModelSource:
    folder = source.folder
    require_plain_files(folder)
    if not (folder / "config.json").is_file():
        hint = "; it is an adapter: run `featherweight evaluate` on it" if _is_adapter(folder) else ""
        raise ModelError(f"{source.name}: {folder} has no config.json, so it is no model folder{hint}")
    refuse_remote_code(folder)
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for end in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in folder.glob(end))
        if pickles:
            raise ModelError(
                f"{source.name}: the weights are only there as {pickles[0]}, a pickle, which can run code when it is "
                "read; convert them to safetensors first"
            )
        raise ModelError(f"{source.name}: {folder} holds no weights (*.safetensors)")
    for path in weight_files(folder):
        read_header(path)
    return source


def _is_among_runs(path: Path) -> bool:
    """Whether a name that could be a hub's, ``runs/demo``, would lie beside runs or adapters on this machine."""
    marks = ("recipe.toml", "adapter_config.json")
    return any((Path(other) / mark).is_file() for other in beside(path) for mark in marks)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Map whatever transformers raises for a broken model to one line, and keep its load reports quiet."""
    from safetensors import SafetensorError
    from transformers.utils import logging as verbosity

    logger = logging.getLogger("transformers")
    level = logger.level
    bars = verbosity.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    verbosity.disable_progress_bar()
    try:
        yield
    except (
        OSError, ValueError, LookupError, ImportError, AttributeError, RuntimeError, TypeError, ArithmeticError,
        AssertionError, SafetensorError,
    ) as error:  # fmt: skip
        raise ModelError(f"{name}: the {what} can't be loaded: {first_line(error)}") from error
    finally:
        logger.setLevel(level)
        if bars:
            verbosity.enable_progress_bar()
