"""LoRA (Hu et al., 2021) and its variants, through PEFT's own ``LoraConfig``."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from featherweight.methods import Adapted
from featherweight.methods.peft import adapters
from featherweight.methods.peft.targets import linear_targets
from featherweight.recipe import MethodOptions
from featherweight.recipe.values import PositiveInt

# The rate grows less than the width shrinks (a fit over model sizes, Thinking Machines, 2025); see docs/defaults.md.
_RATE, _WIDTH, _EXPONENT = 2e-3, 384, 0.78


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
    def _initialisations_we_run(self) -> LoRAOptions:
        # These need a pass over the data before training, which nothing here makes yet; PEFT would go on without.
        if self.init_lora_weights in {"eva", "corda", "lora_ga"}:
            raise ValueError(
                f"'init_lora_weights': {self.init_lora_weights!r} needs statistics of the data, which are not "
                "gathered yet; use true, 'gaussian', 'olora' or 'pissa'"
            )
        if str(self.init_lora_weights).startswith("pissa_niter"):
            raise ValueError(
                f"'init_lora_weights': {self.init_lora_weights!r} draws at random what it takes out of the base model, "
                "so whoever loads the adapter gets another one; use 'pissa', which is exact"
            )
        return self


class LoRA:
    """Low-rank updates beside frozen weights, and the head."""

    Options: ClassVar[type[MethodOptions]] = LoRAOptions
    artefact: ClassVar[str] = "adapter"
    trains_lora: ClassVar[bool] = True

    def __init__(self, options: LoRAOptions) -> None:
        self.options = options

    @classmethod
    def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        if config.get("peft_type") != "LORA" or adapters.is_head_alone(config):
            return None
        empty: tuple[Any, ...] = (None, [], {})
        known = LoRAOptions.model_fields.keys() - {"name"}
        return {key: config[key] for key in sorted(known & config.keys()) if config[key] not in empty}

    def rates(self, width: int) -> dict[str, tuple[float, str]]:
        """Updates that are scaled by alpha / r take a rate that much smaller, wider models a smaller one."""
        options = self.options
        scale = options.lora_alpha / (math.sqrt(options.r) if options.use_rslora else options.r)
        rate = float(f"{_RATE * (_WIDTH / width) ** _EXPONENT / scale:.1e}")
        return {"learning_rate": (rate, f"for LoRA of scale {scale:g} in layers {width} wide")}

    def require_targets(self, model: Any) -> None:
        if self._finds_targets:
            linear_targets(model)

    @property
    def _finds_targets(self) -> bool:
        return self.options.target_modules is None and self.options.target_parameters is None

    def apply(self, model: Any, task_type: str, head: list[str]) -> Adapted:
        """Inject LoRA layers into ``model`` and freeze the rest but the head.

        Args:
            task_type: PEFT's name for the task, such as ``SEQ_CLS``.
            head: names of the modules that train whole and travel with the adapter.

        Raises:
            ConfigError: an option does not suit the model, such as target modules that it doesn't have.
        """
        from peft import LoraConfig

        given = self.options.model_dump(exclude={"name"}, exclude_none=True)
        chosen: dict[str, tuple[Any, str]] = {}
        if self._finds_targets:
            given["target_modules"] = linear_targets(model)
            reason = f"chosen automatically: every linear layer of {model.config.model_type}'s blocks"
            chosen["target_modules"] = (given["target_modules"], reason)
        if "fan_in_fan_out" not in given:
            given["fan_in_fan_out"] = _stores_transposed(model)
            chosen["fan_in_fan_out"] = (given["fan_in_fan_out"], "seen from the model's layers")
        given["modules_to_save"] = sorted({*given.get("modules_to_save", []), *head})
        chosen["modules_to_save"] = (given["modules_to_save"], "the head always trains and travels with the adapter")
        # PEFT writes into the lists that it is given.
        config = LoraConfig(task_type=task_type, **copy.deepcopy(given | _sub_configs(given)))
        adapted = adapters.inject(model, config)
        named = given.get("target_parameters", ())
        if experts := sorted({*(adapted.peft_config["default"].target_parameters or ())} - {*named}):
            targets, reason = chosen.get("target_modules", (given.get("target_modules"), "as asked for"))
            reason += f"; for those that experts have, PEFT adapts the experts' {' and '.join(experts)}"
            chosen["target_modules"] = (targets, reason)
        return Adapted(adapted, chosen)

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None:
        adapters.save(model, folder, base_model, revision)


def _stores_transposed(model: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def _sub_configs(given: dict[str, Any]) -> dict[str, Any]:
    """Options that PEFT wants as its own dataclasses, made from the tables in the recipe."""
    import peft
    from peft.tuners.lora import config as lora

    classes = {
        "eva_config": "EvaConfig",
        "corda_config": "CordaConfig",
        "lora_ga_config": "LoraGAConfig",
        "velora_config": "VeloraConfig",
        "monteclora_config": "MontecloraConfig",
        "runtime_config": "LoraRuntimeConfig",
        "use_bdlora": "BdLoraConfig",
        "arrow_config": "ArrowConfig",
        "kasa_config": "KasaConfig",
    }
    return {
        key: (getattr(lora, name, None) or getattr(peft, name))(**given[key])
        for key, name in classes.items()
        if key in given
    }
