"""Target modules for any architecture, found from its structure instead of a table of names."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from featherweight.errors import ConfigError


def linear_targets(model: Any) -> list[str]:
    """The shortest module-name suffixes that match every linear layer of the repeated blocks and nothing else.

    All linear layers, because adapters on attention alone do worse at the same number of parameters (Schulman et al.,
    "LoRA Without Regret", 2025).

    Returns:
        Sorted suffixes such as ``["c_attn", "c_fc", "c_proj"]``; PEFT matches them at the end of a module's name.

    Raises:
        ConfigError: there is no such layer.
    """
    modules = dict(model.named_modules())
    wanted = {
        name: inner for name, module in modules.items() if _computes_linear(module) and (inner := _name_in_block(name))
    }
    if not wanted:
        raise ConfigError(
            f"method.name: lora updates linear layers, and {model.config.model_type}'s blocks have none, but layers of "
            'another make; set it to "linear-probe" or "full", or name method.target_modules'
        )
    others = modules.keys() - wanted.keys()
    return sorted({_shortest_suffix(inner, others) for inner in wanted.values()})


def is_linear(module: Any) -> bool:
    """Whether a module is ``torch.nn.Linear`` or transformers' ``Conv1D``, which has its weight transposed. A class
    made from one of them may compute something else: a router, an 8-bit layer."""
    from torch.nn import Linear

    return type(module) is Linear or type(module).__name__ == "Conv1D"


def _computes_linear(module: Any) -> bool:
    """Whether a module multiplies by its weight and adds its bias. A class made from a linear one is tried."""
    import torch

    if is_linear(module) or not isinstance(module, torch.nn.Linear):
        return is_linear(module)
    states = torch.linspace(-1, 1, module.in_features, dtype=module.weight.dtype, device=module.weight.device)[None]
    try:
        with torch.no_grad():
            return torch.allclose(module(states), torch.nn.functional.linear(states, module.weight, module.bias))
    except Exception:  # noqa: BLE001 - a router gives something else than a tensor
        return False


def _name_in_block(name: str) -> str | None:
    """``encoder.layer.3.attention.self.query`` is ``attention.self.query`` in its block; None outside of blocks."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else None


def _shortest_suffix(name: str, others: Set[str]) -> str:
    parts = name.split(".")
    for length in range(1, len(parts)):
        suffix = ".".join(parts[-length:])
        if not any(other == suffix or other.endswith(f".{suffix}") for other in others):
            return suffix
    return name
