"""What all PEFT methods share: injecting, saving, and loading an adapter that is exactly what it claims to be."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError, ModelError
from featherweight.methods.peft import strangers
from featherweight.process.quiet import quiet
from featherweight.sources.json_files import read_json
from featherweight.sources.models import refuse_remote_code, require_plain_files
from featherweight.sources.tensors import read_header, require_finite

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

# PEFT has them as sets, whose order is another in every process.
_SETS = ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules")

# What PEFT raises for a configuration that it can't follow on this model.
_PEFT_ERRORS = (
    ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError, AssertionError, ImportError
)  # fmt: skip


def inject(model: Any, config: Callable[[], Any], first: Callable[[Any, Any], None] = lambda *given: None) -> Any:
    """Wrap a model by PEFT. Raises ConfigError where PEFT refuses the options, or refuses them for this architecture.

    Args:
        config: makes PEFT's configuration.
        first: what is to be done with the model and the configuration before.
    """
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = config()
            first(model, made)
            return _knowing_embeddings(get_peft_model(model, made), model)
        except _PEFT_ERRORS as error:
            raise ConfigError(f"method: PEFT refuses these options for this model: {_first_line(error)}") from error


def base_of(model: Any) -> Any:
    """The transformers model: what stands under PEFT's where there is one, else the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _knowing_embeddings(adapted: Any, model: Any) -> Any:
    """PEFT looks for a model's embeddings among its parameters, where those that are held are not."""
    if getattr(adapted, "word_embeddings", model) is None:
        adapted.word_embeddings = model.get_input_embeddings()
    return adapted


def save(model: Any, folder: Path, base_model: str, revision: str | None) -> None:
    """Write ``adapter_model.safetensors`` and ``strangers.json``; equal runs give equal bytes.

    Args:
        base_model: what stock PEFT is to load the adapter on: hub id, path, or the recipe's name for it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # "auto" would ask the hub whether the embedding was resized; it never is here.
        model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; the report writes a real one
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base_model, "revision": revision, "inference_mode": True}
    config |= {key: sorted(set(config[key])) for key in _SETS if isinstance(config.get(key), list)}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(model: Any, folder: Path, fresh: Sequence[str], trainable: bool = False, **changes: Any) -> Any:
    """Put the adapter in ``folder`` on a model, refusing one that does not fit it in every tensor.

    Args:
        fresh: modules of ``model`` that its own checkpoint lacks, so that the adapter must bring them.
        trainable: whether what it is made of requires gradients.
        changes: laid over what the adapter's configuration has.

    Raises:
        ModelError: the adapter is a pickle, is damaged, lacks its head, or was made for another base model.
    """
    config = check(folder)
    from peft import PeftConfig, PeftModel

    stored = {name: info.shape for name, info in read_header(folder / WEIGHTS).items()}
    modules, parameters = ([name for name, _ in named] for named in (model.named_modules(), model.named_parameters()))
    config = strangers.without_patterns(config, modules, folder / CONFIG, parameters)
    config |= {key: value for key, value in changes.items() if key in config}
    for module in sorted({*fresh, *(config.get("modules_to_save") or [])}):
        if _has_module(model, module) and not any(f".{module}." in name for name in stored):
            raise ModelError(
                f"{folder}: the adapter lacks the head {module!r}, so its answers would be random; "
                "save it with modules_to_save"
            )
    with quiet("peft"):  # it warns of missing keys, which become an error that says more
        try:
            known = PeftConfig.from_peft_type(**PeftConfig.check_kwargs(**config))
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, config=known)
            _knowing_embeddings(adapted, model)
        except _PEFT_ERRORS as error:
            raise ModelError(f"{folder}: the adapter does not fit this base model: {_first_line(error)}") from error
    expected = {name: tuple(value.shape) for name, value in state_of(adapted).items()}
    different = sorted(name for name in {*expected, *stored} if expected.get(name) != stored.get(name))
    if different:
        name = different[0]
        raise ModelError(
            f"{folder}: the adapter does not fit this base model: {name!r} is {stored.get(name, 'missing')} in the "
            f"file and {expected.get(name, 'unknown')} in the model; was it made for another one?"
        )
    return adapted.eval()


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """What an adapter of PEFT's consists of, by the names that it has in its file."""
    from peft import get_peft_model_state_dict

    with quiet("peft"):  # it warns of matrices without a row, as AdaLoRA leaves them where nothing helped
        # "auto" would ask the hub.
        return get_peft_model_state_dict(model, save_embedding_layers=False)  # type: ignore[no-any-return]


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter's file holds, by the same names."""
    from safetensors.torch import load_file

    return load_file(folder / WEIGHTS)


def check(folder: Path) -> dict[str, Any]:
    """An adapter folder's configuration, once the folder is known to hold no pickle, no code and no impossible number.

    Raises:
        ModelError: naming the file and what is wrong with it.
    """
    require_plain_files(folder)
    config = read_json(folder / CONFIG)
    refuse_remote_code(folder)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            f"{folder}: the adapter is only there as adapter_model.bin, a pickle, which can run code when it is read; "
            "convert it to safetensors first"
            if pickled
            else f"{folder}: there is no {WEIGHTS}"
        )
    strangers.check(config, folder / CONFIG, read_header(folder / WEIGHTS))
    require_finite(folder / WEIGHTS)
    return config


def virtual_tokens(model: Any) -> int:
    """How many tokens a model of PEFT's puts before every text; 0 for any other model."""
    configs = getattr(model, "peft_config", {}).values()
    return max((one.num_virtual_tokens for one in configs if one.is_prompt_learning), default=0)


def is_head_alone(config: Mapping[str, Any]) -> bool:
    """Whether an adapter adapts no module and brings a head, going by its configuration."""
    from peft.utils.constants import DUMMY_TARGET_MODULES

    return config.get("target_modules") in (DUMMY_TARGET_MODULES, [DUMMY_TARGET_MODULES])


def _has_module(model: Any, name: str) -> bool:
    return any(f".{known}".endswith(f".{name}") for known, _ in model.named_modules())


def _first_line(error: BaseException) -> str:
    """The first sentences, cut where PEFT goes on to list half the model."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else text[:300] + "...") or type(error).__name__
