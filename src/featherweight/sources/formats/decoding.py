"""Bytes to text, strictly: what can't be decoded is an error with its offset."""

from __future__ import annotations

import codecs
import io
from typing import Any, BinaryIO, NoReturn

from featherweight.errors import DataError


def decode(stream: BinaryIO, origin: str, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Text with or without a byte-order mark, line ends kept as they are, errors with their byte offset."""
    encoding = codecs.lookup(encoding).name
    checked = io.BufferedReader(_Checked(stream, origin, encoding), buffer_size=1 << 20)
    return io.TextIOWrapper(checked, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")


class _Checked(io.RawIOBase):
    """Passes bytes on and turns the first that can't be decoded, or is NUL, into an error with its offset."""

    def __init__(self, stream: BinaryIO, origin: str, encoding: str) -> None:
        self._stream = stream
        self._origin = origin
        self._encoding = encoding
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            self._fail(self._offset - pending + getattr(error, "start", 0), f"is not {self._encoding.upper()}", chunk)
        if "\0" in text:
            # Where the encoding begins with a mark, the text lacks it and encoding writes one.
            mark = len("".encode(self._encoding))
            before = len(text[: text.index("\0")].encode(self._encoding)) - (mark if self._offset else 0)
            self._fail(self._offset - pending + before, "is NUL", chunk)
        self._offset += len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _fail(self, offset: int, what: str, chunk: bytes) -> NoReturn:
        utf16 = self._offset == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise DataError(
            f"{self._origin}: the byte at offset {offset} {what}; save the file as UTF-8 text, or name its encoding: "
            f"--encoding {'utf-16' if utf16 else 'cp1252, for example'}"
        )
