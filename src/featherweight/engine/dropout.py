"""Dropout at the cost of a multiplication.

PyTorch draws one 64-bit number for each element on one thread, which took a third of a step. Here one 64-bit number
serves four elements: each of its 16-bit quarters is compared with a threshold, so the rate is exact to 2**-17, and the
elements that stay are scaled by the inverse of the rate that was really used. The stream is seeded by the run's seed
and the step, so a resumed run draws the same masks without any saved state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

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

    def draw(self, shape: Sequence[int], rate: float) -> torch.Tensor:
        """0 with probability ``rate`` and 1 / (1 - ``rate``) otherwise, independently; fp32 of ``shape``."""
        dropped = min(round(rate * _LANES), _LANES - 1)
        count = math.prod(shape)
        words = self._generator.integers(0, 2**64, size=-(-count // 4), dtype=np.uint64)
        lanes = torch.from_numpy(words.view(np.int16))[:count].view(*shape)
        kept = lanes >= dropped - _LANES // 2
        return kept.to(torch.float32).mul_(_LANES / (_LANES - dropped))


class Dropout(torch.nn.Module):
    """What takes the place of ``torch.nn.Dropout`` while training; it has no parameters and no state."""

    def __init__(self, rate: float, masks: Masks) -> None:
        super().__init__()
        self.p = rate
        self.masks = masks

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return states
        return _Dropped.apply(states, self.masks.draw(states.shape, self.p))  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(keep)
        return states * keep

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return gradient * keep, None
