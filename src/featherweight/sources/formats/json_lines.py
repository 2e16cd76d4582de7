"""JSON: one object a line, or an array of objects, which may stand in an object under its only key."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO, ClassVar, NoReturn

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row
from featherweight.sources.formats.decoding import decode
from featherweight.sources.formats.writing import Writer, as_json

_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_CHUNK = 1 << 20  # characters
_BEFORE_ROWS = re.compile(r'[ \t\r\n]*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[(?=\s*\{)')
_HEAD = 1 << 16
_LONGEST_LINE = 16 << 20  # characters of a first line that is looked at as a whole
_CUT = (
    16  # an error so near to the end may come of what is not read yet: the longest token that is no string is -Infinity
)


class JsonLines:
    """One JSON object a line, or one array of objects, whatever lines it is written on."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    streams: ClassVar[bool] = True

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        text = decode(stream, origin, how.encoding)
        before, first = _skip_space(text)
        if first == "[":
            yield from _read_array(text, origin, how)
        else:
            yield from _read_lines(
                chain([first + text.readline()], text), 1 + len(_LINE_END.findall(before)), origin, how
            )

    def writer(self) -> Writer:
        return _Writer()


class Json(JsonLines):
    """The same, or one object whose only key holds the array, as web services and pandas write it: ``{"data": [...]}``.

    A file that is named after lines never is: there such an object is a row that holds a list.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        before_rows = _before_rows(decode(stream, origin, how.encoding))
        stream.seek(0)
        if before_rows == 0:
            yield from super().read(stream, origin, how)
            return
        text = decode(stream, origin, how.encoding)
        text.read(before_rows)
        yield from _read_array(text, origin, how, "}")


class _Writer:
    nests: ClassVar[bool] = True

    def see(self, row: Row) -> None:
        pass  # each row has its own keys and types

    def settle(self, columns: Sequence[str], added: Sequence[Row]) -> None:
        pass

    def plain(self, row: Row) -> Row:
        return {name: as_json(value, name) for name, value in row.items()}

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        count = 0
        for row in rows:
            plain = self.plain(row)
            try:
                line = json.dumps(plain, ensure_ascii=False).encode()
            except UnicodeEncodeError:  # half a surrogate pair has no UTF-8 form
                line = json.dumps(plain).encode()
            stream.write(line + b"\n")
            count += 1
        return count


def _read_lines(lines: Iterator[str], start: int, origin: str, how: Reading) -> Iterator[tuple[int, Row]]:
    number = 0
    for line_number, line in enumerate(lines, start):
        if not line.strip():
            continue
        number += 1
        try:
            row = _require_object(_DECODER.decode(line))
        except (ValueError, RecursionError) as error:
            shape = "; one object a line, or one array of objects, was expected" if number == 1 else ""
            how.on_bad_row(DataError(f"{origin}: line {line_number}: not a valid JSON object: {error}{shape}"))
        else:
            yield number, row


def _before_rows(text: io.TextIOWrapper) -> int:
    """How many characters stand before the first row, where the file is an object whose only key holds them; else 0.

    A line that is such an object may also be the first of many, each a row that holds a list: then there are others
    after it.
    """
    before, first = _skip_space(text)
    if first != "{":
        return 0
    line = first + text.readline(_LONGEST_LINE)
    head = line if len(line) > _HEAD else line + text.read(_HEAD)
    found = _BEFORE_ROWS.match(head)
    if found is None:
        return 0
    try:
        is_whole = len(_DECODER.decode(line)) == 1 and not head[len(line) :].strip()
    except (ValueError, RecursionError):
        return len(before) + found.end()  # it goes on over the line's end
    return len(before) + found.end() if is_whole else 0


def _read_array(text: io.TextIOWrapper, origin: str, how: Reading, closing: str = "") -> Iterator[tuple[int, Row]]:
    """The objects of an array whose bracket has been read, one at a time, so that its size does not matter.

    Args:
        closing: what comes after the array.
    """
    buffer, position, number = "", 0, 0
    separator = ","
    at_end = False
    while separator == ",":
        number += 1
        try:
            while (found := _next(buffer, position, is_first=number == 1, at_end=at_end)) is None:
                more = text.read(max(_CHUNK, len(buffer) - position))
                at_end = not more
                buffer, position = buffer[position:] + more, 0
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)  # the place that it names is one of the buffer
            raise DataError(f"{origin}: row {number}: not a valid JSON array of objects: {reason}") from None
        row, position, separator = found
        if row is _NOTHING:
            break
        try:
            yield number, _require_object(row)
        except ValueError as error:
            how.on_bad_row(DataError(f"{origin}: row {number}: {error}"))
    rest = buffer[position:].strip() or _skip_space(text)[1]
    if not rest.startswith(closing) or rest[len(closing) :].strip() or _skip_space(text)[1]:
        what = f"{closing!r} and nothing else" if closing else "nothing"
        raise DataError(f"{origin}: {what} may come after the end of the array of rows")


_NOTHING = object()


def _next(buffer: str, position: int, is_first: bool, at_end: bool) -> tuple[Any, int, str] | None:
    """A value, where it and the character after it end, and that character: a comma, or the array's bracket.

    None where more of the file is needed to say. Raises ValueError where it is not JSON whatever follows.
    """
    position = _end_of_space(buffer, position)
    if is_first and buffer[position : position + 1] == "]":
        return _NOTHING, position + 1, "]"
    try:
        value, end = _DECODER.raw_decode(buffer, position)
    except json.JSONDecodeError as error:
        if at_end or not (error.msg.startswith("Unterminated string") or error.pos >= len(buffer) - _CUT):
            raise
        return None
    end = _end_of_space(buffer, end)
    if end == len(buffer) and not at_end:
        return None
    if buffer[end : end + 1] not in {",", "]"}:
        raise ValueError("a comma or the end of the array was expected after it")
    return value, end + 1, buffer[end]


def _end_of_space(buffer: str, position: int) -> int:
    found = _SPACE.match(buffer, position)
    assert found is not None
    return found.end()


def _skip_space(text: io.TextIOWrapper) -> tuple[str, str]:
    """The space before the first character that is none, and that character, or nothing at the end."""
    skipped = ""
    while (character := text.read(1)) and character in " \t\r\n":
        skipped += character
    return skipped, character


def _require_object(row: Any) -> Row:
    if not isinstance(row, dict):
        raise ValueError('a JSON object was expected, such as {"text": ...}')
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return row


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
