"""Excel workbooks."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from typing import Any, BinaryIO, ClassVar

from featherweight.errors import ConfigError, DataError, FeatherweightError, first_line
from featherweight.sources.formats import STRICT, Reading, Row, compressed, unique
from featherweight.sources.formats.writing import JSONL, PARQUET, NotHeldError, TextColumns, Writer, as_text

_MOST_ROWS, _MOST_CHARACTERS = 1 << 20, 32_767  # of a sheet, and of a cell
_EXACT = 1 << 53  # numbers are floats; whole ones are exact up to here
_OLD = b"\xd0\xcf\x11\xe0"  # what .xls begins with, and a workbook that is locked
_RETURN, _WRITTEN_RETURN = "\r", "_x000D_"


class Xlsx:
    """The one sheet of a workbook that is not empty: a header, then rows. Cells are texts, as in its CSV.

    A whole number is written without a point, a date as ISO 8601 has it, a boolean as ``true`` or ``false``; a formula
    is its last result. Predictions are written with numbers as numbers.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".xlsx",)
    streams: ClassVar[bool] = False

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        lines = _lines(_sheet(stream, origin), origin)
        _, header = next(lines)
        names = unique([_text(cell) for cell in header], origin, how)
        how.on_columns(names)
        for number, (line, cells) in enumerate(lines, 1):
            where = f"{origin}: row {number} (line {line} of the sheet)"
            if len(cells) > len(names):
                how.on_bad_row(DataError(f"{where}: {len(cells)} cells where the header has {len(names)}"))
                continue
            broken = [cell for name, cell in zip(names, cells, strict=False) if _is_error(cell) and name in how.columns]
            if broken:
                found = broken[0]
                how.on_bad_row(DataError(f"{where}: the cell {found.coordinate} holds the error {found.value}"))
                continue
            texts = [_text(cell) for cell in cells] + [""] * (len(names) - len(cells))
            yield number, dict(zip(names, texts, strict=True))

    def writer(self) -> Writer:
        return _Writer(_library())


def _library() -> Any:
    try:
        import openpyxl
    except ImportError:
        raise ConfigError("Excel files need openpyxl; run: pip install 'featherweight[xlsx]'") from None
    return openpyxl


def _sheet(stream: BinaryIO, origin: str) -> Any:
    """The only sheet with content."""
    library = _library()
    with _explained(origin):
        _require_bounded(stream, origin)
        book = library.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
        sheets = book.worksheets
    filled = [sheet for sheet in sheets if next(_lines(sheet, origin), None) is not None]
    if not filled:
        raise DataError(f"{origin}: the workbook is empty; it needs a header line and rows")
    if len(filled) > 1:
        names = ", ".join(repr(sheet.title) for sheet in filled)
        raise DataError(f"{origin}: {len(filled)} sheets hold something ({names}); save the one that you mean alone")
    return filled[0]


def _require_bounded(stream: BinaryIO, origin: str) -> None:
    """A workbook is a zip file; no more than is said of its parts is unpacked of them."""
    stream.seek(0)
    if stream.read(len(_OLD)) == _OLD:
        raise DataError(
            f"{origin}: locked with a password, or an .xls file by another name; save it as .xlsx without a password"
        )
    with zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
    if any(part.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for part in parts):
        raise ValueError("a part is not packed by deflate")
    if sum(part.file_size for part in parts) > compressed.most_bytes(stream.seek(0, 2)):
        raise DataError(f"{origin}: unpacks to more than {compressed.MAX_RATIO} times its size, as no workbook does")
    stream.seek(0)


def _lines(sheet: Any, origin: str) -> Iterator[tuple[int, Sequence[Any]]]:
    """The rows with content, each with its number in the sheet, up to their last cell with content."""
    sheet.reset_dimensions()  # what a file says of its size is often wrong
    rows = iter(sheet.iter_rows())
    line = 0
    while True:
        with _explained(origin):
            if (row := next(rows, None)) is None:
                return
            line += 1
            if line > _MOST_ROWS:
                raise ValueError(f"more than {_MOST_ROWS:,} rows")
        last = next((place for place in range(len(row), 0, -1) if row[place - 1].value not in {None, ""}), 0)
        if last:
            yield line, row[:last]


@contextmanager
def _explained(origin: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is left out: colours, rules, pictures
            yield
    except FeatherweightError:
        raise
    except Exception as error:  # each part of the library has errors of its own for what is damaged
        raise DataError(f"{origin}: not a readable Excel file: {first_line(error)}") from error


def _is_error(cell: Any) -> bool:
    return bool(cell.data_type == "e")


def _text(cell: Any) -> str:
    """What a CSV file has for a cell."""
    value = cell.value
    if isinstance(value, str):
        return value.replace(_WRITTEN_RETURN, _RETURN)
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    if isinstance(value, date | time):
        return value.isoformat()
    return _as_cell(value) if isinstance(value, int | float | None) else str(value)


def _as_cell(value: Any, column: str = "") -> str:
    """A value as text; a number is whole or not, which it does not say in a workbook."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT
    return str(int(value)) if whole else as_text(value, column)


class _Writer(TextColumns):
    def __init__(self, library: Any) -> None:
        super().__init__()
        self._library = library

    def see(self, row: Row) -> None:
        super().see(row)
        if self.rows >= _MOST_ROWS:
            raise NotHeldError(f"the rows are more than {_MOST_ROWS - 1:,}", f"{JSONL} or {PARQUET}")

    def text(self, value: Any, column: str) -> str:
        return _as_cell(value, column)

    def look(self, cell: str) -> None:
        if len(cell.encode("utf-16-le", "surrogatepass")) // 2 > _MOST_CHARACTERS:
            raise NotHeldError(f"a cell holds more than {_MOST_CHARACTERS:,} characters", f"{JSONL} or {PARQUET}")

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        book = self._library.Workbook(write_only=True)
        sheet = book.create_sheet("Sheet1")
        count = 0
        try:
            sheet.append([self._cell(sheet, name, name) for name in self.columns])
            for row in rows:
                self.plain(row)
                sheet.append([self._cell(sheet, row.get(name), name) for name in self.columns])
                count += 1
            book.save(stream)
        except (UnicodeEncodeError, self._library.utils.exceptions.IllegalCharacterError):
            raise NotHeldError("a cell holds half a surrogate pair or a control character", JSONL) from None
        finally:
            with suppress(Exception):  # it is open only where something failed, and may not end well then
                sheet.close()
        return count

    def _cell(self, sheet: Any, value: Any, column: str) -> Any:
        """A number or boolean as itself, all else as a text that is no formula, whatever it begins with."""
        is_number = isinstance(value, int) and abs(value) <= _EXACT
        if is_number or (isinstance(value, float) and value - value == 0):
            return value
        text = self.text(value, column).replace(_RETURN, _WRITTEN_RETURN)
        cell = self._library.cell.WriteOnlyCell(sheet, text)
        cell.data_type = "s"
        return cell
