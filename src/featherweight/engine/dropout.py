"""Dropout at the cost of a multiplication.

PyTorch draws one 64-bit number for each element on one thread, which took a third of a step. Here one 64-bit number
serves four elements: each of its 16-bit quarters is compared with a threshold, so the rate is exact to 2**-17, and the
elements that stay are scaled by the inverse of the rate that was really used. The stream is seeded by the run's seed
and the step, so a resumed run draws the same masks without any saved state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from featherweight.engine import kernels

_LANES = 2**16


class Masks:
    """A seeded stream of dropout masks.

    Attributes:
        fast: whether masks are drawn here; on a device with a fast generator of its own they are not.
    """

    def __init__(self, seed: int, fast: bool = True) -> None:
        self.seed = seed
        self.fast = fast
        self.start(0)

    def start(self, step: int) -> None:
        """Begin the stream of a step."""
        self._generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence((self.seed, step))))

    def lanes(self, count: int) -> torch.Tensor:
        """``count`` uniform numbers; int16, shape (count,)."""
        words = self._generator.integers(0, 2**64, size=-(-count // 4), dtype=np.uint64)
        return torch.from_numpy(words.view(np.int16))[:count]


@dataclass(frozen=True)
class Rate:
    """A dropout rate as lanes know it.

    Attributes:
        threshold: lanes below it are dropped.
        boost: what stays is multiplied by it, the inverse of the share that really stays.
    """

    threshold: int
    boost: float

    @classmethod
    def of(cls, rate: float) -> Rate:
        dropped = min(round(rate * _LANES), _LANES - 1)
        return cls(dropped - _LANES // 2, _LANES / (_LANES - dropped))


def apply(states: torch.Tensor, lanes: torch.Tensor, rate: Rate) -> torch.Tensor:
    """``states`` with the elements of dropped lanes 0 and the others boosted; lanes (elements,) in row-major order."""
    compiled = kernels.load()
    if compiled is not None and states.dtype == torch.float32:
        return compiled.drop(states.contiguous(), lanes, rate.threshold, rate.boost)
    return states * (lanes.view(states.shape) >= rate.threshold).to(states.dtype).mul_(rate.boost)


class Dropout(torch.nn.Module):
    """What takes the place of ``torch.nn.Dropout`` while training; it has no parameters and no state."""

    def __init__(self, rate: float, masks: Masks) -> None:
        super().__init__()
        self.p = rate
        self.masks = masks

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return states
        return drop(states, self.p, self.masks)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def drop(states: torch.Tensor, rate: float, masks: Masks) -> torch.Tensor:
    """Dropout (Srivastava et al., 2014) of any tensor."""
    return _Dropped.apply(states, masks.lanes(states.numel()), Rate.of(rate))  # type: ignore[no-any-return, no-untyped-call]


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, lanes: torch.Tensor, rate: Rate) -> torch.Tensor:
        ctx.save_for_backward(lanes)
        ctx.rate = rate
        return apply(states, lanes, rate)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (lanes,) = ctx.saved_tensors
        return apply(gradient, lanes, ctx.rate), None, None
