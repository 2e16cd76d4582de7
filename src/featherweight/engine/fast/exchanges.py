"""Modules with the same mathematics in fewer passes over memory, put in place of the stock ones.

What a module computes is not read off its class: the exchange is tried on numbers first, and made only where the
results agree. Parameters keep their names, so what is saved stays the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from featherweight.engine.fast import kernels, linear, lora
from featherweight.engine.fast.dropout import Dropout, Masks
from featherweight.methods.peft.targets import is_linear

_TOLERANCE = 1e-5

_STOCK: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}


class Activation(torch.nn.Module):
    """GELU (Hendrycks & Gimpel, 2016), by erf or by tanh, or SiLU.

    Args:
        kind: one of :data:`featherweight.engine.fast.kernels.ACTIVATIONS`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return activate(self.kind, states, None)

    def extra_repr(self) -> str:
        return self.kind


def activate(kind: str, states: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """f(states), times ``gate`` where there is one (Shazeer, "GLU variants improve transformer", 2020)."""
    compiled = kernels.usable(states, *([] if gate is None else [gate]))
    if compiled is not None:
        return _Activated.apply(states, gate, kind, compiled)  # type: ignore[no-any-return, no-untyped-call]
    result = _STOCK[kind](states)
    return result if gate is None else result * gate


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, gate: torch.Tensor | None, kind: str, compiled: kernels.Kernels
    ) -> torch.Tensor:
        states, gate = states.contiguous(), None if gate is None else gate.contiguous()
        ctx.save_for_backward(states, gate)
        ctx.kind, ctx.compiled = kind, compiled
        return compiled.activate(kind, states, gate)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        states, gate = ctx.saved_tensors
        return *ctx.compiled.activate_backward(ctx.kind, states, gate, gradient.contiguous()), None, None


class RmsNorm(torch.nn.Module):
    """Root-mean-square norm (Zhang & Sennrich, 2019) in one pass."""

    def __init__(self, weight: torch.nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        compiled = None if self.weight.requires_grad else kernels.usable(states, self.weight)
        if compiled is not None:
            return _RmsNormed.apply(states, self.weight, self.epsilon, compiled)  # type: ignore[no-any-return, no-untyped-call]
        return torch.nn.functional.rms_norm(states, self.weight.shape, self.weight, self.epsilon)


class _RmsNormed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, epsilon: float, compiled: kernels.Kernels
    ) -> torch.Tensor:
        states = states.contiguous()
        out, scales = compiled.rms_norm(states, weight, epsilon)
        ctx.save_for_backward(states, weight, scales)
        ctx.compiled = compiled
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return ctx.compiled.rms_norm_backward(*ctx.saved_tensors, gradient.contiguous()), None, None, None


def _dropout(module: Any, masks: Masks) -> torch.nn.Module | None:
    return Dropout(module.p, masks) if type(module) is torch.nn.Dropout else None


def _activation(module: Any, masks: Masks) -> torch.nn.Module | None:
    kind = _kind_of(module)
    return None if kind is None or kernels.load() is None else Activation(kind)


def _kind_of(activation: Any) -> str | None:
    """Which of the activations a module computes, by trial."""
    if isinstance(activation, Activation):
        return activation.kind
    if not isinstance(activation, torch.nn.Module) or any(True for _ in activation.parameters()):
        return None
    states = torch.linspace(-9, 9, 721)
    return next((kind for kind, of in _STOCK.items() if _same(activation, of, states, 1e-6)), None)


@torch.no_grad()
def _same(stock: Any, mine: Any, states: torch.Tensor, atol: float, *, of_greatest: bool = False) -> bool:
    """Whether both make the same of ``states``, to ``atol`` or that part of the greatest number. What takes or gives
    something else than a tensor is not the same."""
    try:
        expected = stock(states)
        scale = float(expected.abs().max()) if of_greatest else 1.0
        return torch.allclose(mine(states), expected, rtol=_TOLERANCE, atol=atol * scale)
    except Exception:  # noqa: BLE001 - whatever a module of another make then meets
        return False


def _rms_norm(module: Any, masks: Masks) -> torch.nn.Module | None:
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if weight is None or epsilon is None or weight.ndim != 1:
        return None
    mine = RmsNorm(weight, epsilon)
    states = torch.randn(3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    return mine if _same(module, mine, states, _TOLERANCE) else None


# What a class's name ends with, to what takes its place; None where this very module can't be replaced.
_EXCHANGES: dict[str, Callable[[Any, Masks], torch.nn.Module | None]] = {
    "Dropout": _dropout,
    "GELU": _activation,
    "GELUTanh": _activation,
    "GELUActivation": _activation,
    "SiLU": _activation,
    "SiLUActivation": _activation,
    "RMSNorm": _rms_norm,
}


def _gate(block: Any) -> None:
    """Give a gated feed-forward part a forward that multiplies while it activates, where its own does the same."""
    kind = _kind_of(block.act_fn)
    if kind is None or kernels.load() is None:
        return

    def forward(states: torch.Tensor) -> torch.Tensor:
        return block.down_proj(activate(kind, block.gate_proj(states), block.up_proj(states)))  # type: ignore[no-any-return]

    weight = block.down_proj.weight
    states = torch.randn(2, weight.shape[0], generator=torch.Generator().manual_seed(0)).to(weight)
    if _same(block, forward, states, _TOLERANCE, of_greatest=True):
        block.forward = forward


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
        if is_linear(module):
            linear.speed_up(module)
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            lora.fuse(module, masks)
        gated = all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))
        if gated and "forward" not in vars(module):
            _gate(module)


@torch.no_grad()
def keep_weights(model: Any) -> None:
    """Where nothing trains, every exchanged layer multiplies by a copy of its weight that the library of products reads
    fastest, with LoRA's update added in: until :func:`forget_weights`, the weights must stay as they are. Not where
    products are in bf16, which would round the update away."""
    for module in _multiplying(model):
        if not linear.is_in_bf16(module):
            weight = lora.merged(module) if hasattr(module, "lora_A") else linear.weight_of(module).detach()
            module.kept_product = linear.kept_product(weight)


def forget_weights(model: Any) -> None:
    """End what :func:`keep_weights` began."""
    for module in _multiplying(model):
        module.kept_product = None


def give_up_weights(model: Any) -> dict[Any, torch.Tensor]:
    """After :func:`keep_weights`, the weights that were copied give way to numbers that are none and take no memory.

    Returns:
        What each layer had, for :func:`put_back`.
    """
    users = Counter(id(value) for module in model.modules() for value in module._parameters.values())
    alone = [one for one in _multiplying(model) if not hasattr(one, "lora_A") and users[id(one.weight)] == 1]
    own = {module: module.weight.data for module in alone}  # embeddings read theirs, where they are the head's too
    for module, weight in own.items():
        module.weight.data = weight.new_full((1, 1), torch.nan).expand(weight.shape)
    return own


def put_back(own: dict[Any, torch.Tensor]) -> None:
    """Undo :func:`give_up_weights`."""
    for module, weight in own.items():
        module.weight.data = weight


def _multiplying(model: Any) -> list[Any]:
    """The exchanged layers that are asked for a product: not those within a fused layer of LoRA."""
    exchanged = [module for module in model.modules() if hasattr(module, "kept_product")]
    within = {module.get_base_layer() for module in exchanged if hasattr(module, "lora_A")}
    return [module for module in exchanged if module not in within]
