"""Apache Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row

if TYPE_CHECKING:
    import pyarrow as pa


class Parquet:
    """Apache Parquet."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=10_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pa.ArrowException as error:
            raise DataError(f"{origin}: not a readable Parquet file: {error}") from error

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer = None
        count = 0
        for batch in _batches(rows, 10_000):
            table = pa.Table.from_pylist(batch, schema=writer.schema if writer else _filled(batch))
            writer = writer or pq.ParquetWriter(stream, table.schema)
            writer.write_table(table)
            count += len(batch)
        if writer is None:
            writer = pq.ParquetWriter(stream, pa.schema([]))
        writer.close()
        return count


def _filled(batch: Sequence[Row]) -> pa.Schema:
    """The schema of a batch; a column without a value so far will hold text."""
    import pyarrow as pa

    schema = pa.Table.from_pylist(batch).schema
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema])


def _batches(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
