"""Modules with the same mathematics in fewer passes over memory, put in place of the stock ones.

Where the mathematics is not plain from the class, the exchange is tried on random numbers first and made only where
the results agree. Parameters keep their names, so what is saved stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from featherweight.engine import lora
from featherweight.engine.dropout import Dropout, Masks

_TOLERANCE = 1e-5


class RmsNorm(torch.nn.Module):
    """Root-mean-square norm (Zhang & Sennrich, 2019) as one operation."""

    def __init__(self, weight: torch.nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(states, self.weight.shape, self.weight, self.epsilon)


def _dropout(module: Any, masks: Masks) -> torch.nn.Module | None:
    return Dropout(module.p, masks) if type(module) is torch.nn.Dropout else None


def _gelu_tanh(module: Any, masks: Masks) -> torch.nn.Module | None:
    return torch.nn.GELU(approximate="tanh")


def _rms_norm(module: Any, masks: Masks) -> torch.nn.Module | None:
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if weight is None or epsilon is None or weight.ndim != 1:
        return None
    mine = RmsNorm(weight, epsilon)
    states = torch.randn(3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        return mine if torch.allclose(mine(states), module(states), atol=_TOLERANCE) else None


# How a class's name ends, to what takes its place; None where this very module can't be replaced.
_EXCHANGES: dict[str, Callable[[Any, Masks], torch.nn.Module | None]] = {
    "Dropout": _dropout,
    "NewGELUActivation": _gelu_tanh,
    "RMSNorm": _rms_norm,
}


def speed_up(model: torch.nn.Module, masks: Masks) -> None:
    """Exchange modules of ``model`` in place; parameters keep their names and stay the same objects.

    Args:
        masks: where dropout masks come from; on a device with a fast generator of its own nothing is exchanged.
    """
    if not masks.fast:
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            exchange = next((_EXCHANGES[end] for end in _EXCHANGES if type(child).__name__.endswith(end)), None)
            replacement = exchange(child, masks) if exchange else None
            if replacement is not None:
                parent._modules[name] = replacement.train(child.training)
    for module in model.modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            lora.fuse(module, masks)
