"""CSV and TSV."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, ClassVar

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row, layouts, unique
from featherweight.sources.formats.decoding import decode
from featherweight.sources.formats.writing import JSONL, NotHeldError, TextColumns, Writer

_QUOTE = '"'
_MISLEADS = re.compile('[",;|\t\r\n\ufeff]')  # in a header: what may be taken for its delimiter, or for a mark

csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)


class _Delimited:
    """A header line, then rows with as many fields as the header has."""

    streams: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]]
    writes_raw: ClassVar[bool] = False
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
            how.on_columns(names)
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

    def writer(self) -> Writer:
        return _Writer(self.delimiters[0], self.writes_raw)


class Csv(_Delimited):
    """Comma-separated, or with the semicolons, tabs or pipes that spreadsheets and databases write."""

    suffixes = (".csv",)
    delimiters = ",;\t|"


class Tsv(_Delimited):
    """Tab-separated: raw as GLUE ships it, where a quotation mark is a character like any other, or quoted like CSV."""

    suffixes = (".tsv",)
    delimiters = "\t"
    writes_raw = True

    def find_quoting(self, lines: Callable[[], Iterator[str]], delimiter: str, origin: str) -> layouts.Quoting:
        return layouts.find_quoting(lines, delimiter, origin)


class _Writer(TextColumns):
    """Quotes what needs it; in a raw file nothing does, or else all of the header says that quotes quote."""

    def __init__(self, delimiter: str, is_raw: bool) -> None:
        super().__init__()
        self._delimiter = delimiter
        self._special = re.compile(f'["\r\n{re.escape(delimiter)}]')
        self._is_raw = is_raw

    def look(self, cell: str) -> None:
        found = self._special.search(cell)
        # A quote within a field is a character like any other; what else is special would end the field.
        if self._is_raw and found and (found.start() == 0 or self._special.search(cell.replace(_QUOTE, ""))):
            self._is_raw = False

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        count = 0
        # All quotes in a TSV file's header say that quotes quote; in a CSV file's they hide what may be its delimiter.
        says_so = self._delimiter == "\t" or any(map(_MISLEADS.search, self.columns))
        self._write_line(stream, self.columns, quotes_all=says_so)
        for row in rows:
            self._write_line(stream, self.plain(row).values())
            count += 1
        return count

    def _write_line(self, stream: BinaryIO, cells: Iterable[str], quotes_all: bool = False) -> None:
        if not self._is_raw:
            cells = [self._quoted(cell) if quotes_all or self._special.search(cell) else cell for cell in cells]
        try:
            stream.write((self._delimiter.join(cells) + "\n").encode())
        except UnicodeEncodeError:
            raise NotHeldError("a cell holds half a surrogate pair", JSONL) from None

    @staticmethod
    def _quoted(cell: str) -> str:
        return _QUOTE + cell.replace(_QUOTE, _QUOTE * 2) + _QUOTE


def _bad_row(fields: list[str], header: list[str], number: int, where: str, delimiter: str) -> DataError:
    if fields == header:
        return DataError(f"{where}: row {number} is the header again, as where files were put together; take it out")
    return DataError(
        f"{where}: {len(fields)} fields where the header has {len(header)}; quote fields that contain {delimiter!r}, "
        "and check the quotes on the lines before"
    )
