"""File formats for rows of text: a class and a module each, all of one shape, strict about what they accept.

A format reads a binary stream into ``(row number, row)`` pairs and writes rows to one. Rows count from 1, headers
and blank lines not counted; a row may lack keys that others have. What can't be read exactly is a :class:`DataError`
that names the file and the line; no format guesses, merges or skips.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, cast

from featherweight.errors import ConfigError, DataError
from featherweight.registry import FORMATS, did_you_mean
from featherweight.sources.formats import compressed, zipped
from featherweight.sources.formats.writing import Row as Row
from featherweight.sources.formats.writing import Writer

_MOST_SHOWN = 5


def refuse(error: DataError) -> None:
    """What becomes of a row that can't be read unless the recipe says otherwise: it ends the reading."""
    raise error


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        encoding: of text; Python's name of it; decoded strictly.
        on_bad_row: called for each row that can't be read; where it returns, the row is left out.
        delimiter: what separates the fields of CSV and TSV; found out where it is None.
        columns: those that are asked for: none of them may stand there twice.
        on_columns: called with the columns' names, where the format has any without rows.
    """

    encoding: str = "utf-8"
    on_bad_row: Callable[[DataError], None] = refuse
    delimiter: str | None = None
    columns: Collection[str] = ()
    on_columns: Callable[[Sequence[str]], object] = len


STRICT = Reading()


class Format(Protocol):
    """How one file format is read and written.

    Attributes:
        suffixes: endings of file names, in lower case.
        streams: whether it is read from the start to the end, and so within gzip too.
    """

    suffixes: ClassVar[tuple[str, ...]]
    streams: ClassVar[bool]

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]: ...

    def writer(self) -> Writer: ...


def format_of(path: str | Path) -> Format:
    """The format that a file's name says it has. Raises ConfigError for a name that says none."""
    found = _named(Path(path).suffix.lower())
    if found is None:
        raise ConfigError(f"{path}: the name says no data format; known endings: {', '.join(suffixes())}")
    return found


@contextmanager
def opened(path: Path) -> Iterator[tuple[Format, BinaryIO]]:
    """A file's format and its bytes, unpacked where the name ends in ``.gz``, or is of a zip file or one within.

    Raises:
        ConfigError: as ``format_of``, or a zip file holds several.
        DataError: what is packed is damaged.
    """
    with ExitStack() as stack:
        if archive := zipped.of(path):
            entry = _entry(archive, path)
            found = format_of(entry)
            yield found, stack.enter_context(zipped.opened(archive, entry, streams=found.streams))
            return
        packed = is_readable(path) and path.suffix.lower() == compressed.SUFFIX
        found = format_of(path.with_suffix("") if packed else path)
        stream = stack.enter_context(path.open("rb"))
        if packed:
            inner = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
            yield found, cast(BinaryIO, compressed.Unpacked(inner, str(path), "gzip", path.stat().st_size))
        else:
            yield found, stream


def is_readable(path: Path) -> bool:
    """Whether the name has an ending that is known, such as ``.csv``, ``.csv.gz`` or ``.zip``."""
    suffix = path.suffix.lower()
    if suffix != compressed.SUFFIX:
        return suffix == zipped.SUFFIX or _named(suffix) is not None
    found = _named(path.with_suffix("").suffix.lower())
    return found is not None and found.streams


def on_disk(path: Path) -> Path:
    """The file that has to be there for the path to be read: the zip file that it leads into, or itself."""
    return zipped.of(path) or path


def data_entries(archive: Path) -> list[Path]:
    """The data files within a zip file, as paths that lead into it. Raises DataError."""
    return [archive / name for name in zipped.entries(archive) if _named(Path(name).suffix.lower())]


def _entry(archive: Path, path: Path) -> str:
    """The name of the file that a path into a zip file, or of one, means."""
    names = zipped.entries(archive)
    if path != archive:
        name = path.relative_to(archive).as_posix()
        if name not in names:
            raise ConfigError(f"{archive}: holds no {name!r}{did_you_mean(name, names)}; it has {_listed(names)}")
        return name
    found = data_entries(archive)
    if len(found) > 1:
        raise ConfigError(f"{archive}: holds {_listed(found)}; name the one that you mean")
    if not found:
        has = f"it has {_listed(names)}; " if names else ""
        raise ConfigError(f"{archive}: holds no data file; {has}known endings: {', '.join(suffixes())}")
    return found[0].relative_to(archive).as_posix()


def suffixes() -> list[str]:
    """The endings of all formats."""
    return [suffix for name in sorted(FORMATS) for suffix in FORMATS[name].suffixes]


def unique(header: Sequence[str], origin: str, how: Reading) -> list[str]:
    """Names for a file's columns of which none is doubled, as pandas gives them: ``a``, ``a.1``, ``Unnamed: 2``.

    Raises:
        DataError: a column that is asked for stands there twice.
    """
    counts = Counter(header)
    if doubled := [name for name in how.columns if counts[name] > 1]:
        raise DataError(f"{origin}: {counts[doubled[0]]} columns are named {doubled[0]!r}; rename all but one of them")
    names: list[str] = []
    taken = set(header)
    for position, name in enumerate(header):
        new = name
        if counts[name] > 1 and (not name or name in names):
            stem = f"{name}." if name else "Unnamed: "
            number = 1 if name else position
            while (new := f"{stem}{number}") in taken:
                number += 1
        names.append(new)
        taken.add(new)
    return names


def _named(suffix: str) -> Format | None:
    for name in FORMATS:
        if suffix in FORMATS[name].suffixes:
            found: Format = FORMATS[name]()
            return found
    return None


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(str, names[:_MOST_SHOWN])) + more
