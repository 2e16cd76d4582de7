"""LoRA (Hu et al., 2021) and its variants, through PEFT's own ``LoraConfig``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from featherweight.errors import ConfigError
from featherweight.methods import Adapted, Fit
from featherweight.methods.peft import initial
from featherweight.methods.peft.targets import is_transposed, linear_layers
from featherweight.methods.peft.tuner import Found, Tuner
from featherweight.methods.widths import rate_at
from featherweight.recipe import MethodOptions
from featherweight.recipe.values import PositiveInt
from featherweight.sources.trial_texts import replies

_RATE = 2e-3  # of updates that are not scaled, in layers 384 wide
# Factors of a weight's own directions are large from the first step, and so is what a step moves (benchmarks/LOG.md).
_OF_LARGE_FACTORS = 0.5


# Of PEFT's options those that do nothing for a model with a head, or want what a run does not have.
_REFUSED = {
    "alora_invocation_tokens": "waits for tokens that a prompt has, and PEFT applies it to models that continue a text",
    "arrow_config": "mixes adapters that were trained before, and a run trains one",
    "layer_replication": "makes a deeper model than the one that was measured",
    "monteclora_config": "adds a loss that only PEFT's own training code asks for",
    "kasa_config": "adds a loss that only PEFT's own training code asks for",
    "loftq_config": "goes with init_lora_weights = 'loftq', which quantises the weights itself",
    "megatron_config": "is for Megatron's parallel layers",
    "use_qalora": "is for weights that GPTQ quantised, which there are none of",
    "use_bdlora": "is for one adapter that several devices share out, and here each of them has all of it",
}
_OWN_OPTIONS = {"eva": "eva_config", "corda": "corda_config", "lora_ga": "lora_ga_config"}


class LoRAOptions(MethodOptions):
    """Every option of PEFT's ``LoraConfig``, by its own name and with its own default.

    ``None`` stands for PEFT's default. What PEFT fills in itself (``peft_type``, ``task_type``,
    ``base_model_name_or_path``, ``inference_mode``, ...) is not an option.
    """

    name: Literal["lora"] = "lora"
    r: PositiveInt = Field(8, description="rank")
    lora_alpha: Annotated[int, Field(ge=1)] = Field(8, description="the update is scaled by lora_alpha / r")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str] | str | None = Field(
        None, description="module-name suffixes, a regular expression, or 'all-linear'; found from the model if unset"
    )
    exclude_modules: list[str] | str | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r)")
    use_dora: bool = Field(False, description="weight-decomposed LoRA")
    modules_to_save: list[str] | None = Field(None, description="modules trained whole; the head always is")
    init_lora_weights: bool | str = Field(True, description="true, gaussian, orthogonal, olora, pissa, ...")
    fan_in_fan_out: bool | None = Field(None, description="weights stored transposed; seen from the layers if unset")
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, int] | None = None
    megatron_config: dict[str, Any] | None = None
    megatron_core: str | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    loftq_config: dict[str, Any] | None = None
    eva_config: dict[str, Any] | None = None
    corda_config: dict[str, Any] | None = None
    lora_ga_config: dict[str, Any] | None = None
    velora_config: dict[str, Any] | None = None
    alora_invocation_tokens: list[int] | None = None
    use_qalora: bool | None = None
    qalora_group_size: PositiveInt | None = None
    monteclora_config: dict[str, Any] | None = None
    layer_replication: list[list[int]] | None = None
    runtime_config: dict[str, Any] | None = None
    lora_bias: bool | None = None
    target_parameters: list[str] | None = None
    use_bdlora: dict[str, Any] | None = None
    arrow_config: dict[str, Any] | None = None
    kasa_config: dict[str, Any] | None = None
    ensure_weight_tying: bool | None = None

    @model_validator(mode="after")
    def _what_a_run_can_do(self) -> LoRAOptions:
        for key, reason in _REFUSED.items():
            if getattr(self, key) not in (None, False):
                raise ValueError(f"{key!r}: {reason}; leave it out")
        if self.init_lora_weights == "loftq":
            raise ValueError(
                "'init_lora_weights': 'loftq' changes the weights that it quantises; leave it out, and hold the base "
                "model in 4 bits by model.quantization = 'nf4'"
            )
        for key in ("cache_file", "covariance_file"):
            if (self.corda_config or {}).get(key):
                raise ValueError(f"'corda_config.{key}' is a pickle, which is never read or written; leave it out")
        for begins, key in _OWN_OPTIONS.items():
            if getattr(self, key) and self.init_lora_weights != begins:
                raise ValueError(f"{key!r} goes with init_lora_weights = {begins!r}; set that, or leave it out")
        return self


class LoRA(Tuner):
    """Low-rank updates beside frozen weights, and the head."""

    Options: ClassVar[type[MethodOptions]] = LoRAOptions
    config: ClassVar[str] = "LoraConfig"
    trains: ClassVar[str] = "low-rank updates of the weights"
    trains_lora: ClassVar[bool] = True

    def __init__(self, options: LoRAOptions) -> None:
        super().__init__(options)
        self._begun: dict[str, Any] | None = None

    def rates(self, width: int) -> dict[str, tuple[float, str]]:
        """Updates that are scaled by alpha / r take a rate that much smaller, wider models a smaller one."""
        options = self.options
        scale = options.lora_alpha / (math.sqrt(options.r) if options.use_rslora else options.r)
        begins = f" that begins at {options.init_lora_weights}" if self.converts else ""
        share = _OF_LARGE_FACTORS if begins else 1.0
        rate = rate_at(width, share * _RATE / scale)
        return {"learning_rate": (rate, f"for LoRA of scale {scale:g}{begins} in layers {width} wide")}

    def worth_trying(self) -> dict[str, list[Any]]:
        """More rank at the same ``lora_alpha``: updates are then scaled by alpha / r, and want the same rate."""
        return {"r": [4 * self.options.r]}

    def require_targets(self, model: Any) -> None:
        if self.options.target_parameters is None:
            super().require_targets(model)
        if self.options.init_lora_weights == "eva" and replies(model):
            raise ConfigError(
                "method.init_lora_weights: PEFT's eva takes every layer to read one text, and the decoder of "
                f"{model.config.model_type} reads another than its encoder; use 'pissa'"
            )
        if self.options.init_lora_weights == "olora" and any(map(is_transposed, linear_layers(model).values())):
            raise ConfigError(
                f"method.init_lora_weights: PEFT's olora does not know {model.config.model_type}'s layers, whose "
                "weights are stored transposed; use 'pissa'"
            )

    @property
    def converts(self) -> bool:
        return initial.rewrites_base(self.options.init_lora_weights)

    @property
    def unheld(self) -> str:
        return (
            f"begins at {self.options.init_lora_weights} by changing the model's own weights" if self.converts else ""
        )

    def before(self, fit: Fit) -> Callable[[Any, Any], None]:
        return initial.before_injection(self.options.init_lora_weights, fit.sample)

    def targets(self, model: Any) -> Found:
        return super().targets(model) if self.options.target_parameters is None else {}

    def made(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options that PEFT wants as its own dataclasses, made from the tables in the recipe."""
        import peft
        from peft.tuners.lora import config as lora

        own = _OWN_OPTIONS.get(self.options.init_lora_weights)
        tables = {key: given.get(key, {}) for key in _SUB_CONFIGS if key in given or key == own}
        names = {key: _SUB_CONFIGS[key] for key in tables}
        return {key: (getattr(lora, name, None) or getattr(peft, name))(**tables[key]) for key, name in names.items()}

    def apply(self, model: Any, fit: Fit) -> Adapted:
        """As every tuner's; where PEFT adapts the experts of a mixture for what is named, that is said."""
        adapted = super().apply(model, fit)
        initial.after_injection(self.options.init_lora_weights, adapted.model, fit.sample)
        if self.converts:
            self._begun = initial.beginning(adapted.model)
        named = self.options.target_parameters or ()
        if experts := sorted({*(adapted.model.peft_config["default"].target_parameters or ())} - {*named}):
            targets, reason = adapted.chosen.get("target_modules", (self.options.target_modules, "as asked for"))
            reason += f"; for those that experts have, PEFT adapts the experts' {' and '.join(experts)}"
            return replace(adapted, chosen=adapted.chosen | {"target_modules": (targets, reason)})
        return adapted

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None:
        super().save(model, folder, base_model, revision)
        if self._begun is not None:
            initial.told_from_base(folder, self._begun)


_SUB_CONFIGS = {
    "eva_config": "EvaConfig",
    "corda_config": "CordaConfig",
    "lora_ga_config": "LoraGAConfig",
    "velora_config": "VeloraConfig",
    "runtime_config": "LoraRuntimeConfig",
}
