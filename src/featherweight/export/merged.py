"""One plain transformers folder: weights with the update added in, tokenizer, label names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from featherweight.errors import UnprovenError
from featherweight.export import Subject
from featherweight.methods.peft.tuner import name_of
from featherweight.registry import METHODS
from featherweight.sources.held import release


class Merged:
    """What ``AutoModelForSequenceClassification.from_pretrained`` loads, without PEFT."""

    is_exact: ClassVar[bool] = True

    def require(self, artefact: Path) -> None:
        pass

    def write(self, subject: Subject, folder: Path) -> None:
        merge(subject.model).save_pretrained(str(folder))
        subject.tokenizer.save_pretrained(str(folder))


def merge(model: Any) -> Any:
    """A model without PEFT's layers, with the same outputs; in fp32, in whatever its weights were held.

    Raises:
        UnprovenError: the adapter can't be merged, or the merged weights are not finite.
    """
    release(model)
    if not hasattr(model, "peft_config"):
        return model
    if reason := unmergeable(model):
        raise UnprovenError(f"{reason}; use --format adapter")
    try:
        return _without_wrappers(model.merge_and_unload(safe_merge=True))
    except ValueError as error:
        reason = "gives weights that are no numbers" if "NaN" in str(error) else f"does not work: {error}"
        raise UnprovenError(f"merging {reason}") from error


def _without_wrappers(model: Any) -> Any:
    """With the trained modules in their own places, where a tuner of PEFT's leaves them beside those of before."""
    from peft.utils.other import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapter])
    return model


def unmergeable(model: Any) -> str | None:
    """Why an adapter can't be merged into its base model; None where it can, or where there is none."""
    for config in getattr(model, "peft_config", {}).values():
        if getattr(config, "layer_replication", None):
            return "the adapter repeats layers of its base model (layer_replication), so it can't be merged into it"
        method = name_of(config.peft_type.value)
        if method not in METHODS or not METHODS[method].merges:
            return f"what {method} learns has no place in the base model's own weights, so it can't be merged into them"
    return None
