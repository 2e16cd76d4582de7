"""What all of PEFT's tuners share: a recipe's options become PEFT's configuration, and what is left open is found."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from featherweight.errors import ConfigError
from featherweight.methods import Adapted, Fit, Method
from featherweight.methods.peft import adapters
from featherweight.methods.peft.targets import is_transposed, linear_layers, linear_targets
from featherweight.recipe import MethodOptions
from featherweight.records.training import Keeper

Found = Mapping[str, tuple[Any, str]]

_OF_PEFTS_TABLE = {"target_modules", "feedforward_modules"}  # PEFT knows them for some architectures


class Tuner(Method):
    """A tuner of PEFT's on a model's linear layers; those that differ are classes made from it.

    Attributes:
        rate: its usual learning rate.
        transposed: whether it knows layers whose weight is stored transposed (transformers' ``Conv1D``, as of GPT-2).
        divisors: options that must divide the width of every layer that is tuned, each with PEFT's default.
    """

    Options: ClassVar[type[MethodOptions]]
    config: ClassVar[str]
    rate: ClassVar[float] = 1e-3
    transposed: ClassVar[bool] = True
    divisors: ClassVar[Mapping[str, int]] = {}

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        if config.get("peft_type") != cls._peft_type() or adapters.is_head_alone(config):
            return None
        empty: tuple[Any, ...] = (None, [], {})
        known = cls.Options.model_fields.keys() - {"name"}
        return {key: config[key] for key in sorted(known & config.keys()) if config[key] not in empty}

    @classmethod
    def _peft_type(cls) -> str:
        name: str = cls.Options.model_fields["name"].default
        return name.upper().replace("-", "_")

    def rates(self, width: int) -> dict[str, tuple[float, str]]:
        return {"learning_rate": (self.rate, f"usual for {self.options.name}")}

    def require_targets(self, model: Any) -> None:
        """Raises ConfigError where this model has nothing to tune, or layers of a kind that PEFT's tuner refuses."""
        targets = self._asked_targets
        layers = linear_layers(model) if targets is None else {}
        if targets is None and not layers:
            linear_targets(model)
        if not self.transposed and (stored := next((one for one in layers.values() if is_transposed(one)), None)):
            raise ConfigError(
                f"method.name: {self.options.name} does not know {model.config.model_type}'s layers, whose weights are "
                f"stored transposed ({type(stored).__name__}); choose lora, or another that does: featherweight methods"
            )

    @property
    def _asked_targets(self) -> Any:
        return getattr(self.options, "target_modules", None)

    def apply(self, model: Any, fit: Fit) -> Adapted:
        """Inject the tuner's layers into ``model`` and freeze the rest but the head.

        Raises:
            ConfigError: an option does not suit the model, such as target modules that it doesn't have.
        """
        import peft

        given = self.options.model_dump(exclude={"name"}, exclude_none=True)
        chosen = {key: one for key, one in self.found(model).items() if key not in given}
        given |= {key: value for key, (value, _) in chosen.items()}
        given["modules_to_save"] = sorted({*given.get("modules_to_save", []), *fit.head})
        chosen["modules_to_save"] = (given["modules_to_save"], "the head always trains and travels with the adapter")
        # PEFT writes into the lists that it is given.
        options = copy.deepcopy(given | self.made(given))
        made = partial(getattr(peft, self.config), task_type=fit.task_type, **options)
        adapted = adapters.inject(model, made, self.before(fit))
        settled = adapted.peft_config["default"]
        for key in _OF_PEFTS_TABLE & self.Options.model_fields.keys() - given.keys():
            value = getattr(settled, key)
            chosen[key] = (sorted(value) if isinstance(value, set) else value, f"PEFT's for {model.config.model_type}")
        return Adapted(adapted, chosen, self.keeper(adapted))

    def found(self, model: Any) -> dict[str, tuple[Any, str]]:
        """What a recipe may leave open, from the model, each with its reason."""
        fields, layers = self.Options.model_fields, linear_layers(model)
        found: dict[str, tuple[Any, str]] = dict(self.targets(model))
        if "fan_in_fan_out" in fields:
            found["fan_in_fan_out"] = (any(map(is_transposed, layers.values())), "seen from the model's layers")
        for key, usual in self.divisors.items():
            found[key] = (divisor(usual, layers.values()), "divides the width of every linear layer")
        return found

    def targets(self, model: Any) -> Found:
        """The modules that are tuned."""
        reason = f"chosen automatically: every linear layer of {model.config.model_type}'s blocks"
        return {"target_modules": (linear_targets(model), reason)} if self._asked_targets is None else {}

    def made(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What PEFT's configuration wants beside or instead of the options."""
        return {}

    def before(self, fit: Fit) -> Callable[[Any, Any], None]:
        """What is done with the model and PEFT's configuration before the tuner's layers are put in."""
        return lambda model, config: None

    def keeper(self, model: Any) -> Keeper | None:
        """What is kept in step with training; None where nothing is."""
        return None

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None:
        adapters.save(model, folder, base_model, revision)


def name_of(peft_type: str) -> str:
    """What PEFT's ``LN_TUNING`` is called in a recipe: ``ln-tuning``."""
    return peft_type.lower().replace("_", "-")


def divisor(usual: int, layers: Iterable[Any]) -> int:
    """The largest divisor of ``usual`` that divides the widths of every layer, too."""
    return math.gcd(usual, *(size for layer in layers for size in layer.weight.shape))
