"""File formats for rows of text: one class each, all of one shape, strict about what they accept.

A format reads a binary stream into ``(row number, row)`` pairs and writes rows to one. Rows count from 1, headers
and blank lines not counted. What can't be read exactly is a :class:`DataError` that names the file and the line; no
format guesses, merges or skips.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, NoReturn, Protocol

from featherweight.errors import ConfigError, DataError
from featherweight.registry import FORMATS

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
WriteRow = Callable[[Row], None]


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

csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)


class Format(Protocol):
    """How one file format is read and written."""

    suffixes: ClassVar[tuple[str, ...]]
    streams: ClassVar[bool]

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


class _Delimited:
    """CSV and TSV: a header line, then rows with as many fields as the header has."""

    streams: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]]
    quoting: ClassVar[Literal[0, 3]]
    delimiters: ClassVar[str]

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        text = decode(stream, origin, how.encoding)
        first = text.readline()
        delimiter = next((one for one in self.delimiters if one in first), self.delimiters[0])
        lines = csv.reader(_chain(first, text), delimiter=delimiter, quoting=self.quoting, strict=True)
        number = 0
        start = 1
        try:
            header = next(lines, None)
            if header is None:
                raise DataError(f"{origin}: the file is empty; it needs a header line and rows")
            if repeated := {name for name in header if header.count(name) > 1}:
                raise DataError(f"{origin}: the header names the column {sorted(repeated)[0]!r} twice")
            start = lines.line_num + 1
            for fields in lines:
                if fields:
                    number += 1
                    if len(fields) == len(header):
                        yield number, dict(zip(header, fields, strict=True))
                    else:
                        error = DataError(
                            f"{origin}: line {start}: {len(fields)} fields where the header has {len(header)}; "
                            f"quote fields that contain {delimiter!r}, and check the quotes on the lines before"
                        )
                        how.on_bad_row(error)
                start = lines.line_num + 1
        except csv.Error as failure:
            where = f"line {start}" if lines.line_num <= start else f"the row that starts on line {start}"
            raise DataError(f"{origin}: {where}: {failure}; is a quote left open, or not doubled?") from None

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        writer = None
        count = 0
        for row in rows:
            flat = flatten(row)
            if writer is None:
                writer = csv.DictWriter(
                    text,
                    list(flat),
                    delimiter=self.delimiters[0],
                    quoting=self.quoting,
                    quotechar=None if self.quoting == csv.QUOTE_NONE else '"',
                    lineterminator="\n",
                )
                writer.writeheader()
            writer.writerow({key: self.cell(value) for key, value in flat.items()})
            count += 1
        text.flush()
        text.detach()
        return count

    def cell(self, value: Any) -> Any:
        return value


class Csv(_Delimited):
    """Comma-separated, or with the semicolons or tabs that spreadsheets write where the header has no comma."""

    suffixes = (".csv",)
    quoting = csv.QUOTE_MINIMAL
    delimiters = ",;\t"


class Tsv(_Delimited):
    """Tab-separated without quoting, as GLUE ships it: a quotation mark is a character like any other."""

    suffixes = (".tsv",)
    quoting = csv.QUOTE_NONE
    delimiters = "\t"

    def cell(self, value: Any) -> Any:
        # The format has no way to hold these; a space keeps the row in one piece.
        return " ".join(value.split("\t")).replace("\r", " ").replace("\n", " ") if isinstance(value, str) else value


class JsonLines:
    """One JSON object a line."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")
    streams: ClassVar[bool] = True

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        number = 0
        for line_number, line in enumerate(decode(stream, origin, how.encoding), start=1):
            if not line.strip():
                continue
            number += 1
            try:
                row = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
                if not isinstance(row, dict):
                    raise ValueError('a JSON object was expected, such as {"text": ...}')
            except (ValueError, RecursionError) as error:
                how.on_bad_row(DataError(f"{origin}: line {line_number}: not a valid JSON object: {error}"))
            else:
                yield number, row

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        count = 0
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            count += 1
        return count


class Parquet:
    """Apache Parquet."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    streams: ClassVar[bool] = False

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=10_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pa.ArrowException as error:
            raise DataError(f"{origin}: not a readable Parquet file: {error}") from error

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer = None
        count = 0
        for batch in _batches(rows, 10_000):
            table = pa.Table.from_pylist(batch, schema=writer.schema if writer else _filled(batch))
            writer = writer or pq.ParquetWriter(stream, table.schema)
            writer.write_table(table)
            count += len(batch)
        if writer is None:
            writer = pq.ParquetWriter(stream, pa.schema([]))
        writer.close()
        return count


def _filled(batch: Sequence[Row]) -> pa.Schema:
    """The schema of a batch; a column without a value so far will hold text."""
    import pyarrow as pa

    schema = pa.Table.from_pylist(batch).schema
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema])


def flatten(row: Row) -> Row:
    """Spread ``probabilities`` over one column a label, for formats without nesting."""
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key.removesuffix('ies')}y_{name}": part for name, part in value.items()})
        else:
            flat[key] = value
    return flat


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _batches(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return row
