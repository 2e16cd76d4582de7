"""JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar, NoReturn

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row
from featherweight.sources.formats.decoding import decode


class JsonLines:
    """One JSON object a line."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")

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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return row
