"""Full fine-tuning: every parameter trains. The reference point that lighter methods are held against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from featherweight.methods import Adapted, Fit, Method
from featherweight.methods.widths import rate_at
from featherweight.recipe import MethodOptions

_RATE = 5e-5  # in layers 384 wide: the smallest of those that did as well (benchmarks/LOG.md)


class FullOptions(MethodOptions):
    """Full fine-tuning has no options."""

    name: Literal["full"] = "full"


class Full(Method):
    """All parameters; what is published is a whole transformers model."""

    Options: ClassVar[type[MethodOptions]] = FullOptions
    artefact: ClassVar[str] = "model"
    trains: ClassVar[str] = "every parameter"
    unheld = "changes the model's own weights"

    def __init__(self, options: FullOptions) -> None:
        self.options = options

    @classmethod
    def options_of(cls, config: Mapping[str, Any]) -> None:
        return None

    def rates(self, width: int) -> dict[str, tuple[float, str]]:
        return {"learning_rate": (rate_at(width, _RATE), f"for all weights of layers {width} wide")}

    def require_targets(self, model: Any) -> None:
        """Every model has what is tuned."""

    def apply(self, model: Any, fit: Fit) -> Adapted:
        computed = {*(getattr(model, "_keys_to_ignore_on_save", None) or ())}  # transformers stores none of them
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in computed)
        return Adapted(model, {})

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None:
        model.save_pretrained(str(folder))
