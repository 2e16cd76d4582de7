"""LoRA's arithmetic with few passes over memory: y = x W' + b + s (drop(x) A') B', and its gradients.

PEFT's layer computes the same as a chain of separate modules, each of which reads and writes the activations once
more. Only plain LoRA on a frozen linear layer is fused; every variant (DoRA, biases, several adapters, ...) stays
PEFT's own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from featherweight.engine.fast import kernels
from featherweight.engine.fast.dropout import Mask, Masks, apply
from featherweight.engine.fast.linear import weight_of
from featherweight.engine.fast.products import LowRank
from featherweight.methods.peft.targets import is_linear
from featherweight.sources.held import Held

_NO_DROPOUT = kernels.Dropout(boost=1.0)


def fuse(layer: Any, masks: Masks) -> bool:
    """Give one of PEFT's LoRA layers the fused forward, where it is plain LoRA. Returns whether it is.

    By its exact type: other tuners' layers have matrices of the same names, and do other things with them.
    """
    from peft.tuners.lora import Linear

    if type(layer) is not Linear:
        return False
    names = list(layer.active_adapters)
    if len(names) != 1 or names[0] not in layer.lora_A:
        return False
    name = names[0]
    base = layer.get_base_layer()
    frozen = not any(parameter.requires_grad for parameter in base.parameters())
    plain = not layer.lora_variant and not layer.lora_bias[name] and not layer.merged and not layer.disable_adapters
    if not (frozen and plain and is_linear(base)):
        return False
    dropout = layer.lora_dropout[name]
    if not isinstance(base, Held):  # a copy of its weight that products read fastest would be what is saved
        layer.kept_product = None
    layer.forward = partial(_forward, layer, name, base, float(getattr(dropout, "p", 0.0)), masks)
    return True


def merged(layer: Any) -> torch.Tensor:
    """W + s A' B' of a fused layer, as (in, out)."""
    (name,) = layer.active_adapters
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    weight = weight_of(layer.get_base_layer())
    if weight.is_contiguous():
        return torch.addmm(weight, a.t(), b.t(), alpha=scale)
    return torch.addmm(weight.t(), b, a, alpha=scale).t()  # copies rows, not columns


def thin_product(states: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """x A' without gradient; states (rows, in), a (r, in), result (rows, r)."""
    compiled = kernels.usable(states, a)
    if compiled is None:
        return torch.mm(states, a.t())
    return compiled.lora_forward(states.contiguous(), a.contiguous(), _NO_DROPOUT)


def _forward(
    layer: Any, name: str, base: Any, rate: float, masks: Masks, states: torch.Tensor, **_: Any
) -> torch.Tensor:
    if layer.disable_adapters or layer.merged or torch.is_autocast_enabled(states.device.type):
        return type(layer).forward(layer, states)  # type: ignore[no-any-return]
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    flat = states.reshape(-1, states.shape[-1])
    kept = vars(layer).get("kept_product")
    if kept is not None and not torch.is_grad_enabled():
        result = kept(flat, base.bias)
    else:
        mask = masks.draw(rate) if rate > 0 and layer.training and masks.fast else None
        result = _LoRALinear.apply(flat, a, b, base, scale, mask)  # type: ignore[no-untyped-call]
    return result.view(*states.shape[:-1], -1)  # type: ignore[no-any-return]


class _LoRALinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        base: Any,
        scale: float,
        mask: Mask | None,
    ) -> torch.Tensor:
        """states (tokens, in), a (r, in), b (out, r), base a frozen linear layer; result (tokens, out)."""
        states, a, b = states.contiguous(), a.contiguous(), b.contiguous()
        compiled = kernels.usable(states, a)
        if compiled is not None:
            dropped = states  # dropped again wherever it is needed
            thin = compiled.lora_forward(states, a, _compiled(mask))
        else:
            dropped = states if mask is None else apply(states, mask)
            thin = dropped @ a.t()
        result: torch.Tensor = base.multiply(states, weight_of(base), base.bias, LowRank(thin, b.t(), scale))
        ctx.save_for_backward(dropped, thin, a, b)
        ctx.base, ctx.multiply, ctx.scale, ctx.mask, ctx.compiled = base, base.multiply, scale, mask, compiled
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        dropped, thin, a, b = ctx.saved_tensors
        gradient, scale, mask = gradient.contiguous(), ctx.scale, ctx.mask
        d_states = ctx.multiply(gradient, weight_of(ctx.base).t(), None, None) if ctx.needs_input_grad[0] else None
        if ctx.compiled is not None:
            lora = kernels.LoRA(a, b, scale, _compiled(mask))
            d_a, d_b = ctx.compiled.lora_backward(lora, dropped, thin, gradient, d_states)
        else:
            d_thin = (gradient @ b).mul_(scale)
            d_a = d_thin.t() @ dropped
            if d_states is not None and mask is None:
                d_states.addmm_(d_thin, a)
            elif d_states is not None:
                d_states.add_(apply(d_thin @ a, mask))
            d_b = (gradient.t() @ thin).mul_(scale)
        return d_states, d_a, d_b, *(None,) * 3


def _compiled(mask: Mask | None) -> kernels.Dropout:
    return _NO_DROPOUT if mask is None else mask.compiled
