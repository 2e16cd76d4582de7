"""The end of the memory, told apart from other errors."""

from __future__ import annotations

import torch

# torch's allocator for processors; oneDNN, which has shown that it works before it is used, with no room for its code.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or in the process, where torch has no error of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )
