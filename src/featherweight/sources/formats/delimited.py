"""CSV and TSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, ClassVar

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row, layouts, unique
from featherweight.sources.formats.decoding import decode

csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)


class _Delimited:
    """A header line, then rows with as many fields as the header has."""

    streams: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]]
    writes: ClassVar[layouts.Quoting] = csv.QUOTE_MINIMAL
    delimiters: ClassVar[str]  # the first is written, any is read

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        def from_start() -> io.TextIOWrapper:
            stream.seek(0)
            return decode(stream, origin, how.encoding)

        def from_header() -> Iterator[str]:
            text = from_start()
            for _ in range(before):
                text.readline()
            return text

        before, delimiter = layouts.find_header(from_start(), self.delimiters, origin, how.delimiter)
        quoting = self.find_quoting(from_header, delimiter, origin)
        rows = csv.reader(from_header(), delimiter=delimiter, quoting=quoting, strict=True)
        number = 0
        start = before + 1
        try:
            header = next(rows, None)
            if header is None:
                raise DataError(f"{origin}: the file is empty; it needs a header line and rows")
            names = unique(header, origin, how)
            start = before + rows.line_num + 1
            for fields in rows:
                if fields:
                    number += 1
                    if len(fields) == len(names) and (fields != header or len(names) == 1):
                        yield number, dict(zip(names, fields, strict=True))
                    else:
                        how.on_bad_row(_bad_row(fields, header, number, f"{origin}: line {start}", delimiter))
                start = before + rows.line_num + 1
        except csv.Error as failure:
            is_one_line = before + rows.line_num <= start
            where = f"line {start}" if is_one_line else f"the row that starts on line {start}"
            raise DataError(f"{origin}: {where}: {failure}; is a quote left open, or not doubled?") from None

    def find_quoting(self, lines: Callable[[], Iterator[str]], delimiter: str, origin: str) -> layouts.Quoting:
        return csv.QUOTE_MINIMAL

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
                    quoting=self.writes,
                    quotechar=None if self.writes == csv.QUOTE_NONE else '"',
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
    """Comma-separated, or with the semicolons, tabs or pipes that spreadsheets and databases write."""

    suffixes = (".csv",)
    delimiters = ",;\t|"


class Tsv(_Delimited):
    """Tab-separated: raw as GLUE ships it, where a quotation mark is a character like any other, or quoted like CSV."""

    suffixes = (".tsv",)
    delimiters = "\t"
    writes = csv.QUOTE_NONE

    def find_quoting(self, lines: Callable[[], Iterator[str]], delimiter: str, origin: str) -> layouts.Quoting:
        return layouts.find_quoting(lines, delimiter, origin)

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


def _bad_row(fields: list[str], header: list[str], number: int, where: str, delimiter: str) -> DataError:
    if fields == header:
        return DataError(f"{where}: row {number} is the header again, as where files were put together; take it out")
    return DataError(
        f"{where}: {len(fields)} fields where the header has {len(header)}; quote fields that contain {delimiter!r}, "
        "and check the quotes on the lines before"
    )
