"""A frozen base of which no process holds more than its part: stage 3 of ZeRO (Rajbhandari et al., 2020, arXiv
1910.02054), PyTorch's fully sharded data parallel.

Of each weight every process keeps one part. All of it is put together for a product, and let go behind it. What trains
is small and stays whole in each, so steps, checkpoints and adapters are as ever, and so are packed batches.

Processes do not have to be in step. Each says which weight it is at, or that it is at none and waits, and all send
their parts to whoever needs them, until none does. So one may have more batches than another, write a longer answer,
run out of memory or work alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from featherweight.engine.fleet import Together, connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from featherweight.sources.held import Packed

_NONE = -1  # a process is at no weight
_BYTES = 64  # to a multiple of which a tensor begins, so that it can be seen as numbers of any kind


@dataclass(frozen=True)
class _Place:
    """Of one tensor in its weight's bytes."""

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
        self._parts: list[torch.Tensor] = []  # bytes
        fleet.meanwhile = self._serve

    def cut(self, packed: Packed) -> tuple[Packed, Callable[[], Packed]]:
        """This process's part of a weight, and what puts it together again."""
        places, end = dict[str, _Place](), 0
        for name, value in packed.items():
            start = _rounded_up(end)
            end = start + value.numel() * value.element_size()
            places[name] = _Place(value.dtype, value.shape, start, end)
        size = _rounded_up(math.ceil(end / self._fleet.size))
        first = self._fleet.rank * size
        part = torch.zeros(size, dtype=torch.uint8)
        for name, place in places.items():
            begin, until = max(place.start, first), min(place.end, first + size)
            if begin < until:
                content = packed[name].contiguous().view(-1).view(torch.uint8)
                part[begin - first : until - first] = content[begin - place.start : until - place.start]
        self._parts.append(part.to(self._device))
        return {"weight": self._parts[-1]}, partial(self._whole, len(self._parts) - 1, places)

    def said(self, weights: int) -> str:
        """How many are shared out, in words."""
        return f"{self._fleet.size} processes keep a part each of its {weights:,} frozen weights"

    def _whole(self, number: int, places: dict[str, _Place]) -> Packed:
        part = self._parts[number]
        content = part.new_empty(self._fleet.size * len(part))  # memory runs out before others count on this process
        self._exchange(number, content)
        return {name: content[one.start : one.end].view(one.dtype).view(one.shape) for name, one in places.items()}

    def _serve(self) -> None:
        """Send what others need until all wait."""
        while self._exchange(_NONE, None):
            pass

    @torch.no_grad()
    def _exchange(self, number: int, content: torch.Tensor | None) -> bool:
        """Send each process its weight.

        Args:
            number: of the weight that this one is at.
            content: where its bytes go; None where it is at none.

        Returns:
            Whether any was at one.
        """
        at = [torch.empty(1, dtype=torch.int64) for _ in range(self._fleet.size)]
        with connected():
            torch.distributed.all_gather(at, torch.tensor([number]))
            numbers = [int(one) for one in at]
            if content is not None and len({*numbers}) == 1:
                torch.distributed.all_gather_single(content, self._parts[number])
                return True
            for rank, its in enumerate(numbers):
                if its != _NONE:
                    into = [*content.chunk(len(at))] if content is not None and rank == self._fleet.rank else None
                    torch.distributed.gather(self._parts[its], into, dst=rank)
        return max(numbers) != _NONE


def _rounded_up(count: int) -> int:
    return -(-count // _BYTES) * _BYTES
