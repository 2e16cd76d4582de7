"""Which of several processes this one is, by the environment that ``torchrun`` and ``accelerate launch`` give them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featherweight.errors import ConfigError

_THREADS = "OMP_NUM_THREADS"
_SHARDS = "ACCELERATE_USE_FSDP"


@dataclass(frozen=True)
class Place:
    """One process among those that a launcher started.

    Attributes:
        rank: counted from 0 over all machines.
        size: how many there are.
        local_rank, local_size: likewise, of this machine's alone.
        restarts: how often the launcher has started them all again.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place; alone where no launcher says otherwise."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(environment.get(name, "").isdigit() for name in names):
        return Place()
    rank, size, local_rank = (int(environment[name]) for name in names)
    local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    return Place(rank, size, local_rank, local_size, int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)))


def require_alone(what: str) -> None:
    """Raises ConfigError where several processes were started for what one does."""
    if not place().is_alone:
        raise ConfigError(f"{what}: is one process's work; start it without a launcher")


def require_whole(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError where Accelerate was asked for several processes and has started one, as it does where there
    is no GPU: it leaves them the address to meet at, and no rank."""
    is_accelerates = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys()
    if is_accelerates and place(environment).is_alone and "RANK" not in environment:
        raise ConfigError(
            "accelerate launch: without --multi_gpu it starts one process on processors; give it that, or leave it "
            "out and give featherweight run --num-processes"
        )


def shards(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``accelerate launch --use_fsdp`` has started this process."""
    return environment.get(_SHARDS, "").lower() == "true"


@contextmanager
def unsaid_shards() -> Iterator[None]:
    """Within this context the environment does not say so, to libraries that would share out by themselves."""
    said = os.environ.pop(_SHARDS, None)
    try:
        yield
    finally:
        if said is not None:
            os.environ[_SHARDS] = said


def threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """How many threads this process gets: its machine's processors divided by its machine's processes. None where it
    is alone, or the user has said how many.

    ``torchrun`` gives each process one thread where nobody says how many, so a 1 counts as the user's only where the
    launcher itself was started with it.
    """
    here = place(environment)
    if here.is_alone or (given(environment) and not _is_launchers_own(environment)):
        return None
    return max(processors() // here.local_size, 1)


def said(environment: Mapping[str, str] = os.environ) -> str:
    """How many threads this process gets and why, in words."""
    count, here = threads(environment), place(environment)
    if count is None:
        return f"{_THREADS} is {environment.get(_THREADS)}"
    each = f"{count} thread{'s' if count > 1 else ''} for each"
    return f"{each}: {processors()} processors for {here.local_size} processes"


def given(environment: Mapping[str, str]) -> bool:
    """Whether the environment says how many threads there are."""
    return bool(environment.get(_THREADS))


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_launchers_own(environment: Mapping[str, str]) -> bool:
    if environment[_THREADS] != "1":
        return False
    try:
        began = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:  # not Linux, or another user's: nobody knows
        return False
    return not any(one.startswith(f"{_THREADS}=".encode()) for one in began)
