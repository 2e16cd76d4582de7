"""File formats for rows of text: a class and a module each, all of one shape, strict about what they accept.

A format reads a binary stream into ``(row number, row)`` pairs and writes rows to one. Rows count from 1, headers
and blank lines not counted. What can't be read exactly is a :class:`DataError` that names the file and the line; no
format guesses, merges or skips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from featherweight.errors import ConfigError, DataError
from featherweight.registry import FORMATS

Row = dict[str, Any]


def refuse(error: DataError) -> None:
    """What becomes of a row that can't be read unless the recipe says otherwise: it ends the reading."""
    raise error


@dataclass(frozen=True)
class Reading:
    """How a text format is read.

    Attributes:
        encoding: Python's name of it; decoded strictly.
        on_bad_row: called for each row that can't be read; where it returns, the row is left out.
    """

    encoding: str = "utf-8"
    on_bad_row: Callable[[DataError], None] = refuse


STRICT = Reading()


class Format(Protocol):
    """How one file format is read and written."""

    suffixes: ClassVar[tuple[str, ...]]

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]: ...

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int: ...


def format_of(path: str | Path) -> Format:
    """The format that a file's name says it has. Raises ConfigError for a name that says none."""
    suffix = Path(path).suffix.lower()
    for name in FORMATS:
        if suffix in FORMATS[name].suffixes:
            found: Format = FORMATS[name]()
            return found
    known = ", ".join(suffix for name in sorted(FORMATS) for suffix in FORMATS[name].suffixes)
    raise ConfigError(f"{path}: the name says no data format; known endings: {known}")
