"""Rows of a file in, the same rows with their answers out."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from featherweight.errors import DataError
from featherweight.registry import FORMATS
from featherweight.sources import cells, data
from featherweight.sources.formats import Reading, Row, format_of
from featherweight.storage import write_file

if TYPE_CHECKING:
    from featherweight.serving.predictor import Predictor

_ADDED = ("prediction", "probabilities")


def answer_file(predictor: Predictor, source: str, output: str, column: str, how: Reading) -> int:
    """Stream a file's rows through a predictor into another file; see :meth:`Predictor.predict_file`."""
    jsonl = FORMATS["jsonl"]()
    writer = jsonl if output == "-" else format_of(output)
    rows = jsonl.read(sys.stdin.buffer, "standard input", how) if source == "-" else data.open_file(Path(source), how)
    waiting: deque[Row] = deque()  # rows whose texts the predictor has taken; as many as it takes at a time

    def texts() -> Iterator[str]:
        for number, row in rows:
            text = _text(row, number, source, column)
            waiting.append(row)
            yield text

    def answered() -> Iterator[Row]:
        for prediction in predictor.stream(texts()):
            added = prediction["label"], prediction["probabilities"]
            yield {**waiting.popleft(), **dict(zip(_ADDED, added, strict=True))}

    if output == "-":
        return int(writer.write(sys.stdout.buffer, answered()))
    count = 0

    def fill(stream: BinaryIO) -> None:
        nonlocal count
        count = int(writer.write(stream, answered()))

    write_file(Path(output), fill, "--output")
    return count


def _text(row: Row, number: int, source: str, column: str) -> str:
    if column not in row:
        whose = cells.whose_columns(row)
        found = ", ".join(map(repr, row))
        raise DataError(f"{source}: row {number}: no column {column!r}; it has {found}{whose}; set --column")
    text = row[column]
    cells.require_texts([text], [number], source, column, "mend the row, or set --column")
    if clash := set(_ADDED) & set(row):
        raise DataError(f"{source}: the column {sorted(clash)[0]!r} would be overwritten; rename it")
    return text or ""
