"""LoRA's initial values that are made from data, by PEFT's own code; and updates that are told from where they began.

PiSSA (Meng et al., 2024, arXiv 2404.02948), OLoRA (Büyükakyüz, 2024, arXiv 2406.01775), CorDA (Yang et al., 2024, arXiv
2406.05223) and LoRA-GA (Wang et al., 2024, arXiv 2407.05000) take what they begin with out of the base model. With W
its weight, s the scale and A0, B0 what training begins with, the tuned weight is W - s B0 A0 + s B A: as an update of W
itself that is s [B, -B0] [A; A0], plain LoRA of twice the rank. So it is published, and fits the base model as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from featherweight.errors import ConfigError
from featherweight.methods import Sample
from featherweight.methods.peft.adapters import CONFIG, WEIGHTS, state_of, stored

_REWRITE = ("pissa", "olora", "corda", "lora_ga")


def rewrites_base(initial: bool | str) -> bool:
    """Whether PEFT's ``init_lora_weights`` takes something out of the base model's weights."""
    return str(initial).startswith(_REWRITE)


def before_injection(initial: bool | str, sample: Sample) -> Callable[[Any, Any], None]:
    """What has to be found in the base model before LoRA's layers are put into it; given the model and PEFT's
    configuration."""

    def of_inputs(model: Any, config: Any) -> None:
        from peft.tuners.lora.corda import preprocess_corda

        preprocess_corda(model, config, run_model=lambda: sample.read(model))

    def of_gradients(model: Any, config: Any) -> None:
        from peft.tuners.lora.loraga import preprocess_loraga

        preprocess_loraga(model, config, train_step=lambda: sample.lower(model))

    return {"corda": of_inputs, "lora_ga": of_gradients}.get(str(initial), lambda model, config: None)


def after_injection(initial: bool | str, model: Any, sample: Sample) -> None:
    """EVA (Paischer et al., 2024, arXiv 2410.07170): A from the singular vectors of what each layer reads."""
    if initial == "eva":
        from peft.tuners.lora.eva import initialize_lora_eva_weights

        initialize_lora_eva_weights(model, sample.inputs(), show_progress_bar=False)


def beginning(model: Any) -> dict[str, Any]:
    """Copies of LoRA's matrices, by the names that they have in an adapter's file."""
    state = state_of(model)
    if strange := [name for name in state if ".lora_embedding_" in name]:
        raise ConfigError(
            f"method.init_lora_weights: {strange[0]!r} is of embeddings; leave them out of target_modules"
        )
    return {name: value.detach().cpu().clone() for name, value in state.items() if _is_matrix(name)}


def told_from_base(folder: Path, begun: Mapping[str, Any]) -> None:
    """Rewrite an adapter in ``folder`` as plain LoRA of the base model as it is.

    Args:
        begun: :func:`beginning`, before training.
    """
    import torch
    from safetensors.torch import save_file

    state = stored(folder)
    for name, before in begun.items():
        axis, sign = (0, 1) if ".lora_A." in name else (1, -1)
        state[name] = torch.cat([state[name], sign * before.to(state[name])], dim=axis).contiguous()
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    growth = math.sqrt(2) if config.get("use_rslora") else 2  # of alpha, so that the scale stays
    config |= {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"], "init_lora_weights": True}
    config["rank_pattern"] = {name: 2 * rank for name, rank in (config.get("rank_pattern") or {}).items()}
    config["alpha_pattern"] = {name: growth * alpha for name, alpha in (config.get("alpha_pattern") or {}).items()}
    config |= dict.fromkeys(("corda_config", "lora_ga_config"))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _is_matrix(name: str) -> bool:
    return (".lora_A." in name or ".lora_B." in name) and name.endswith(".weight")
