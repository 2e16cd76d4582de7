"""Text files within gzip, unpacked while they are read."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from typing import Any, BinaryIO

from featherweight.errors import DataError

SUFFIX = ".gz"
MAX_RATIO = 200  # text of people hardly shrinks to a twentieth
_FREE_BYTES = 64 << 20  # below this much, no ratio is a danger


class Unpacked(io.RawIOBase):
    """The bytes within a gzip file.

    Raises:
        DataError: while reading, where the file is damaged, cut short, or unpacks to more than any text does.
    """

    def __init__(self, stream: BinaryIO, origin: str) -> None:
        self._inner = gzip.GzipFile(fileobj=stream)
        self._origin = origin
        self._most = max(_FREE_BYTES, MAX_RATIO * os.fstat(stream.fileno()).st_size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._inner.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._inner.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self._origin}: not a readable gzip file: {error}") from None
        if self._inner.tell() > self._most:
            raise DataError(
                f"{self._origin}: unpacks to more than {MAX_RATIO} times its size, as no text does; unpack it yourself "
                "if you trust it"
            )
        buffer[: len(chunk)] = chunk
        return len(chunk)
