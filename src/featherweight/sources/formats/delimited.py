"""CSV and TSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar, Literal

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row
from featherweight.sources.formats.decoding import decode

csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)


class _Delimited:
    """CSV and TSV: a header line, then rows with as many fields as the header has."""

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
