"""The optional compiled kernels of ``csrc``: built once with the machine's own C compiler, kept in the cache.

Where there is no compiler, :func:`load` gives None and PyTorch's operations give the same numbers, more slowly.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from featherweight.errors import ResourceError
from featherweight.storage.cache import cached, file_hash, key_of
from featherweight.storage.names import printable

_SOURCES = sorted((Path(__file__).parent / "csrc").glob("*.[ch]"))
# Nothing of -ffast-math: infinities mask, and sums are in the order that the code says.
_FLAGS = [
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-shared",
    "-fPIC",
]  # fmt: skip

_LIBRARY, _DIGEST = "kernels.so", "kernels.so.sha256"
_VERSION_SECONDS, _BUILD_SECONDS = 10.0, 120.0
_MAX_SAID = 64 << 10  # bytes of what a compiler says that are looked at

ACTIVATIONS = ("gelu", "gelu_tanh", "silu")  # the C side's numbers for them

# What the functions of ``csrc`` take: whole numbers (n), fp32 ones (f), and where something lies in memory (p).
_TAKE = {
    "attention_forward": "p" * 9,
    "attention_backward": "p" * 13,
    "multiplies_bf16": "",
    "product_in_bf16": "nnnppnnnpnpppn",
    "drop": "npppn",
    "lora_forward": "nnnppppn",
    "lora_backward": "nnnnppppfpppppn",
    "activate": "nnpppn",
    "activate_backward": "nnpppppn",
    "rms_norm": "nnppfppn",
    "rms_norm_backward": "nnpppppn",
}
_KINDS = {"n": ctypes.c_int64, "f": ctypes.c_float, "p": ctypes.c_void_p}


class Dropout(ctypes.Structure):
    """The C side's ``Dropout``, field for field."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("first", "second", "threshold")),
        ("boost", ctypes.c_float),
        ("on", ctypes.c_int32),
    ]  # fmt: skip


class Shape(ctypes.Structure):
    """The C side's ``Shape``, field for field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "texts", "heads", "groups", "size", "longest",
            "q_token", "q_head", "k_token", "k_head", "v_token", "v_head", "causal", "window", "threads",
        )),
        ("scale", ctypes.c_float),
        ("dropout", Dropout),
    ]  # fmt: skip


class LoRA(NamedTuple):
    """What LoRA adds, scale (dropout(x) A') B'.

    Attributes:
        a: A (r, in).
        b: B (out, r).
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    dropout: Dropout


@dataclass(frozen=True)
class PackedRow:
    """What attention works on.

    Attributes:
        starts: int64, shape (texts + 1,), where each text's tokens start.
        firsts: int64, shape (texts,), index of each text's first weight.
        reads: int64, shape (texts,), the one token of each text whose output is wanted, the others' being 0; all are
            where there is none.
        states: query, key and value, by the strides of ``shape``.
    """

    shape: Shape
    starts: torch.Tensor
    firsts: torch.Tensor
    reads: torch.Tensor | None
    states: Sequence[torch.Tensor]

    @property
    def tokens(self) -> int:
        return int(self.states[0].shape[2])

    def result(self) -> torch.Tensor:
        """Where what is as the output is goes; (tokens, heads, size)."""
        return _result(self.reads, self.tokens, self.shape.heads, self.shape.size)

    def given(self) -> tuple[Any, ...]:
        """The library's first arguments."""
        return ctypes.byref(self.shape), *map(_address, (self.starts, self.firsts, self.reads, *self.states))


@dataclass(frozen=True)
class Kernels:
    """The loaded library. Tensors are fp32 on the processor and contiguous, where it does not say otherwise."""

    library: Any

    def attention_forward(self, row: PackedRow) -> tuple[torch.Tensor, torch.Tensor]:
        """The output (tokens, heads, size) and the logarithms of the weights' sums (heads, tokens)."""
        out, sums = row.result(), torch.empty(row.shape.heads, row.tokens)
        _check(self.library.attention_forward(*row.given(), out.data_ptr(), sums.data_ptr()))
        return out, sums

    def attention_backward(
        self, row: PackedRow, out: torch.Tensor, sums: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of query (tokens, heads, size), key and value (tokens, key-value heads, size).

        Args:
            out: what :meth:`attention_forward` gave, as ``sums``.
            gradient: of ``out``.
        """
        kv_heads = row.shape.heads // row.shape.groups
        d_q = row.result()
        d_k, d_v = (torch.empty(row.tokens, kv_heads, row.shape.size) for _ in range(2))
        _check(self.library.attention_backward(*row.given(), *map(_address, (out, sums, gradient, d_q, d_k, d_v))))
        return d_q, d_k, d_v

    def multiplies_bf16(self) -> bool:
        """Whether the processor that they were compiled for has products of bf16."""
        return bool(self.library.multiplies_bf16())

    def product_in_bf16(
        self,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        thin: torch.Tensor | None,
        up: torch.Tensor | None,
    ) -> torch.Tensor:
        """x W + b + t U, with x and W rounded to bf16 and all sums in fp32.

        Args:
            states: x (rows, in).
            weight: W (in, out), fp32 or bf16, of which one stride is 1.
            bias: b (out,).
            thin, up: t (rows, r) and U (r, out).
        """
        (rows, depth), width = states.shape, weight.shape[1]
        out = torch.empty(rows, width)
        _check(self.library.product_in_bf16(
            rows, depth, width, states.data_ptr(), weight.data_ptr(), *weight.stride(), weight.dtype == torch.bfloat16,
            _address(bias), 0 if thin is None else thin.shape[1], _address(thin), _address(up), out.data_ptr(),
            torch.get_num_threads(),
        ))  # fmt: skip
        return out

    def drop(self, states: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """``states`` after dropout."""
        out = torch.empty_like(states)
        self.library.drop(
            states.numel(), states.data_ptr(), ctypes.byref(dropout), out.data_ptr(), torch.get_num_threads()
        )
        return out

    def lora_forward(self, states: torch.Tensor, a: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """dropout(states) A'; states (tokens, in), a (r, in), result (tokens, r)."""
        (tokens, width), ranks = states.shape, a.shape[0]
        thin = torch.empty(tokens, ranks)
        self.library.lora_forward(
            tokens, width, ranks, states.data_ptr(), a.data_ptr(), ctypes.byref(dropout), thin.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return thin

    def lora_backward(
        self,
        lora: LoRA,
        states: torch.Tensor,
        thin: torch.Tensor,
        gradient: torch.Tensor,
        d_states: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of A and B; adds the states' share to ``d_states``.

        Args:
            states: (tokens, in).
            thin: what :meth:`lora_forward` gave.
            gradient: of the result, (tokens, out).
        """
        (tokens, width), (up, ranks) = states.shape, lora.b.shape
        d_a, d_b = torch.empty(ranks, width), torch.empty(up, ranks)
        _check(self.library.lora_backward(
            tokens, width, up, ranks, *map(_address, (states, thin, lora.a, lora.b)), lora.scale,
            ctypes.byref(lora.dropout), *map(_address, (gradient, d_a, d_b, d_states)), torch.get_num_threads(),
        ))  # fmt: skip
        return d_a, d_b

    def activate(self, kind: str, states: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        """f(states), times ``gate`` where there is one."""
        out = torch.empty_like(states)
        self.library.activate(
            ACTIVATIONS.index(kind), states.numel(), states.data_ptr(), _address(gate), out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    def activate_backward(
        self, kind: str, states: torch.Tensor, gate: torch.Tensor | None, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gradients of the states and, where there is one, of the gate."""
        d_states, d_gate = torch.empty_like(states), None if gate is None else torch.empty_like(gate)
        self.library.activate_backward(
            ACTIVATIONS.index(kind), states.numel(), *map(_address, (states, gate, gradient, d_states, d_gate)),
            torch.get_num_threads(),
        )  # fmt: skip
        return d_states, d_gate

    def rms_norm(self, states: torch.Tensor, weight: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Root-mean-square norm of the last dimension, and what each row was multiplied by."""
        width = weight.shape[0]
        rows = states.numel() // width
        out, scales = torch.empty_like(states), torch.empty(rows)
        self.library.rms_norm(
            rows, width, states.data_ptr(), weight.data_ptr(), epsilon, out.data_ptr(), scales.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return out, scales

    def rms_norm_backward(
        self, states: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of the states; the weight is frozen."""
        d_states = torch.empty_like(states)
        self.library.rms_norm_backward(
            scales.shape[0], weight.shape[0], *map(_address, (states, weight, scales, gradient, d_states)),
            torch.get_num_threads(),
        )  # fmt: skip
        return d_states


def usable(*tensors: torch.Tensor) -> Kernels | None:
    """The kernels where they can work on such tensors."""
    return load() if plain(*tensors) else None


def plain(*tensors: torch.Tensor) -> bool:
    """Whether they are fp32 on the processor, outside of autocast."""
    for one in tensors:  # asked hundreds of times a step, and ``all`` takes three times as long
        if not one.is_cpu or one.dtype != torch.float32:
            return False
    return not torch.is_autocast_enabled("cpu")


@cache
def load() -> Kernels | None:
    """The kernels, compiled if they are not in the cache; None where that can't be done (see :func:`status`)."""
    library, _ = _load()
    return Kernels(library) if library is not None else None


def status() -> str:
    """One line for `doctor`: whether the kernels are there, and why not."""
    return _load()[1]


class _CompilerError(Exception):
    """Why a compiler makes no library."""


@cache
def _load() -> tuple[Any, str]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None, "no C compiler found (install gcc or clang for faster training); PyTorch's operations do the work"
    source = [path.read_text(encoding="utf-8") for path in _SOURCES]
    try:
        version = _said([compiler, "--version"], _VERSION_SECONDS)
        key = key_of(source, _FLAGS, version, processor_features())
        library = _open(cached("kernels", key, partial(_build, compiler), _is_whole) / _LIBRARY)
    except (_CompilerError, ResourceError) as error:
        return None, f"{compiler} could not build them ({printable(str(error))[:300]}); PyTorch does the work"
    return library, f"compiled by {compiler}"


def _build(compiler: str, folder: Path) -> None:
    library = folder / _LIBRARY
    files = [str(path) for path in _SOURCES if path.suffix == ".c"]
    _said([compiler, *_FLAGS, "-o", str(library), *files, "-lm"], _BUILD_SECONDS)
    if not library.is_file():
        raise _CompilerError("it ended well and wrote no file")
    _open(library)
    (folder / _DIGEST).write_text(file_hash(library), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    """Whether the library is the one that was built, to the byte."""
    try:
        return (folder / _DIGEST).read_text(encoding="utf-8") == file_hash(folder / _LIBRARY)
    except OSError:
        return False


def _open(path: Path) -> Any:
    try:
        library = ctypes.CDLL(str(path))
        for name, kinds in _TAKE.items():
            getattr(library, name).argtypes = [_KINDS[kind] for kind in kinds]
    except (OSError, AttributeError) as error:
        raise _CompilerError(f"what it wrote is not the library: {error}") from error
    return library


def _said(command: Sequence[str], seconds: float) -> str:
    """What a compiler says, whatever it does instead of compiling. Raises _CompilerError."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise _CompilerError(f"it can't be started: {error.strerror}") from error
        try:
            code = process.wait(seconds)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started, which may hold on longer
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _CompilerError(f"no answer in {seconds:.0f} seconds") from None
            raise
        output.seek(0)
        said = output.read(_MAX_SAID).decode("utf-8", "replace")
    if code:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it says nothing")
        ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        raise _CompilerError(f"{reason}; {ended}")
    return said


def processor_features() -> str:
    """What ``-march=native`` and speeds depend on, so that a cache shared by unlike machines stays right."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()


def _result(reads: torch.Tensor | None, *shape: int) -> torch.Tensor:
    """Memory for one row a token: zeros where most tokens get none."""
    return torch.empty(shape) if reads is None else torch.zeros(shape)


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("a compiled kernel could not allocate its scratch memory")
