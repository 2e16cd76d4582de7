"""What this machine is, and what it can do for a run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from typing import Any

import torch

from featherweight.errors import ConfigError
from featherweight.process.launch import unsaid_shards
from featherweight.recipe import TrainingSection

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 256 << 20


def accelerator_for(settings: TrainingSection) -> Any:
    """Accelerate's view of the machine under the recipe's precision, which on a processor is the engine's own matter.

    Raises:
        ConfigError: the machine lacks the precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    cuda = torch.cuda.is_available()
    if settings.fp16 and not cuda:
        raise ConfigError(
            "training.fp16: this machine has no CUDA device, and processors don't train in fp16; unset it"
        )
    if settings.bf16 is True and not (torch.cuda.is_bf16_supported() if cuda else has_bf16()):
        raise ConfigError("training.bf16: this machine has no bf16 instructions, so it would be far slower; unset it")
    AcceleratorState._reset_state()  # one for the process: a run before this one may have had another precision
    with unsaid_shards():
        return Accelerator(mixed_precision=precision_of(settings).replace("fp32", "no") if cuda else "no")


def require_fp16(settings: TrainingSection, model: Any) -> None:
    """Raises ConfigError where fp16 is asked for and the model does not bear it.

    What T5's feed-forward layers give goes beyond 65,504, fp16's largest number, and its answers become NaN;
    transformers marks the layers of its kin that have to stay out of it.
    """
    if settings.fp16 and "wo" in (getattr(model, "_keep_in_fp32_modules", None) or ()):
        raise ConfigError(
            f"training.fp16: {model.config.model_type}'s feed-forward layers go beyond what fp16 can hold, and its "
            "answers become NaN; set training.bf16, or neither"
        )


def precision_of(settings: TrainingSection) -> str:
    """In which products are made, until a run finds out more; ``fp32``, ``bf16`` or ``fp16``."""
    return "bf16" if settings.bf16 is True else "fp16" if settings.fp16 else "fp32"


def describe() -> dict[str, Any]:
    """Processor, memory and device, as recorded in ``environment.json``."""
    cuda = torch.cuda.is_available()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": _memory(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
    }


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next allocation, up to 256 MB, rather than give it back.

    Activations are large, so each would be fresh pages of the system's, which it fills with zeros one by one: a fifth
    of an evaluation's time. See mallopt(3); where there is no glibc, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(option, _KEPT_BYTES)


def give_back_freed_memory() -> None:
    """What :func:`keep_freed_memory` keeps goes back to the system now: after work that is not done again."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_bytes() -> int:
    """Peak of this process so far: of the device's allocator on CUDA, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 by instructions of its own that PyTorch uses."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities == "AVX512" and _flag("avx512_bf16")


def _flag(name: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return any(name in line for line in file if line.startswith("flags"))
    except OSError:
        return False


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
