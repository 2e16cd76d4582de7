"""Files within others, unpacked while they are read."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any, BinaryIO

from featherweight.errors import DataError

SUFFIX = ".gz"
MAX_RATIO = 200  # text of people hardly shrinks to a twentieth
_FREE_BYTES = 64 << 20  # below this much, no ratio is a danger


def most_bytes(packed: int) -> int:
    """How many bytes so many packed ones may unpack to."""
    return max(_FREE_BYTES, MAX_RATIO * packed)


class Unpacked(io.RawIOBase):
    """The bytes that a library unpacks.

    Args:
        inner: they come from, such as a ``gzip.GzipFile``.
        origin: of the file, for messages.
        kind: of the file, likewise.
        packed: its size in bytes.

    Raises:
        DataError: while reading, where the file is damaged, cut short, or unpacks to more than any text does.
    """

    def __init__(self, inner: BinaryIO, origin: str, kind: str, packed: int) -> None:
        self._inner = inner
        self._origin, self._kind = origin, kind
        self._most = most_bytes(packed)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._inner.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._inner.read(len(buffer))
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{self._origin}: not a readable {self._kind} file: {error}") from None
        if self._inner.tell() > self._most:
            raise DataError(
                f"{self._origin}: unpacks to more than {MAX_RATIO} times its size, as no text does; unpack it yourself "
                "if you trust it"
            )
        buffer[: len(chunk)] = chunk
        return len(chunk)
