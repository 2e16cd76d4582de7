"""Matrix products on a processor: in fp32 by either of the two libraries that PyTorch's wheel has for them, in bf16 by
one of those or a kernel of our own.

PyTorch itself asks MKL, which keeps its AVX-512 code for Intel's processors: on AMD's, oneDNN is more than twice as
fast. Both multiply and add in fp32; they differ in the order of the sums alone. What a machine is to use is measured by
:mod:`featherweight.engine.fast.machine_speed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from featherweight.engine.fast import kernels

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
KeptProduct = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def _by_pytorch(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.mm(states, weight) if bias is None else torch.addmm(bias, states, weight)


def _by_onednn(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight.t(), bias, "none", [], "")  # type: ignore[no-any-return]


def _kept_by_onednn(weight: torch.Tensor) -> KeptProduct:
    kept = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), None)
    return lambda states, bias: torch.ops.mkldnn._linear_pointwise(states, kept, bias, "none", [], "")


# Name to x W + b, with x (rows, in), W (in, out), b (out,) or None; any strides, no gradient.
PRODUCTS: dict[str, Product] = {"PyTorch": _by_pytorch, "oneDNN": _by_onednn}
DEFAULT = "PyTorch"

# For libraries that read W from a copy in an order of their own: made once for a W that stays as it is, rather than in
# each product, where it takes a twentieth of the time with 2,000 rows and a third with 8.
KEPT: dict[str, Callable[[torch.Tensor], KeptProduct]] = {"oneDNN": _kept_by_onednn}


class LowRank(NamedTuple):
    """What LoRA adds to a product: ``scale`` times t U.

    Attributes:
        thin: t (rows, r).
        up: U (r, out).
    """

    thin: torch.Tensor
    up: torch.Tensor
    scale: float

    def add_to(self, result: torch.Tensor) -> torch.Tensor:
        """In place; (rows, out)."""
        return result.addmm_(self.thin, self.up, alpha=self.scale)


class Multiply(Protocol):
    """A product as a linear layer makes it, with what its adapter adds."""

    def __call__(
        self, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, added: LowRank | None
    ) -> torch.Tensor: ...


def _bf16_by_pytorch(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, added: LowRank | None
) -> torch.Tensor:
    """Sums are rounded to bf16, once each."""
    result = torch.mm(states.bfloat16(), weight.bfloat16()).float()
    result = result if bias is None else result.add_(bias)
    return result if added is None else added.add_to(result)


def _bf16_by_kernel(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, added: LowRank | None
) -> torch.Tensor:
    compiled = kernels.load()
    assert compiled is not None
    if 1 not in weight.stride():
        weight = weight.contiguous()
    thin, up = (None, None) if added is None else (added.thin.mul(added.scale), added.up.contiguous())
    return compiled.product_in_bf16(states.contiguous(), weight, bias, thin, up)


# Name to x W + b + s t U in fp32, of x and W rounded to bf16.
IN_BF16: dict[str, Multiply] = {"PyTorch": _bf16_by_pytorch, "compiled": _bf16_by_kernel}


def works_in_bf16(name: str, device: str = "cpu") -> bool:
    """Whether this machine has it for tensors on this device; our kernel reads memory of the processor's alone."""
    if name == DEFAULT:
        return True
    compiled = kernels.load()
    return device == "cpu" and compiled is not None and compiled.multiplies_bf16()


def works(name: str, device: str = "cpu") -> bool:
    """Whether this build of PyTorch has the library for tensors on this device, and it multiplies as PyTorch does."""
    # Not drawn: a measurement must not move the random numbers of the run that it is made for.
    states, weight = (torch.linspace(-1, 2, rows * 33, device=device).view(rows, 33) for rows in (5, 48))
    weight, bias = weight.t(), torch.linspace(0, 1, 48, device=device)
    try:
        results = [PRODUCTS[name](states, weight, bias)]
        if name in KEPT:
            results.append(KEPT[name](weight)(states, bias))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    expected = torch.addmm(bias, states, weight)
    return all(torch.allclose(result, expected, rtol=1e-4, atol=1e-4) for result in results)
