"""What a stretch of work costs: seconds, processor seconds, memory, energy."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from featherweight.engine.hardware import give_back_freed_memory
from featherweight.records.outcome import Cost, Energy

WATTS_PER_CORE = 5.0  # a server processor's rated power divided by its cores: 3 to 8 W; used where nothing is counted
_COUNTERS = Path("/sys/class/powercap")
_SECONDS_BETWEEN_SAMPLES = 0.02


class Meter:
    """Measures what happens between entering and leaving it, in this process.

    Memory is resident memory at its highest, sampled 50 times a second, less what was resident at the start: what the
    work added to what was there. Energy is that of the whole processor where its counter (RAPL) can be read, and else
    an estimate, :data:`WATTS_PER_CORE` times processor time.
    """

    def __init__(self, counters: Path = _COUNTERS) -> None:
        self._counters = counters

    def __enter__(self) -> Meter:
        give_back_freed_memory()  # else what was kept would hide what is added now
        self._done = threading.Event()
        self._first = self._most = _resident()
        self._energy = _joules(self._counters)
        self._processor, self._started = time.process_time(), time.perf_counter()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.processor_seconds = time.process_time() - self._processor
        self._done.set()
        self._sampler.join()
        self._most = max(self._most, _resident())

    def cost(self) -> Cost:
        return {
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "memory_growth_bytes": self._most - self._first if self._first else None,
        }

    def energy(self) -> Energy:
        now = _joules(self._counters)
        if now and self._energy.keys() == now.keys():
            spent = sum(_since(self._energy[name], now[name]) for name in now)
            return {"joules": spent, "estimate": False, "source": "RAPL counter of the whole processor"}
        return {
            "joules": self.processor_seconds * WATTS_PER_CORE,
            "estimate": True,
            "source": f"processor time at {WATTS_PER_CORE:g} W a core; no counter can be read here",
        }

    def _sample(self) -> None:
        while not self._done.wait(_SECONDS_BETWEEN_SAMPLES):
            self._most = max(self._most, _resident())


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where it can't be read."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _joules(counters: Path) -> dict[str, tuple[float, float]]:
    """Of each processor package its energy counter and where that wraps around, in joules."""
    found = {}
    for folder in sorted(counters.glob("intel-rapl:[0-9]*")):  # AMD's counters go by the same name
        if folder.name.count(":") > 1:  # a part of a package, which the package counts already
            continue
        try:
            now, wraps = ((folder / name).read_text(encoding="ascii") for name in ("energy_uj", "max_energy_range_uj"))
            found[folder.name] = (int(now) / 1e6, int(wraps) / 1e6)
        except (OSError, ValueError):
            continue
    return found


def _since(before: tuple[float, float], now: tuple[float, float]) -> float:
    """Joules between two readings of a counter that went round at most once."""
    spent = now[0] - before[0]
    return spent if spent >= 0 else spent + now[1]
