"""What this machine does well, measured once and kept: threads, evaluation batches, and whether bf16 is worth it.

What it finds in a busy moment stays, so it may only choose what costs little when it is wrong: never fewer threads.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from featherweight.batching import TOKEN_BUDGET
from featherweight.errors import ResourceError
from featherweight.sources.cache import cached, key_of

_BUDGETS = (1024, 2048, 4096, 8192)
_WORTH = 1.15  # a default is left only for what is so many times as fast: a measurement of a moment is not exact
_WIDTH = 512


@dataclass(frozen=True)
class Probe:
    """What was found, in floating-point operations a second where it is a rate.

    Attributes:
        fp32, bf16: matrix products of a block's size.
        threads: how many PyTorch should use.
        threads_reason: why.
        token_budget: tokens of an evaluation batch.
        budget_reason: why.
    """

    fp32: float
    bf16: float
    threads: int
    threads_reason: str
    token_budget: int
    budget_reason: str

    @property
    def precision_reason(self) -> str:
        """Why training is in fp32 unless the recipe says otherwise."""
        return (
            f"fp32 at {self.fp32 / 1e9:.0f} GFLOP/s, bf16 at {self.bf16 / 1e9:.0f}; lower precision is not the same "
            "mathematics, so it is used only where the recipe asks for it"
        )


@cache
def probe() -> Probe:
    """Measure, in less than 2 s, or read what was measured on this machine before."""
    from featherweight.engine.hardware import describe

    machine = describe()
    key = key_of(
        *(machine[name] for name in ("processor", "cores", "device")),
        torch.__version__,
        list(Probe.__dataclass_fields__),
    )

    def build(folder: Path) -> None:
        (folder / "probe.json").write_text(json.dumps(asdict(_measure())), encoding="utf-8")

    try:
        return Probe(**json.loads((cached("probe", key, build) / "probe.json").read_text(encoding="utf-8")))
    except (ResourceError, OSError, ValueError, TypeError):
        return _measure()  # a cache that can't be written or read costs its second again


def _measure() -> Probe:
    before = torch.get_num_threads()
    rates = {}
    for threads in dict.fromkeys((before, max(before // 2, 1))):
        torch.set_num_threads(threads)
        rates[threads] = _rate(2048, torch.float32)
    torch.set_num_threads(before)
    speeds = {budget: _rate(budget, torch.float32) for budget in _BUDGETS}
    fastest = max(speeds, key=lambda budget: speeds[budget])
    budget = fastest if speeds[fastest] > _WORTH * speeds[TOKEN_BUDGET] else TOKEN_BUDGET
    shown = ", ".join(f"{rate / 1e9:.0f} GFLOP/s with {number}" for number, rate in rates.items())
    return Probe(
        fp32=rates[before],
        bf16=_rate(64, torch.bfloat16),
        threads=before,
        threads_reason=f"PyTorch's own number; measured: {shown}",
        token_budget=budget,
        budget_reason="measured: "
        + ", ".join(f"{speed / 1e9:.0f} GFLOP/s at {size} tokens" for size, speed in speeds.items()),
    )


def _rate(rows: int, dtype: torch.dtype, repeats: int = 3) -> float:
    """The best of a few products of (rows, width) by (width, width)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, other = (torch.ones(size, _WIDTH, dtype=dtype, device=device) for size in (rows, _WIDTH))
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        float((one @ other)[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * rows * _WIDTH**2 / best
