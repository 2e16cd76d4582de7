"""A frozen base of which no process holds more than its part: stage 3 of ZeRO (Rajbhandari et al., 2020, arXiv
1910.02054), PyTorch's fully sharded data parallel.

Of the weights every process keeps one part. A few that follow one another are put together at a time, and those before
let go. What trains is small and stays whole in each, so steps, checkpoints and adapters are as ever, and so are packed
batches.

Processes do not have to be in step. Each says which weights it is at, or that it is at none and waits, and all send
their parts to whoever needs them, until none does. So one may have more batches than another, write a longer answer,
run out of memory or work alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from featherweight.engine.fleet import Together, connected

if TYPE_CHECKING:
    from featherweight.sources.held import Packed

_NONE = -1  # a process is at no weights
_TOGETHER = 16 << 20  # bytes; to ask for fewer takes as long as to send them
_ALIGNED = 64  # bytes, so that any dtype can be seen in them


@dataclass(frozen=True)
class _Place:
    """Of a tensor in the bytes of its weights."""

    dtype: torch.dtype
    shape: torch.Size
    start: int
    end: int


class Shards:
    """The parts of this process.

    Args:
        fleet: of several processes, each of which cuts the same weights in the same order.
        device: where parts are kept and weights are needed.
    """

    def __init__(self, fleet: Together, device: torch.device) -> None:
        self._fleet = fleet
        self._device = device
        self._parts: list[torch.Tensor] = []  # bytes; each of some weights
        self._waiting: list[tuple[int, torch.Tensor]] = []  # whole ones to be cut together, with where they begin
        self._end = 0
        self._content = torch.empty(0, dtype=torch.uint8, device=device)  # of the weights that are whole now
        self._at = _NONE
        fleet.meanwhile = self._serve

    def cut(self, packed: Packed) -> Callable[[], Packed]:
        """Keep this process's part of a weight.

        Returns:
            What gives all of it, until another is asked for.
        """
        number, places = len(self._parts), dict[str, _Place]()
        for name, value in packed.items():
            start = _rounded_up(self._end)
            self._end = start + value.nbytes
            self._waiting.append((start, value))
            places[name] = _Place(value.dtype, value.shape, start, self._end)
        if self._end >= _TOGETHER:
            self._close()
        return partial(self._whole, number, places)

    @property
    def kept_bytes(self) -> int:
        """Of all parts."""
        self._close()
        return sum(map(len, self._parts))

    def _close(self) -> None:
        if not self._waiting:
            return
        size = _rounded_up(math.ceil(self._end / self._fleet.size))
        first = self._fleet.rank * size
        part = torch.zeros(size, dtype=torch.uint8)
        for start, value in self._waiting:
            begin, until = max(start, first), min(start + value.nbytes, first + size)
            if begin < until:
                content = value.contiguous().view(-1).view(torch.uint8)
                part[begin - first : until - first] = content[begin - start : until - start]
        self._parts.append(part.to(self._device))
        self._waiting, self._end = [], 0

    def _whole(self, number: int, places: dict[str, _Place]) -> Packed:
        self._close()
        if number != self._at:
            self._at, size = _NONE, self._fleet.size * len(self._parts[number])
            if len(self._content) < size:  # memory runs out before the others count on this process
                self._content = torch.empty(0)
                self._content = self._parts[number].new_empty(size)
            self._exchange(number, self._content[:size])
            self._at = number
        return {
            name: self._content[one.start : one.end].view(one.dtype).view(one.shape) for name, one in places.items()
        }

    def _serve(self) -> None:
        """Send what others need until all wait."""
        self._close()
        while self._exchange(_NONE, None):
            pass

    @torch.no_grad()
    def _exchange(self, number: int, content: torch.Tensor | None) -> bool:
        """Send each process its weights.

        Args:
            number: of the weights that this one is at.
            content: where their bytes go; None where it is at none.

        Returns:
            Whether any was at some.
        """
        at = [torch.empty(1, dtype=torch.int64) for _ in range(self._fleet.size)]
        with connected():
            torch.distributed.all_gather(at, torch.tensor([number]))
            numbers = [int(one) for one in at]
            if content is not None and len({*numbers}) == 1:
                self._gather(self._parts[number], content)
                return True
            for rank, its in enumerate(numbers):
                if its != _NONE:
                    into = [*content.chunk(len(at))] if content is not None and rank == self._fleet.rank else None
                    torch.distributed.gather(self._parts[its], into, dst=rank)
        return max(numbers) != _NONE

    def _gather(self, part: torch.Tensor, content: torch.Tensor) -> None:
        """All parts for all; gloo would copy what it gathers, and does not what it broadcasts."""
        if content.is_cuda:
            torch.distributed.all_gather_single(content, part)
            return
        for rank, place in enumerate(content.chunk(self._fleet.size)):
            if rank == self._fleet.rank:
                place.copy_(part)
            torch.distributed.broadcast(place, rank)


def _rounded_up(count: int) -> int:
    return -(-count // _ALIGNED) * _ALIGNED
