"""Several processes that make one run: what they have to tell each other.

What trains is small, so a step needs one sum over all processes: of the gradient, laid end to end, with the loss and
what each wishes behind it. All else is told by rank 0, or told to all, a few times a run. Nothing that is told is a
pickle.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from featherweight.errors import ConfigError, Interrupted
from featherweight.process import launch

if TYPE_CHECKING:
    from collections.abc import Iterator

Made = TypeVar("Made")

# A process that dies closes its connections, which the others notice at once. One that works alone, as rank 0 does on
# the baselines, lets them wait as long as that takes.
_PATIENCE = timedelta(days=7)
_MEETING = timedelta(minutes=10)
_LAST_WORDS = "last-words"
_ASKED = f"{_LAST_WORDS}/asked"
_LINGERS, _LOOK, _GIVING_BACK = 2.0, 0.02, 0.1  # seconds


@dataclass(frozen=True)
class Said:
    """What a process says of a step beside its part of the gradient; of all processes, their sum.

    Attributes:
        loss: of its rows, divided by the items of the whole step.
        items: of its rows.
        out_of_memory: it has no gradient, since memory ran out.
        stop: it was asked to stop.
    """

    loss: float
    items: int
    out_of_memory: bool
    stop: bool


class Fleet(Protocol):
    """The processes of a run. Every method but :meth:`stops` and :meth:`announce` has to be called by all of them, in
    the same order.

    Attributes:
        rank: of this process, counted from 0.
        size: how many there are.

    Raises:
        Interrupted: out of each method, where one of the others is gone.
    """

    rank: int
    size: int

    def add_up(self, parameters: Sequence[torch.Tensor], said: Said) -> Said:
        """Sum the parameters' gradients, in place, and what is said of the step."""
        ...

    def stops(self, wish: bool, said: Said | None) -> bool:
        """Whether all stop before the next step.

        Args:
            wish: this process's own, of now.
            said: of the last step, by all.
        """
        ...

    def announce(self, work: str, **given: Any) -> None:
        """Rank 0 tells the others, which wait in :meth:`share`, what all do next."""
        ...

    def share(self, content: Any) -> Any:
        """What rank 0 has, which JSON can hold; whatever the others have goes."""
        ...

    def gather(self, content: bytes) -> list[bytes]:
        """What each process has, in the order of their ranks, for all of them."""
        ...

    def others(self, make: Callable[[], bytes]) -> list[bytes]:
        """What each of the others has; what this one has for them is only made where there are some."""
        ...

    def share_values(self, values: Sequence[torch.Tensor]) -> None:
        """Give tensors, in place, the numbers that rank 0's have."""
        ...

    def first_here(self, work: Callable[[], Made]) -> Made:
        """Do what leaves something in a cache: one process of each machine first, then the others, who find it."""
        ...

    def barrier(self) -> None:
        """Wait until all are here."""
        ...


class Alone:
    """One process, which has nobody to tell."""

    rank = 0
    size = 1

    def add_up(self, parameters: Sequence[torch.Tensor], said: Said) -> Said:
        return said

    def stops(self, wish: bool, said: Said | None) -> bool:
        return wish

    def announce(self, work: str, **given: Any) -> None: ...

    def share(self, content: Any) -> Any:
        return content

    def gather(self, content: bytes) -> list[bytes]:
        return [content]

    def others(self, make: Callable[[], bytes]) -> list[bytes]:
        return []

    def share_values(self, values: Sequence[torch.Tensor]) -> None: ...

    def first_here(self, work: Callable[[], Made]) -> Made:
        return work()

    def barrier(self) -> None: ...


class Together:
    """Several processes, by ``torch.distributed``.

    Args:
        place: of this process.
    """

    def __init__(self, place: launch.Place) -> None:
        self.rank = place.rank
        self.size = place.size
        self.meanwhile: Callable[[], None] = nothing  # done until all of them have something to tell
        self._place = place
        self._store: Any = None  # where a process leaves its last words

    def meet(self) -> None:
        """Connect with the others, where nobody has done that; nobody goes on before all are there.

        Raises:
            ConfigError: there are more processes on this machine than devices.
        """
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if (threads := launch.threads()) is not None:
            torch.set_num_threads(threads)
        devices = torch.cuda.device_count()
        if devices:
            if self._place.local_size > devices:
                raise ConfigError(f"{self._place.local_size} processes for {devices} CUDA devices; start one for each")
            torch.cuda.set_device(self._place.local_rank)
        # Of Accelerate's; transformers would then read the weights in one process alone.
        os.environ.pop("FSDP_CPU_RAM_EFFICIENT_LOADING", None)
        if not torch.distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if devices else "gloo"
            with connected():
                store, rank, size = next(rendezvous("env://", timeout=_MEETING))
                # A launcher that starts all again has the same store, with what those before left in it.
                self._store = PrefixStore(f"featherweight/{self._place.restarts}", store)
                torch.distributed.init_process_group(
                    backend, store=self._store, rank=rank, world_size=size, timeout=_PATIENCE
                )
            atexit.register(self._part)
        self.barrier()

    def add_up(self, parameters: Sequence[torch.Tensor], said: Said) -> Said:
        known = [float(one.grad is not None) for one in parameters]
        behind = torch.tensor([*known, said.loss, said.items, said.out_of_memory, said.stop])
        pieces = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([*(one.detach().flatten().float() for one in pieces), behind.to(pieces[0].device)])
        with self._telling():
            torch.distributed.all_reduce(flat)
        *known, loss, items, out_of_memory, stop = flat[-len(behind) :].tolist()
        start = 0
        for one, of_any in zip(parameters, known, strict=True):
            end = start + one.numel()
            one.grad = flat[start:end].view(one.shape).to(one.dtype) if of_any else None
            start = end
        return Said(loss, int(items), bool(out_of_memory), bool(stop))

    def stops(self, wish: bool, said: Said | None) -> bool:
        return said is not None and said.stop

    def announce(self, work: str, **given: Any) -> None:
        if self.rank == 0:
            self.share({"work": work, **given})

    def share(self, content: Any) -> Any:
        told = _tensor(json.dumps(content).encode()) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(told)])
        with self._telling():
            torch.distributed.broadcast(size, 0)
            told = told if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
            torch.distributed.broadcast(told, 0)
        return json.loads(bytes(told.numpy()))

    def gather(self, content: bytes) -> list[bytes]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._telling():
            torch.distributed.all_gather(sizes, torch.tensor([len(content)]))
            most = int(max(sizes))
            found = [torch.empty(most, dtype=torch.uint8) for _ in sizes]
            torch.distributed.all_gather(found, _tensor(content.ljust(most, b"\0")))
        return [bytes(one[:size].numpy()) for one, size in zip(found, map(int, sizes), strict=True)]

    def others(self, make: Callable[[], bytes]) -> list[bytes]:
        found = self.gather(make())
        return found[: self.rank] + found[self.rank + 1 :]

    @torch.no_grad()
    def share_values(self, values: Sequence[torch.Tensor]) -> None:
        with self._telling():
            for one in filter(torch.numel, values):
                numbers = one.detach().contiguous()
                torch.distributed.broadcast(numbers, 0)
                one.copy_(numbers)

    def first_here(self, work: Callable[[], Made]) -> Made:
        if self._place.local_rank == 0:
            made = work()
            self.barrier()
            return made
        self.barrier()
        return work()

    def barrier(self) -> None:
        with self._telling():
            torch.distributed.all_reduce(torch.zeros(1))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        self.meanwhile()
        with connected():
            yield

    def last_words(self, code: int, say: Callable[[], None]) -> int:
        """How a process that fails ends: the first of them says why, and all end with its code.

        Returns:
            The exit code.
        """
        said = {"rank": self.rank, "code": code}
        with suppress(AttributeError, RuntimeError):  # there is no store, or it went with the process that had it
            said = json.loads(self._store.compare_set(_LAST_WORDS, "", json.dumps(said)))
        if said["rank"] == self.rank:
            say()
        with suppress(AttributeError, RuntimeError):
            self._let_others_ask()
        return said["code"]

    def _let_others_ask(self) -> None:
        """The store may go with rank 0, which parts from the others first, so that they notice, and waits a moment for
        them to ask."""
        asked, until = self._store.add(_ASKED, 1), time.monotonic() + _LINGERS
        if self.rank == 0:
            self._part()
        while self.rank == 0 and asked < self.size and time.monotonic() < until:
            time.sleep(_LOOK)
            asked = self._store.add(_ASKED, 0)

    def _part(self) -> None:
        """Gloo's threads give back what they were handed once more than they say that it is done, and end the process
        in a bad way where the interpreter is gone by then."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
            time.sleep(_GIVING_BACK)


ALONE = Alone()
_joined: Together | None = None


def join() -> Fleet:
    """The processes that this one was started among.

    Raises:
        ConfigError: there are more on this machine than devices.
    """
    global _joined  # noqa: PLW0603 - a process is connected once
    if launch.place().is_alone:
        return ALONE
    if _joined is None:
        _joined = Together(launch.place())
        _joined.meet()
    return _joined


def joined() -> Together | None:
    """The same once it was asked for; None before, and where there is one process."""
    return _joined


def nothing() -> None:
    """Of what is done meanwhile."""


def _tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


@contextmanager
def connected() -> Iterator[None]:
    """Raises Interrupted instead of whatever a connection that ends raises."""
    try:
        yield
    except RuntimeError as error:
        raise Interrupted("another process of the run ended, or its machine is gone") from error
