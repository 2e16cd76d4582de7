"""Rows of a file in, the same rows with their answers out: nothing lost, or refused before the first answer."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from featherweight.errors import ConfigError, DataError
from featherweight.records.questions import Question
from featherweight.registry import FORMATS, did_you_mean
from featherweight.sources import cells, data_files
from featherweight.sources.formats import Format, Reading, Row, format_of, on_disk, opened, unique
from featherweight.sources.formats.columns import Columnar, Columns, values
from featherweight.sources.formats.writing import NotHeldError, rehearse
from featherweight.storage.whole import write_file
from featherweight.tasks import Task

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.inference.predictor import Predictor

_FIX = "mend the row, or set --column"

Fill = Callable[[BinaryIO], int]


def answer_file(
    predictor: Predictor, source: str, output: str, candidates: Sequence[tuple[str, ...]], how: Reading
) -> int:
    """Stream a file's rows through a predictor into another file; see :meth:`Predictor.predict_file`.

    Args:
        candidates: which column holds the text, or which two hold pairs: the first of these that the file begins with.
    """
    target: Format = FORMATS["jsonl"]() if output == "-" else format_of(output)
    if output != "-" and Path(output).exists() and not Path(output).is_file():
        raise ConfigError(f"{output}: not a regular file; name a file, or - for a pipe")
    with _opened(source, how) as given:
        given.choose(candidates)
        fill = _filling(predictor, given, target, output)
        if output == "-":
            return fill(sys.stdout.buffer)
        count = 0

        def counted(stream: BinaryIO) -> None:
            nonlocal count
            count = fill(stream)
            given.require_unchanged()

        write_file(Path(output), counted, "--output")
        return count


@dataclass
class _Source:
    """A file that can be read again and again.

    Attributes:
        name: for messages.
        texts: the column of the texts, or the two of their pairs.
        state: when it was opened; None where nobody else can change it.
        columns: its columns, once it was read, where it has any without rows.
    """

    name: str
    format: Format
    stream: BinaryIO
    how: Reading
    texts: tuple[str, ...] = ()
    state: os.stat_result | None = None
    columns: list[str] = field(default_factory=list)

    def choose(self, candidates: Sequence[tuple[str, ...]]) -> None:
        first, *others = candidates
        if others:
            found = {*next((row for _, row in self.rows()), {}), *self.columns}
            first = next((names for names in candidates if found.issuperset(names)), first)
        self.texts, self.how = first, replace(self.how, columns=first)

    def rows(self) -> Iterator[tuple[int, Row]]:
        self.stream.seek(0)
        self.columns.clear()
        return self.format.read(self.stream, self.name, replace(self.how, on_columns=self.columns.extend))

    def question(self, row: Row, number: int, predictor: Predictor) -> Question:
        self.require_columns(row, f"row {number}: ")
        return self.asked([row[name] for name in self.texts], number, predictor)

    def asked(self, found: Sequence[Any], number: int, predictor: Predictor) -> Question:
        """What the cells of a row's texts ask. Raises DataError, naming the row, where it is nothing to ask."""
        try:
            return predictor.question(_given_in(found, predictor.task))
        except DataError:
            for name, cell in zip(self.texts, found, strict=True):
                cells.require_texts([cell], [number], self.name, name, _FIX)  # says what it is instead
            raise

    def require_columns(self, found: Collection[str], where: str = "") -> None:
        for name in self.texts:
            if name not in found:
                has = f"it has {', '.join(map(repr, found))}" if found else "it has none"
                raise DataError(
                    f"{self.name}: {where}no column {name!r}{did_you_mean(name, found)}; {has}"
                    f"{cells.whose_columns(found)}; set --column"
                )

    def refuse_clash(self, found: Collection[str], added: frozenset[str]) -> None:
        if clash := sorted(added.intersection(found)):
            raise DataError(f"{self.name}: the column {clash[0]!r} would be overwritten by the prediction; rename it")

    def require_unchanged(self) -> None:
        if self.state is not None:
            now = on_disk(Path(self.name)).stat()
            if (now.st_size, now.st_mtime_ns) != (self.state.st_size, self.state.st_mtime_ns):
                raise DataError(f"{self.name}: changed while it was read; predict it again")


def _given_in(found: Sequence[Any], task: Task) -> Any:
    """What a row's cells give a predictor, as training reads such cells: a list of words may be spelled as JSON."""
    text, *pair = ("" if cell is None else cell for cell in found)
    if pair:
        return {"text": text, "text_pair": pair[0]}
    if task.scores_tokens:
        return {"prompt": text}
    return (cells.parsed(text) or "") if task.reads_tokens else text


@contextmanager
def _opened(source: str, how: Reading) -> Iterator[_Source]:
    """Standard input goes to the disk first, since rows are read more than once."""
    if source == "-":
        with tempfile.TemporaryFile() as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled)
            yield _Source("standard input", FORMATS["jsonl"](), spooled, how)
        return
    path = Path(source)
    data_files.require_regular(path)
    with opened(path) as (found, stream):
        yield _Source(source, found, stream, how, state=on_disk(path).stat())


def _filling(predictor: Predictor, given: _Source, target: Format, output: str) -> Fill:
    """How the target is written: column by column where both formats have types of columns, else row by row."""
    if isinstance(given.format, Columnar) and isinstance(target, Columnar):
        columns = given.format.open_columns(given.stream, given.name)
        return _by_columns(predictor, given, columns, target, output)
    return _by_rows(predictor, given, target, output)


def _by_rows(predictor: Predictor, given: _Source, target: Format, output: str) -> Fill:
    """Each row with its prediction. Every row is seen, and tried, before the first is answered."""
    writer = target.writer()
    added = predictor.kind.possible_cells(writer.nests, predictor.options)
    taken = frozenset(added[0])
    where = given.name
    try:
        for number, row in given.rows():
            where = f"{given.name}: row {number}"
            given.question(row, number, predictor)
            given.refuse_clash(row, taken)
            writer.see(row)
        where = given.name
        if given.columns:
            given.require_columns(given.columns)
        given.refuse_clash(given.columns, taken)
        writer.settle(given.columns, added)
    except NotHeldError as error:
        raise error.at(where, output) from error
    rehearse(writer, target, given.rows(), added, given.name, output)

    def answered() -> Iterator[Row]:
        waiting: deque[Row] = deque()  # rows whose texts the predictor has taken; as many as it takes at a time

        def asked() -> Iterator[Question]:
            for number, row in given.rows():
                waiting.append(row)
                yield given.question(row, number, predictor)

        for answer in predictor.stream(asked()):
            yield {**waiting.popleft(), **predictor.kind.cells(answer, writer.nests)}

    def fill(stream: BinaryIO) -> int:
        try:
            return writer.write(stream, answered())
        except NotHeldError as error:
            raise error.at(given.name, output) from error

    return fill


def _by_columns(predictor: Predictor, given: _Source, file: Columns, target: Columnar, output: str) -> Fill:
    """The file's columns as they are, of whatever type, and the predictions as two more."""
    import pyarrow as pa

    names = unique(file.schema.names, given.name, given.how)
    given.require_columns(names)
    fields = predictor.kind.fields(predictor.options)
    given.refuse_clash(names, frozenset(one.name for one in fields))
    places = [names.index(name) for name in given.texts]
    done = 0
    for batch in file.batches():
        texts = (values(batch.column(names.index(name)), name, given.name) for name in given.texts)
        for found in zip(*texts, strict=True):
            done += 1
            given.asked(found, done, predictor)
    schema = file.schema
    for one in fields:
        schema = schema.append(one)

    def answered() -> Iterator[pa.RecordBatch]:
        waiting: deque[pa.RecordBatch] = deque()

        def asked() -> Iterator[Any]:
            for batch in file.batches():
                if batch.num_rows:
                    waiting.append(batch)
                    texts = (batch.column(place).to_pylist() for place in places)
                    yield from (_given_in(found, predictor.task) for found in zip(*texts, strict=True))

        answers = predictor.stream(asked())
        for first in answers:
            batch = waiting.popleft()
            block = [first, *islice(answers, batch.num_rows - 1)]
            cells = [predictor.kind.cells(one, nests=True) for one in block]
            added = [pa.array([row[one.name] for row in cells], one.type) for one in fields]
            yield pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)

    def fill(stream: BinaryIO) -> int:
        try:
            return target.write_batches(stream, schema, answered())
        except NotHeldError as error:
            raise error.at(given.name, output) from error

    return fill
