"""Apache Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row, unique

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 10_000
_BATCH_BYTES = 16 << 20


class Parquet:
    """Apache Parquet."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    streams: ClassVar[bool] = False

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            names = unique(file.schema_arrow.names, origin, how)
            for batch in file.iter_batches(batch_size=_rows_of_a_batch(file)):
                columns = [_values(column, name, origin) for name, column in zip(names, batch.columns, strict=True)]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield number, dict(zip(names, values, strict=True))
            if number != file.metadata.num_rows:
                raise DataError(
                    f"{origin}: {number} rows where its footer says {file.metadata.num_rows}; it is damaged"
                )
        except (pa.ArrowException, OSError, ValueError) as error:  # a damaged page is an OSError
            reason = " ".join(str(error).split())
            raise DataError(f"{origin}: not a readable Parquet file: {reason}") from error

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


def _rows_of_a_batch(file: pq.ParquetFile) -> int:
    """So few that they fit into memory, however long their texts are."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return int(min(_BATCH_ROWS, max(_BATCH_BYTES // max(largest, 1), 1)))


def _values(column: pa.Array, name: str, origin: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError) as error:
        raise DataError(f"{origin}: the column {name!r} holds values that can't be read: {error}") from error


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
