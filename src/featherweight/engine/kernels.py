"""The optional compiled kernels of ``kernels.c``: built once with the machine's own C compiler, kept in the cache.

Where there is no compiler, :func:`load` gives None and PyTorch's operations give the same numbers, more slowly.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from featherweight.errors import ResourceError
from featherweight.sources.cache import cached, key_of

_SOURCE = Path(__file__).with_suffix(".c")
# Nothing of -ffast-math that would change how the whole process treats tiny numbers.
_FLAGS = [
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
    "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC",
]  # fmt: skip


class Shape(ctypes.Structure):
    """The C side's ``Shape``, field for field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "texts", "heads", "groups", "size", "longest",
            "q_token", "q_head", "k_token", "k_head", "v_token", "v_head", "causal", "window", "threads", "threshold",
        )),
        ("scale", ctypes.c_float),
        ("boost", ctypes.c_float),
    ]  # fmt: skip


@dataclass(frozen=True)
class Kernels:
    """The loaded library. Tensors are fp32 on the processor; ``starts`` and ``lane_starts`` int64, ``lanes`` int16."""

    library: Any

    def attention_forward(
        self,
        shape: Shape,
        starts: torch.Tensor,
        states: Sequence[torch.Tensor],
        lanes: torch.Tensor | None,
        lane_starts: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output (tokens, heads, size) and the logarithms of the weights' sums (heads, tokens)."""
        tokens = states[0].shape[2]
        out = torch.empty(tokens, shape.heads, shape.size)
        sums = torch.empty(shape.heads, tokens)
        arguments = (starts, *states, lanes, lane_starts, out, sums)
        _check(self.library.attention_forward(ctypes.byref(shape), *map(_pointer, arguments)))
        return out, sums

    def attention_backward(
        self,
        shape: Shape,
        starts: torch.Tensor,
        states: Sequence[torch.Tensor],
        lanes: torch.Tensor | None,
        lane_starts: torch.Tensor,
        out: torch.Tensor,
        sums: torch.Tensor,
        gradient: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of query (tokens, heads, size), key and value (tokens, key-value heads, size)."""
        tokens = states[0].shape[2]
        kv_heads = shape.heads // shape.groups
        d_q = torch.empty(tokens, shape.heads, shape.size)
        d_k, d_v = (torch.empty(tokens, kv_heads, shape.size) for _ in range(2))
        arguments = (starts, *states, lanes, lane_starts, out, sums, gradient, d_q, d_k, d_v)
        _check(self.library.attention_backward(ctypes.byref(shape), *map(_pointer, arguments)))
        return d_q, d_k, d_v

    def drop(self, states: torch.Tensor, lanes: torch.Tensor, threshold: int, boost: float) -> torch.Tensor:
        """Contiguous ``states`` times ``boost`` where the lane is not below the threshold, else 0."""
        out = torch.empty_like(states)
        self.library.drop(
            ctypes.c_int64(states.numel()), _pointer(states), _pointer(lanes), ctypes.c_int64(threshold),
            ctypes.c_float(boost), _pointer(out), ctypes.c_int64(torch.get_num_threads()),
        )  # fmt: skip
        return out


@cache
def load() -> Kernels | None:
    """The kernels, compiled if they are not in the cache; None where that can't be done (see :func:`status`)."""
    library, _ = _load()
    return Kernels(library) if library is not None else None


def status() -> str:
    """One line for `doctor`: whether the kernels are there, and why not."""
    return _load()[1]


@cache
def _load() -> tuple[Any, str]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None, "no C compiler found (install gcc or clang for faster training); PyTorch's operations do the work"
    source = _SOURCE.read_text(encoding="utf-8")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    name = "kernels.so"

    def build(folder: Path) -> None:
        command = [compiler, *_FLAGS, "-o", str(folder / name), str(_SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)

    try:
        folder = cached("kernels", key_of(source, _FLAGS, version, _processor_features()), build)
        library = ctypes.CDLL(str(folder / name))
    except (OSError, subprocess.SubprocessError, ResourceError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        return None, f"{compiler} could not build them ({reason.strip().splitlines()[-1]}); PyTorch does the work"
    return library, f"compiled by {compiler}"


def _processor_features() -> str:
    """What ``-march=native`` depends on, so that a cache shared by unlike machines stays right."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()


def _pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("attention could not allocate its scratch memory")
