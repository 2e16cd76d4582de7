"""Target modules for any architecture, found from its structure instead of a table of names."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cache
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
    wanted = {name: _name_in_block(name) for name in linear_layers(model)}
    if not wanted:
        raise ConfigError(
            f"method.name: lora updates linear layers, and {model.config.model_type}'s blocks have none, but layers of "
            'another make; set it to "linear-probe" or "full", or name method.target_modules'
        )
    return shortest_suffixes(model, wanted)


def linear_layers(model: Any) -> dict[str, Any]:
    """The linear layers of the repeated blocks, by their names."""
    named = model.named_modules()
    return {name: module for name, module in named if _name_in_block(name) and _computes_linear(module)}


def shortest_suffixes(model: Any, wanted: Mapping[str, str]) -> list[str]:
    """The shortest module-name suffixes that match the modules that are wanted and no others, sorted.

    Args:
        wanted: name of a module to its name within its block.
    """
    others = {name for name, _ in model.named_modules()} - wanted.keys()
    return sorted({_shortest_suffix(inner, others) for inner in wanted.values()})


def norm_targets(model: Any) -> list[str]:
    """The shortest suffixes that match every norm that has weights, and nothing else.

    Raises:
        ConfigError: there is none.
    """
    norms = {
        name: _name_in_block(name) or name
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm") and any(True for _ in module.parameters())
    }
    if not norms:
        raise ConfigError(
            f"method.target_modules: {model.config.model_type} has no norms that could be told; name them"
        )
    return shortest_suffixes(model, norms)


def is_linear(module: Any) -> bool:
    """Whether a module is ``torch.nn.Linear`` or transformers' ``Conv1D``, plain or held in fewer bits. Another class
    made from one of them may compute something else: a router, an 8-bit layer."""
    from torch.nn import Linear

    return type(module) is Linear or type(module).__name__ in ("Conv1D", "HeldLinear", "HeldConv1D")


def is_transposed(layer: Any) -> bool:
    """Whether a layer keeps its weight as (in, out): transformers' ``Conv1D``."""
    return _is_conv1d(type(layer))  # type: ignore[arg-type]  # a class, which can be hashed


@cache
def _is_conv1d(kind: type) -> bool:
    return any(one.__name__ == "Conv1D" for one in kind.__mro__)


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


def _name_in_block(name: str) -> str:
    """``encoder.layer.3.attention.self.query`` is ``attention.self.query`` in its block; empty outside of blocks."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else ""


def _shortest_suffix(name: str, others: Set[str]) -> str:
    parts = name.split(".")
    for length in range(1, len(parts)):
        suffix = ".".join(parts[-length:])
        if not any(other == suffix or other.endswith(f".{suffix}") for other in others):
            return suffix
    return name
