"""How a CSV or TSV file is laid out: where its header is, what separates its fields, whether its quotes quote.

Found out by rules that leave nothing to chance: where two answers fit, the file is refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal

from featherweight.errors import DataError

Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL or csv.QUOTE_NONE

_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
_WHOLE = re.compile(r'"[^"]*(?:""[^"]*)*"')
_ROWS_LOOKED_AT = 100


def find_header(text: io.TextIOWrapper, delimiters: str, origin: str, configured: str | None) -> tuple[int, str]:
    """How many lines come before the header (blank ones and Excel's ``sep=;``), and what separates the fields.

    That is what was ``configured``, else what the ``sep=`` line says, else the one of ``delimiters`` that the header
    holds. Where it holds several, the one by which the first rows all have as many fields as the header.

    Raises:
        DataError: several of them do.
    """
    before = 0
    said: str | None = None
    header = text.readline()
    while header and (not header.strip(" \r\n") or _SEPARATOR_LINE.fullmatch(header.rstrip("\r\n"))):
        if header.strip(" \r\n"):
            said = header[len("sep=")]
        before += 1
        header = text.readline()
    if given := configured or said:
        return before, given
    unquoted = _WHOLE.sub("", header)
    possible = [one for one in delimiters if one in unquoted]
    if len(possible) > 1:
        head = [header, *islice(text, _ROWS_LOOKED_AT)]
        possible = [one for one in possible if _fits(head, one)] or possible[:1]
    if len(possible) > 1:
        either = " or by ".join(map(repr, possible))
        raise DataError(
            f"{origin}: its fields may be separated by {either}, as each gives all rows the header's number of fields; "
            "say which with --delimiter or data.delimiter"
        )
    return before, possible[0] if possible else delimiters[0]


def find_quoting(lines: Callable[[], Iterator[str]], delimiter: str, origin: str) -> Quoting:
    """Whether a TSV file's quotes quote, as pandas and spreadsheets write them, or are characters, as in GLUE's files.

    They quote where the whole header is quoted, and where every field that begins with a quote is a whole quoted
    field of its line. Else they are characters where every line has as many fields as the header. Where lines have
    not, they quote if that gives every row as many.

    Args:
        lines: starts at the header again at each call.

    Raises:
        DataError: a file of one column, whose lines or quoted fields may be the rows.
    """
    text = lines()
    header = next(text, "").rstrip("\r\n")
    columns = header.count(delimiter) + 1
    if all(map(_WHOLE.fullmatch, header.split(delimiter))):
        return csv.QUOTE_MINIMAL
    has_quotes = False
    is_whole = is_even = True
    for line in text:
        line = line.rstrip("\r\n")
        is_even = is_even and (not line or line.count(delimiter) + 1 == columns)
        if line.startswith('"') or f'{delimiter}"' in line:
            has_quotes = True
            is_whole = is_whole and all(map(_WHOLE.fullmatch, (f for f in line.split(delimiter) if f.startswith('"'))))
        if not is_whole and not is_even:
            break
    if not has_quotes:
        return csv.QUOTE_NONE
    if is_whole:
        return csv.QUOTE_MINIMAL
    if is_even and columns > 1:
        return csv.QUOTE_NONE
    if not _has_even_rows(lines(), delimiter):
        return csv.QUOTE_NONE
    if columns == 1:
        raise DataError(
            f"{origin}: its quotes may hold texts of several lines together or be characters; save it as CSV or JSONL"
        )
    return csv.QUOTE_MINIMAL


def _fits(head: list[str], delimiter: str) -> bool:
    """Whether the first rows have as many fields as the header; the last may be cut and does not count."""
    widths = [len(fields) for fields in csv.reader(head, delimiter=delimiter) if fields]
    return len(set(widths[:-1] if len(head) > _ROWS_LOOKED_AT else widths)) == 1


def _has_even_rows(lines: Iterator[str], delimiter: str) -> bool:
    try:
        return len({len(fields) for fields in csv.reader(lines, delimiter=delimiter, strict=True) if fields}) == 1
    except csv.Error:
        return False
