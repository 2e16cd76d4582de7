"""Frozen weights held in fewer bits than they are multiplied in, or shared out among several processes.

A layer that is held keeps its weight packed and unpacks it for each product, forward and backward, in the precision of
what it is multiplied with: what is rounded is the weight, once, and no sum. A model whose file stores bf16 loses
nothing that way. Whoever reads such a layer's ``weight`` gets it unpacked, a copy; to write to it changes nothing.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from transformers.pytorch_utils import Conv1D

from featherweight.errors import ConfigError
from featherweight.records.holding import SAID

_BLOCK = 64  # weights that share a scale in NF4, as bitsandbytes and transformers have it

Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
Packed = dict[str, torch.Tensor]


class Storage(Protocol):
    """How a matrix is packed; ``weight`` among its tensors is the largest."""

    said: ClassVar[str]

    def pack(self, matrix: torch.Tensor) -> Packed:
        """Args: matrix: (out, in), of any floating dtype."""
        ...

    def unpack(self, packed: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
        """(out, in), floating."""
        ...


class Shares(Protocol):
    """Several processes that keep a part of every weight each."""

    def cut(self, packed: Packed) -> Callable[[], Packed]:
        """Keep this process's part of a weight; in all processes in the same order.

        Returns:
            What gives all of it, until another is asked for.
        """
        ...


class Float32:
    """As it is: for weights of which a process keeps a part."""

    said: ClassVar[str] = "parts"

    def pack(self, matrix: torch.Tensor) -> Packed:
        return {"weight": matrix.to(torch.float32)}

    def unpack(self, packed: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
        return packed["weight"]


class BFloat16:
    said: ClassVar[str] = SAID["bfloat16"]

    def pack(self, matrix: torch.Tensor) -> Packed:
        return {"weight": matrix.to(torch.bfloat16)}

    def unpack(self, packed: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
        return packed["weight"]


class NF4:
    """Four bits a weight, at the quantiles of a normal distribution, and an fp32 scale for each 64 (Dettmers et al.,
    "QLoRA", 2023, section 3), by bitsandbytes."""

    said: ClassVar[str] = SAID["nf4"]

    def pack(self, matrix: torch.Tensor) -> Packed:
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(matrix.float().contiguous(), blocksize=_BLOCK, quant_type="nf4")
        return {"weight": packed, "scales": state.absmax}

    def unpack(self, packed: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
        from bitsandbytes import functional

        state = functional.QuantState(
            packed["scales"], shape=shape, dtype=torch.float32, blocksize=_BLOCK, quant_type="nf4", code=_code(packed)
        )
        return functional.dequantize_4bit(packed["weight"], state)  # type: ignore[no-any-return]


def _code(packed: Mapping[str, torch.Tensor]) -> torch.Tensor:
    from bitsandbytes import functional

    return functional.get_4bit_type("nf4", device=packed["weight"].device)  # type: ignore[no-any-return]


class Int8:
    """Eight bits a weight, and a scale for each output (Dettmers et al., "LLM.int8()", 2022, section 2), by
    bitsandbytes; the states that are multiplied by it stay as they are."""

    said: ClassVar[str] = SAID["int8"]

    def pack(self, matrix: torch.Tensor) -> Packed:
        from bitsandbytes import functional

        packed, scales, _ = functional.int8_vectorwise_quant(matrix.to(torch.float16).contiguous())
        return {"weight": packed, "scales": scales.float()}

    def unpack(self, packed: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
        return packed["weight"] * (packed["scales"] / 127)[:, None]


# By the names of a recipe's ``model.dtype`` and ``model.quantization``.
STORAGES: Mapping[str, type[Storage]] = {"bfloat16": BFloat16, "nf4": NF4, "int8": Int8}


class Held:
    """A module whose weight is held; mixed into a class that has one."""

    storage: Storage
    multiply: Multiply
    takes: torch.dtype = torch.float32  # the precision in which the product takes the weight
    put_together: Callable[[], Packed] | None = None  # what processes share out; else all of it is here

    @property
    def weight(self) -> torch.Tensor:
        """Unpacked, fp32, in the shape that the module's own class gives it; a copy."""
        found = self.unpacked(torch.float32)
        return found if self.put_together is None else found.clone()

    def unpacked(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight in the precision that the product takes, or another; for a product that is made at once."""
        return self.storage.unpack(self.packed, self.shape).to(dtype or self.takes)

    @property
    def packed(self) -> Packed:
        return self._buffers if self.put_together is None else self.put_together()  # type: ignore[attr-defined]

    @property
    def shape(self) -> torch.Size:
        """Of the weight, (out, in)."""
        raise NotImplementedError


class HeldLinear(Held, torch.nn.Linear):  # type: ignore[override]
    """``torch.nn.Linear``."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.out_features, self.in_features))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        return _product(self, input)


class HeldConv1D(Held, Conv1D):  # type: ignore[misc]
    """transformers' ``Conv1D``, whose weight is (in, out)."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.nf, self.nx))

    def unpacked(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        return super().unpacked(dtype).t()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _product(self, x)


class HeldEmbedding(Held, torch.nn.Embedding):  # type: ignore[override]
    """``torch.nn.Embedding``, in bf16 or fp32: of NF4's and int8's blocks no single row can be read."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.num_embeddings, self.embedding_dim))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        return torch.nn.functional.embedding(input, self.packed["weight"], self.padding_idx).float()


_HELD: Mapping[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Linear: HeldLinear, Conv1D: HeldConv1D, torch.nn.Embedding: HeldEmbedding,
}  # fmt: skip


def multiplied(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W + b; states (rows, in), weight (in, out)."""
    return torch.mm(states, weight) if bias is None else torch.addmm(bias, states, weight)


class _Product(torch.autograd.Function):
    """x W + b, with W unpacked once in each direction and kept by neither."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, bias: torch.Tensor | None, module: Any) -> torch.Tensor:
        ctx.module = module
        return module.multiply(states, inward(module, states.dtype), bias)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = gradient.contiguous()
        weight = inward(ctx.module, gradient.dtype).t() if ctx.needs_input_grad[0] else None
        d_states = None if weight is None else ctx.module.multiply(gradient, weight, None)
        return d_states, gradient.sum(0) if ctx.needs_input_grad[1] else None, None


def inward(module: Any, dtype: torch.dtype) -> torch.Tensor:
    """A held layer's weight as (in, out), for states of ``dtype``."""
    weight: torch.Tensor = module.unpacked(None if dtype == torch.float32 else dtype)
    return weight if isinstance(module, Conv1D) else weight.t()


def _product(module: Any, states: torch.Tensor) -> torch.Tensor:
    kind = states.device.type
    if torch.is_autocast_enabled(kind):
        states = states.to(torch.get_autocast_dtype(kind))
    bias = None if module.bias is None else module.bias.to(states.dtype)
    result = _Product.apply(states.reshape(-1, states.shape[-1]), bias, module)  # type: ignore[no-untyped-call]
    return result.view(*states.shape[:-1], -1)  # type: ignore[no-any-return]


def is_held(model: Any) -> bool:
    """Whether any weight of a model is held."""
    return any(isinstance(module, Held) for module in model.modules())


def numel(model: Any) -> int:
    """How many numbers the held weights are, which are among no model's parameters."""
    return sum(module.shape.numel() for module in model.modules() if isinstance(module, Held))


class _Storages:
    """In what each module of a model is held."""

    def __init__(
        self,
        dtype: str,
        quantization: str | None,
        fp32: type[Storage] | None,
        apart_from: Iterable[str],
        unrounded: Iterable[str],
    ) -> None:
        whole = STORAGES.get(dtype, fp32)
        linear = STORAGES[quantization] if quantization else whole
        self._by_type = {torch.nn.Linear: linear, Conv1D: linear, torch.nn.Embedding: whole}
        self._fp32 = fp32
        self._plain, self._exact = (tuple(f"{name}." for name in names) for names in (apart_from, unrounded))

    def of(self, name: str, module: Any) -> type[Storage] | None:
        """None for one that stays plain."""
        if f"{name}.".startswith(self._plain) or getattr(module, "max_norm", None) is not None:
            return None
        found = self._by_type.get(type(module))
        return self._fp32 if found is not None and f"{name}.".startswith(self._exact) else found


def hold(
    model: Any,
    dtype: str,
    quantization: str | None,
    apart_from: Iterable[str],
    unrounded: Iterable[str] = (),
    shares: Shares | None = None,
) -> None:
    """Hold the weights of linear layers and embeddings, frozen from now on; whatever else there is becomes fp32.

    Args:
        model: on the processor, of any dtype; changed in place.
        dtype: ``float32`` or ``bfloat16``: of the embeddings, and of linear layers that are not quantised.
        quantization: ``nf4`` or ``int8``, of the linear layers; None for neither.
        apart_from: dotted names of modules that stay plain, for they train.
        unrounded: dotted names of modules that are frozen too and stay in fp32.
        shares: the processes that keep a part each of what is held.
    """
    storages = _Storages(dtype, quantization, None if shares is None else Float32, apart_from, unrounded)
    uses = Counter(id(value) for module in model.modules() for value in module._parameters.values())
    shared: dict[tuple[int, type[Storage]], tuple[Packed, Callable[[], Packed] | None]] = {}
    copies: dict[int, torch.Tensor | None] = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if (storage := storages.of(name, module)) is not None:
                weight = module._parameters.pop("weight")
                its = id(weight), storage
                packed, together = shared.get(its) or _packed(module, weight.data, storage(), shares)
                if uses[id(weight)] > 1:  # what no other layer has is freed here
                    shared[its] = packed, together
                module.__class__ = _HELD[type(module)]
                module.storage, module.multiply, module.put_together = storage(), multiplied, together
                module._buffers |= packed
            for own in (module._parameters, module._buffers):
                for key, value in own.items():
                    if not isinstance(module, Held) or key == "bias":
                        own[key] = copies[id(value)] if id(value) in copies else _own_in_fp32(value)
                        if uses[id(value)] > 1:
                            copies[id(value)] = own[key]
    model.config.dtype = torch.float32


def release(model: Any) -> Any:
    """The same model with every held weight unpacked for good, in fp32; changed in place."""
    of = {held: plain for plain, held in _HELD.items()}
    for module in model.modules():
        if isinstance(module, Held):
            weight = torch.nn.Parameter(module.unpacked(torch.float32).contiguous(), requires_grad=False)
            for key in ("weight", "scales"):
                module._buffers.pop(key, None)  # type: ignore[attr-defined]
            module.__class__ = of[type(module)]  # type: ignore[assignment, index]
            for key in ("storage", "multiply", "takes", "put_together"):
                vars(module).pop(key, None)
            module.weight = weight  # type: ignore[misc]
    return model


def require_trainable(model: Any) -> None:
    """Raises ConfigError where a method means to train a module whole that is held."""
    for name, module in model.named_modules():
        if isinstance(module, Held) and ".modules_to_save." in f".{name}.":
            path = name.partition(".modules_to_save")[0].rpartition("base_model.model.")[2]
            raise ConfigError(
                f"method.modules_to_save: {path} would train whole, and its weight is held in {module.storage.said}; "
                "leave it out, or what holds it so: model.dtype, model.quantization, training.fsdp"
            )


def require_package() -> None:
    """Raises ConfigError where bitsandbytes is missing."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.quantization: needs bitsandbytes; run: pip install 'featherweight[quantization]', or leave it out"
        )


def _packed(
    module: Any, weight: torch.Tensor, storage: Storage, shares: Shares | None
) -> tuple[Packed, Callable[[], Packed] | None]:
    packed = storage.pack(weight.t() if isinstance(module, Conv1D) else weight)
    return (packed, None) if shares is None else ({}, shares.cut(packed))


def _own_in_fp32(value: torch.Tensor | None) -> torch.Tensor | None:
    """A copy, also of what is fp32: it may be a view of the model's file, which stays in memory as long as any is."""
    if value is None or not value.is_floating_point():
        return value
    wide = value.detach().to(torch.float32, copy=True)
    return torch.nn.Parameter(wide, value.requires_grad) if isinstance(value, torch.nn.Parameter) else wide
