"""safetensors files that somebody else wrote: looked at before they are read, with bounded memory.

The library's own reader (Rust) refuses headers longer than the file, overlapping or missing offsets, and shapes that
disagree with the bytes. What it lets pass is bounded here: a header of many megabytes takes it seconds and gigabytes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.errors import ModelError

MAX_HEADER_BYTES = 16 << 20  # some 150,000 tensors; the largest models published have a tenth of that
_BLOCK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor.

    Attributes:
        dtype: the format's own name, such as ``F32``.
        shape: as stored.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Tensor name to dtype and shape; no weights are read.

    Raises:
        ModelError: the file can't be read, or its header does not describe exactly the bytes that follow it.
    """
    from safetensors import SafetensorError, safe_open

    _require_short_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = ((name, file.get_slice(name)) for name in file.keys())  # noqa: SIM118 - not a dict
            return {name: TensorInfo(one.get_dtype(), tuple(one.get_shape())) for name, one in slices}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as safetensors: {error}") from None


def require_finite(path: Path) -> None:
    """Refuse a file with a NaN or an infinity in any tensor; one block of a tensor is in memory at a time.

    Raises:
        ModelError: naming the tensor.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name, info in header.items():
                for block in _blocks(file, name, info):
                    # Eight-bit floats know no isfinite.
                    if block.is_floating_point() and not torch.isfinite(_comparable(block)).all():
                        raise ModelError(f"{path}: the tensor {name!r} holds NaN or infinity; the file is damaged")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as safetensors: {error}") from None


def shard_names(index: dict[str, Any], path: Path) -> list[str]:
    """The files that ``model.safetensors.index.json`` names, each a plain name beside it.

    Raises:
        ModelError: the index has no table of files, or names one elsewhere.
    """
    table = index.get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"{path}: has no 'weight_map' from tensors to files")
    names = sorted(set(table.values()))
    for name in names:
        if "/" in name or "\\" in name or name in {"", ".", ".."} or "\0" in name:
            raise ModelError(f"{path}: names the file {name!r}, which is not in its own folder")
        if not (path.parent / name).is_file():
            raise ModelError(f"{path}: names {name!r}, which is not there; fetch the model again")
    return names


def _require_short_header(path: Path) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None
    if len(prefix) < 8:
        raise ModelError(f"{path}: {size} bytes are no safetensors file; it was cut short")
    (length,) = struct.unpack("<Q", prefix)
    if length > size - 8:
        raise ModelError(f"{path}: claims a header of {length:,} bytes in a file of {size:,}; cut short, or forged")
    if length > MAX_HEADER_BYTES:
        raise ModelError(f"{path}: a header of {length:,} bytes; {MAX_HEADER_BYTES:,} is the limit")


def _blocks(file: Any, name: str, info: TensorInfo) -> Any:
    """A tensor in pieces of rows, so that none is large."""
    if len(info.shape) < 1 or info.elements <= _BLOCK_ELEMENTS:
        yield file.get_tensor(name)
        return
    rows = max(1, _BLOCK_ELEMENTS // (info.elements // info.shape[0]))
    for start in range(0, info.shape[0], rows):
        yield file.get_slice(name)[start : start + rows]


def _comparable(block: Any) -> Any:
    return block if block.element_size() > 1 else block.float()
