"""Apache Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from featherweight.errors import DataError
from featherweight.sources.formats.columns import BATCH_BYTES, BATCH_ROWS, Columnar, Columns, explained
from featherweight.sources.formats.writing import JSONL, NotHeldError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class Parquet(Columnar):
    """Apache Parquet."""

    name: ClassVar[str] = "Parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def open_columns(self, stream: BinaryIO, origin: str) -> Columns:
        return _Columns(stream, origin)

    def write_batches(self, stream: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = 0
        try:
            with pq.ParquetWriter(stream, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    count += batch.num_rows
        except pa.ArrowNotImplementedError as error:
            raise NotHeldError(f"a column holds what Parquet has no type for ({error})", JSONL) from error
        return count


class _Columns:
    def __init__(self, stream: BinaryIO, origin: str) -> None:
        import pyarrow.parquet as pq

        self._origin = origin
        with explained(origin, Parquet.name):
            self._file = pq.ParquetFile(stream, page_checksum_verification=True)

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    def batches(self) -> Iterator[pa.RecordBatch]:
        number = 0
        with explained(self._origin, Parquet.name):
            for batch in self._file.iter_batches(batch_size=_rows_of_a_batch(self._file)):
                number += batch.num_rows
                yield batch
        expected = self._file.metadata.num_rows
        if number != expected:
            raise DataError(f"{self._origin}: {number} rows where its footer says {expected}; it is damaged")


def _rows_of_a_batch(file: pq.ParquetFile) -> int:
    """So few that they fit into memory, however long their texts are."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return int(min(BATCH_ROWS, max(BATCH_BYTES // max(largest, 1), 1)))
