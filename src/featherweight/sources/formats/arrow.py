"""Apache Arrow's own format, of files and of streams; Feather is the first."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from featherweight.errors import DataError
from featherweight.sources.formats.columns import BATCH_BYTES, BATCH_ROWS, Columnar, Columns, explained
from featherweight.sources.formats.writing import JSONL, NotHeldError

if TYPE_CHECKING:
    import pyarrow as pa

_FILE, _FIRST_FEATHER = b"ARROW1", b"FEA1"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream


class Arrow(Columnar):
    """Arrow IPC: the file format, which is also Feather's, or the stream format, as ``datasets`` saves it.

    Written is the file format, without compression, categories as their values: each batch of a file may have others,
    and the format knows one list of them.
    """

    name: ClassVar[str] = "Arrow"
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather")

    def open_columns(self, stream: BinaryIO, origin: str) -> Columns:
        stream.seek(0)
        start = stream.read(len(_FILE))
        if start.startswith(_FIRST_FEATHER):
            raise DataError(f"{origin}: Feather of the first version; write it again by a newer pandas or pyarrow")
        found = _File(stream, origin) if start == _FILE else _Stream(stream, origin)
        with explained(origin, Arrow.name):
            found.schema.names  # noqa: B018 - decoded only now
        return found

    def write_batches(self, stream: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        import pyarrow as pa

        schema = pa.schema([field.with_type(_plain(field.type)) for field in schema], metadata=schema.metadata)
        count = 0
        try:
            with pa.ipc.new_file(stream, schema) as writer:
                for batch in batches:
                    columns = map(_decoded, batch.columns)
                    writer.write_batch(pa.RecordBatch.from_arrays([*columns], schema=schema))
                    count += batch.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:  # the first: categories within objects
            raise NotHeldError(f"a column holds what can't be written ({error})", JSONL) from error
        return count


class _File:
    def __init__(self, stream: BinaryIO, origin: str) -> None:
        import pyarrow as pa

        self._origin = origin
        with explained(origin, Arrow.name):
            self._reader = pa.ipc.open_file(pa.PythonFile(stream, mode="r"))

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        with explained(self._origin, Arrow.name):
            for index in range(self._reader.num_record_batches):
                yield from _sound(self._reader.get_batch(index))


class _Stream:
    def __init__(self, stream: BinaryIO, origin: str) -> None:
        self._stream, self._origin = stream, origin
        self.schema = self._opened().schema

    def _opened(self) -> pa.RecordBatchStreamReader:
        import pyarrow as pa

        self._stream.seek(0)
        with explained(self._origin, Arrow.name):
            return pa.ipc.open_stream(pa.PythonFile(self._stream, mode="r"))

    def batches(self) -> Iterator[pa.RecordBatch]:
        reader = self._opened()
        with explained(self._origin, Arrow.name):
            for batch in reader:
                yield from _sound(batch)
            self._require_end()

    def _require_end(self) -> None:
        """A stream that is cut between two batches, or goes on with another, would else be read as a whole one."""
        end = self._stream.tell()
        self._stream.seek(max(0, end - len(_END)))
        if self._stream.read() != _END:
            raise ValueError("it does not end where its rows end; it was cut short, or put together of several")
        self._stream.seek(0, io.SEEK_END)


def _sound(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts that are small as Python's values, once its offsets are found to lie within it."""
    batch.validate(full=True)
    size = batch.nbytes // max(batch.num_rows, 1)
    rows = min(BATCH_ROWS, max(BATCH_BYTES // max(size, 1), 1))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type with the values of categories in their place."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
