"""Linear probe: only the head trains, on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from featherweight.methods import Adapted, Fit, Method
from featherweight.methods.peft import adapters
from featherweight.recipe import MethodOptions


class LinearProbeOptions(MethodOptions):
    """A linear probe has no options."""

    name: Literal["linear-probe"] = "linear-probe"


class LinearProbe(Method):
    """The head alone. It travels as a PEFT adapter without adapter layers, so stock PEFT loads it like any other."""

    Options: ClassVar[type[MethodOptions]] = LinearProbeOptions
    trains: ClassVar[str] = "the head alone"
    trains_head_alone: ClassVar[bool] = True

    def __init__(self, options: LinearProbeOptions) -> None:
        self.options = options

    @classmethod
    def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        return {} if adapters.is_head_alone(config) else None

    def rates(self, width: int) -> dict[str, tuple[float, str]]:
        return {"learning_rate": (1e-3, "usual for a head on frozen features")}

    def require_targets(self, model: Any) -> None:
        """Every model has what is tuned."""

    def apply(self, model: Any, fit: Fit) -> Adapted:
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        options = {"target_modules": DUMMY_TARGET_MODULES, "modules_to_save": list(fit.head)}
        return Adapted(adapters.inject(model, partial(LoraConfig, task_type=fit.task_type, **options)), {})

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None:
        adapters.save(model, folder, base_model, revision)
