"""What all PEFT methods share: injecting, saving, and loading an adapter that is exactly what it claims to be."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featherweight.errors import ConfigError, ModelError
from featherweight.sources.models import read_json, refuse_remote_code

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def inject(model: Any, config: Any) -> Any:
    """Wrap a model by PEFT. Raises ConfigError where PEFT refuses the options for this architecture."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_peft_model(model, config)
        except (ValueError, TypeError, NotImplementedError, KeyError, ImportError) as error:
            raise ConfigError(f"method: PEFT refuses these options for this model: {error}") from error


def save(model: Any, folder: Path, base_model: str, revision: str | None) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``; equal runs give equal bytes.

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
    for key, value in config.items():
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            config[key] = sorted(set(value))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(model: Any, folder: Path, fresh: Sequence[str]) -> Any:
    """Put the adapter in ``folder`` on a model, refusing one that does not fit it in every tensor.

    Args:
        fresh: modules of ``model`` that its own checkpoint lacks, so that the adapter must bring them.

    Raises:
        ModelError: the adapter is a pickle, is damaged, lacks its head, or was made for another base model.
    """
    config = check(folder)
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / WEIGHTS}: not readable as safetensors: {error}") from None
    for module in sorted({*fresh, *(config.get("modules_to_save") or [])}):
        if _has_module(model, module) and not any(f".{module}." in name for name in stored):
            raise ModelError(
                f"{folder}: the adapter lacks the head {module!r}, so its answers would be random; "
                "save it with modules_to_save"
            )
    with _quiet():
        try:
            adapted = PeftModel.from_pretrained(model, str(folder))
        except (ValueError, TypeError, RuntimeError, KeyError, NotImplementedError) as error:
            raise ModelError(f"{folder}: the adapter does not fit this base model: {_first_line(error)}") from error
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)  # "auto" would ask the hub
    expected = {name: tuple(value.shape) for name, value in state.items()}
    different = sorted(name for name in {*expected, *stored} if expected.get(name) != stored.get(name))
    if different:
        name = different[0]
        raise ModelError(
            f"{folder}: the adapter does not fit this base model: {name!r} is {stored.get(name, 'missing')} in the "
            f"file and {expected.get(name, 'unknown')} in the model; was it made for another one?"
        )
    return adapted.eval()


def check(folder: Path) -> dict[str, Any]:
    """An adapter folder's configuration, once the folder is known to hold no pickle and no code."""
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
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT warns of missing keys, which the caller turns into an error that says more."""
    logger = logging.getLogger("peft")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _has_module(model: Any, name: str) -> bool:
    return any(f".{known}".endswith(f".{name}") for known, _ in model.named_modules())


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
