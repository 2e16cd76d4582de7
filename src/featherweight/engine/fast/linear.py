"""Linear layers whose products, forward and backward, run in the library that is fastest on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from featherweight.engine.fast.kernels import plain
from featherweight.engine.fast.machine_speed import probe
from featherweight.engine.fast.products import DEFAULT, IN_BF16, KEPT, PRODUCTS, KeptProduct, LowRank, Multiply
from featherweight.methods.peft.targets import is_transposed
from featherweight.sources.held import Held

_THIN = 32  # a matrix with a side below it is left to PyTorch: the call costs more than the product


def product(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, added: LowRank | None = None
) -> torch.Tensor:
    """x W + b without gradient; states (rows, in), weight (in, out), bias (out,), result (rows, out)."""
    result = PRODUCTS[_library(states, weight)](states, weight, bias)
    return result if added is None else added.add_to(result)


def product_in_bf16(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, added: LowRank | None = None
) -> torch.Tensor:
    """The same of states and weight rounded to bf16, on a processor."""
    return IN_BF16[probe().bf16_product if plain(states) else DEFAULT](states, weight, bias, added)


def kept_product(weight: torch.Tensor) -> KeptProduct:
    """(states, bias) to x W + b without gradient, for as long as W (in, out) does not change."""
    keep = KEPT.get(_library(weight))
    return keep(weight) if keep else lambda states, bias: product(states, weight, bias)


def _library(*tensors: torch.Tensor) -> str:
    return probe().product if plain(*tensors) else DEFAULT


def weight_of(module: Any) -> torch.Tensor:
    """The weight of a linear module as (in, out): a view, and of one that is held a copy."""
    weight = module.unpacked() if isinstance(module, Held) else module.weight
    return weight if is_transposed(module) else weight.t()


def speed_up(module: Any) -> None:
    """Give a linear module the faster products; its parameters and what it computes stay."""
    module.multiply = product
    if not isinstance(module, Held) and min(module.weight.shape) >= _THIN:
        module.kept_product = None
        module.forward = partial(_forward, module)


def multiply_in_bf16(modules: Iterable[Any]) -> None:
    """Let linear modules that were sped up round what they multiply to bf16, forward and backward."""
    for module in modules:
        module.multiply, module.takes = product_in_bf16, torch.bfloat16


def multiply_in_fp32(modules: Iterable[Any]) -> None:
    """Undo :func:`multiply_in_bf16`."""
    for module in modules:
        module.multiply, module.takes = product, torch.float32


def is_in_bf16(module: Any) -> bool:
    """Whether a layer, or the one that a layer of LoRA is around, rounds what it multiplies."""
    base = module.get_base_layer() if hasattr(module, "lora_A") else module
    return base.multiply is product_in_bf16


def _forward(module: Any, states: torch.Tensor) -> torch.Tensor:
    if not plain(states, module.weight):
        return type(module).forward(module, states)  # type: ignore[no-any-return]
    flat = states.reshape(-1, states.shape[-1])
    if module.kept_product is not None and not torch.is_grad_enabled():
        result = module.kept_product(flat, module.bias)
    else:
        result = _Linear.apply(flat, weight_of(module), module.bias, module.multiply)  # type: ignore[no-untyped-call]
    return result.view(*states.shape[:-1], -1)  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, multiply: Multiply
    ) -> torch.Tensor:
        ctx.save_for_backward(states if ctx.needs_input_grad[1] else None, weight)
        ctx.multiply = multiply
        return multiply(states, weight, bias, None)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        d_states = ctx.multiply(gradient, weight.t(), None, None) if ctx.needs_input_grad[0] else None
        d_weight = ctx.multiply(states.t(), gradient, None, None) if states is not None else None
        d_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return d_states, d_weight, d_bias, None
