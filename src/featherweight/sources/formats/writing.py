"""How rows are written: whatever a reader yields comes back the same through the format's own reader, or is refused.

All rows are seen before the first is written, so a column that only later rows have is not lost, and what a format
can't hold is refused in one line before any work is done. That a row comes back is tried and not assumed.

What a format has no type for is written as text that says exactly the same: dates, times and decimals in JSON, and
everything in CSV and TSV, where lists and objects are their JSON. A key that a row lacks is a missing value where the
format has columns.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import cycle
from typing import Any, BinaryIO, ClassVar, Protocol

from featherweight.errors import DataError, FeatherweightError, first_line

Row = dict[str, Any]

_BLOCK_ROWS, _BLOCK_CHARACTERS = 1000, 4 << 20
PARQUET, JSONL = ".parquet", ".jsonl"
_OF_VALUES = (".jsonl", ".ndjson", ".json")  # endings of files where each value has its own type


class NotHeldError(Exception):
    """Why a format can't hold a row.

    Args:
        what: such as "the column 'x' holds bytes".
        instead: the ending of a format that can.
    """

    def __init__(self, what: str, instead: str) -> None:
        self.what, self.instead = what, instead
        super().__init__(what)

    def at(self, where: str, target: str) -> DataError:
        """The error for people. ``target`` is what was to be written."""
        name = target if target != "-" else "JSON Lines"
        return DataError(f"{where}: {self.what}, which {name} can't hold; write {self.instead}")


class Writer(Protocol):
    """Writes the rows of one file.

    Attributes:
        nests: whether a value may be an object.
    """

    nests: ClassVar[bool]

    def see(self, row: Row) -> None:
        """Look at a row that will be written. Raises NotHeldError."""

    def settle(self, columns: Sequence[str], added: Sequence[Row]) -> None:
        """All rows were seen.

        Args:
            columns: those that the file has even where it has no row.
            added: what every row will have besides, each row of these one of the possible.

        Raises:
            NotHeldError: the rows don't go into one file.
        """

    def plain(self, row: Row) -> Row:
        """What the format's reader will give for it. Raises NotHeldError."""

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        """Write rows, of which each was seen; gives their number. Raises NotHeldError."""


class TextColumns:
    """What writers of files that hold nothing but texts, in columns, have in common.

    Attributes:
        rows: how many were seen.
        columns: those of all rows, in the order in which they came.
    """

    nests: ClassVar[bool] = False

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, None] = {}
        self._present: Counter[str] = Counter()  # rows with a value
        self._empty: set[str] = set()  # columns with an empty text

    def text(self, value: Any, column: str) -> str:
        """What the format's reader gives for a value. Raises NotHeldError."""
        return as_text(value, column)

    def look(self, cell: str) -> None:
        """Look at a text that will be written. Raises NotHeldError."""

    def see(self, row: Row) -> None:
        self.rows += 1
        for name, value in row.items():
            self.columns.setdefault(name)
            if value is not None:
                self.look(self.text(value, name))
                self._present[name] += 1
                if value == "":
                    self._empty.add(name)

    def settle(self, columns: Sequence[str], added: Sequence[Row]) -> None:
        for name in self._empty:
            if self._present[name] < self.rows:
                raise NotHeldError(f"the column {name!r} holds empty texts and missing values", f"{JSONL} or {PARQUET}")
        self.columns |= dict.fromkeys([*columns, *(name for row in added for name in row)])
        for cell in [*self.columns, *(self.text(value, name) for row in added for name, value in row.items())]:
            self.look(cell)

    def plain(self, row: Row) -> Row:
        if unknown := [name for name in row if name not in self.columns]:
            raise NotHeldError(f"the column {unknown[0]!r} was not there when the file was read first", JSONL)
        return {name: self.text(row.get(name), name) for name in self.columns}


class Reader(Protocol):
    """What reads a file back."""

    def read(self, stream: BinaryIO, origin: str) -> Iterator[tuple[int, Row]]: ...


def rehearse(
    writer: Writer, reader: Reader, rows: Iterable[tuple[int, Row]], added: Sequence[Row], source: str, target: str
) -> None:
    """Write all rows to memory, a few at a time, and read them back.

    Args:
        rows: each with its number in ``source``.
        added: what may be added to a row; each is tried.

    Raises:
        DataError: a row would not come back as it is.
    """
    for one in added:
        _try(writer, reader, [one, one], f"{source}: a prediction", target)  # beside others, as rows of a file are
    more = cycle(added)
    for block in blocks(rows):
        together = [{**row, **next(more)} for _, row in block]
        try:
            _try(writer, reader, together, source, target)
        except DataError:
            for (number, _), row in zip(block, together, strict=True):
                _try(writer, reader, [row], f"{source}: row {number}", target)
            raise


def _try(writer: Writer, reader: Reader, rows: list[Row], where: str, target: str) -> None:
    try:
        buffer = io.BytesIO()
        writer.write(buffer, iter(rows))
        buffer.seek(0)
        back = [row for _, row in reader.read(buffer, target)]
        expected = [writer.plain(row) for row in rows]
        for row, found in zip(expected, back, strict=True):
            for name in dict.fromkeys([*row, *found]):
                if not _same(row.get(name), found.get(name)):
                    raise NotHeldError(f"the column {name!r} would not be read back as it is", _other_than(target))
    except NotHeldError as error:
        raise error.at(where, target) from error
    except (FeatherweightError, ValueError, TypeError, ArithmeticError, RecursionError, NotImplementedError) as error:
        why = f"it would not be read back ({first_line(error)})"
        raise NotHeldError(why, _other_than(target)).at(where, target) from error


def _other_than(target: str) -> str:
    return PARQUET if target == "-" or target.lower().endswith(_OF_VALUES) else JSONL


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; NaN is, and a key that one object lacks is a missing value of it."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same(one.get(name), other.get(name)) for name in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both_nan or bool(one == other)


def blocks(rows: Iterable[tuple[int, Row]], most: int = _BLOCK_ROWS) -> Iterator[list[tuple[int, Row]]]:
    """Rows in groups that fit into memory, however long their texts are."""
    block: list[tuple[int, Row]] = []
    size = 0
    for number, row in rows:
        block.append((number, row))
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(block) >= most or size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def as_json(value: Any, column: str) -> Any:
    """A value of JSON that says what ``value`` says. Raises NotHeldError where there is none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise NotHeldError(f"the column {column!r} holds {value}", PARQUET)
    if isinstance(value, list):
        return [as_json(one, column) for one in value]
    if isinstance(value, dict):
        return {str(name): as_json(one, column) for name, one in value.items()}
    return _exact_text(value, column)


def as_text(value: Any, column: str) -> str:
    """The text that says what ``value`` says, for formats of nothing else. Raises NotHeldError."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool | int | list | dict):
        return json.dumps(as_json(value, column), ensure_ascii=False)
    return _exact_text(value, column)


def _exact_text(value: Any, column: str) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    names: dict[type, str] = {bytes: "bytes", tuple: "a map"}
    what = names.get(type(value), f"a value of type {type(value).__name__}")
    raise NotHeldError(f"the column {column!r} holds {what}", PARQUET)
