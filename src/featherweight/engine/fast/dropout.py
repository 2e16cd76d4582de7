"""Dropout at the cost of a multiplication.

PyTorch draws one 64-bit number for each element on one thread, which took a third of a step. Here an element's number
is a keyed hash of its index: it is never stored, forward and backward compute it where they need it, on any number of
threads, and the rate is exact to 2**-32. A key depends on the run's seed, the step, the process among several and how
many were asked for before it in that step, so a resumed run drops the same elements without any saved state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine.fast import kernels

_NUMBERS = 2**32
_BLOCK = 2**16  # elements whose intermediate results stay in the cache


@dataclass(frozen=True)
class Mask:
    """Which elements of one tensor are dropped.

    Attributes:
        first, second: the key's halves, below 2**32.
        rate: share that is dropped.
    """

    first: int
    second: int
    rate: float

    @property
    def threshold(self) -> int:
        """Elements whose number is below it are dropped."""
        return min(round(self.rate * _NUMBERS), _NUMBERS - 1)

    @property
    def boost(self) -> float:
        """What stays is multiplied by it: the inverse of the share that really stays."""
        return _NUMBERS / (_NUMBERS - self.threshold)

    def numbers(self, count: int, start: int = 0) -> NDArray[np.uint32]:
        """Uniform numbers of the elements from ``start`` on; uint32, shape (count,).

        The same three rounds of a 32-bit mixer as in ``csrc/vector.h``.
        """
        found = np.empty(count, dtype=np.uint32)
        for at in range(0, count, _BLOCK):
            x = found[at : at + _BLOCK]
            index = start + at + self.first
            x[:] = np.arange(index, index + len(x), dtype=np.int64).astype(np.uint32)
            x ^= x >> 17
            x *= np.uint32(0xED5AD4BB)
            x += np.uint32(self.second)
            x ^= x >> 11
            x *= np.uint32(0xAC4C1B51)
            x ^= x >> 15
            x *= np.uint32(0x31848BAB)
            x ^= x >> 14
        return found

    def factors(self, shape: torch.Size, like: torch.Tensor, start: int = 0) -> torch.Tensor:
        """0 for what is dropped and :attr:`boost` for what stays."""
        stays = self.numbers(shape.numel(), start) >= self.threshold
        return torch.from_numpy(stays).view(shape).to(like.dtype).mul_(self.boost)

    @cached_property
    def compiled(self) -> kernels.Dropout:
        """What the compiled kernels take."""
        return kernels.Dropout(self.first, self.second, self.threshold, self.boost, 1)


class Masks:
    """Gives every place that drops something its key.

    Attributes:
        fast: whether masks are drawn here; on a device with a fast generator of its own they are not.
        place: where in the step's series of keys the next one is.
    """

    def __init__(self, seed: int, fast: bool = True) -> None:
        self.seed = seed
        self.fast = fast
        self.start(0)

    def start(self, step: int, rank: int = 0) -> None:
        """Begin a step.

        Args:
            rank: of this process among those that share the step's rows.
        """
        # NumPy fills what is given up with zeros, so that rank 0's keys are those of a process that is alone.
        self.place = int(np.random.SeedSequence((self.seed, step, rank)).generate_state(1, np.uint64)[0])

    def draw(self, rate: float) -> Mask:
        """The next mask of the step. Keys are those of SplitMix64 (Steele, Lea and Flood, 2014)."""
        self.place = (self.place + 0x9E3779B97F4A7C15) % 2**64
        z = self.place
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        return Mask(z % _NUMBERS, z // _NUMBERS, rate)


def apply(states: torch.Tensor, mask: Mask) -> torch.Tensor:
    """``states`` with what the mask drops 0 and the others boosted."""
    compiled = kernels.usable(states)
    if compiled is not None:
        return compiled.drop(states.contiguous(), mask.compiled)
    return states * mask.factors(states.shape, states)


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
    return _Dropped.apply(states, masks.draw(rate))  # type: ignore[no-any-return, no-untyped-call]


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, mask: Mask) -> torch.Tensor:
        ctx.mask = mask
        return apply(states, mask)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return apply(gradient, ctx.mask), None
