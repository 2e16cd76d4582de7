"""One plain transformers folder: weights with the update added in, tokenizer, label names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from featherweight.errors import UnprovenError
from featherweight.export import Subject


class Merged:
    """What ``AutoModelForSequenceClassification.from_pretrained`` loads, without PEFT."""

    is_exact: ClassVar[bool] = True

    def require(self, artefact: Path) -> None:
        pass

    def write(self, subject: Subject, folder: Path) -> None:
        merge(subject.model).save_pretrained(str(folder))
        subject.tokenizer.save_pretrained(str(folder))


def merge(model: Any) -> Any:
    """A model without PEFT's layers, with the same outputs.

    Raises:
        UnprovenError: the adapter can't be merged, or the merged weights are not finite.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    if not can_merge(model):
        raise UnprovenError(
            "the adapter repeats layers of its base model (layer_replication), so it can't be merged into it; use "
            "--format adapter"
        )
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UnprovenError(f"merging gives weights that are no numbers: {error}") from error


def can_merge(model: Any) -> bool:
    """Whether an adapter's update has a place of its own in each layer: not where layers are repeated."""
    return not any(getattr(config, "layer_replication", None) for config in getattr(model, "peft_config", {}).values())
