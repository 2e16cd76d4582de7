"""What formats of typed columns have in common: Arrow's types, read and written a batch at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

from featherweight.errors import DataError
from featherweight.sources.formats import STRICT, Reading, Row, unique
from featherweight.sources.formats.writing import JSONL, NotHeldError, Writer, blocks

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 10_000
BATCH_BYTES = 16 << 20
_WIDEN = {"promote_options": "permissive"}  # whole numbers beside others are numbers; objects have all of their keys
_KINDS = {
    "bool": "booleans",
    "int": "whole numbers",
    "float": "numbers",
    "str": "texts",
    "list": "lists",
    "dict": "objects",
}


class Columns(Protocol):
    """A file that was opened.

    Attributes:
        schema: its columns, with their types.
    """

    @property
    def schema(self) -> pa.Schema: ...

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows from the first on, as many at a time as fit into memory. Raises DataError."""


class Columnar(ABC):
    """A format whose columns have Arrow's types, which another such file keeps."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    streams: ClassVar[bool] = False

    @abstractmethod
    def open_columns(self, stream: BinaryIO, origin: str) -> Columns:
        """A file by its columns. Raises DataError where it is none."""

    @abstractmethod
    def write_batches(self, stream: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Write a file's columns as they are; gives the number of rows. Raises NotHeldError."""

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        number = 0
        opened = self.open_columns(stream, origin)
        names = unique(opened.schema.names, origin, how)
        how.on_columns(names)
        for batch in opened.batches():
            columns = [values(column, name, origin) for name, column in zip(names, batch.columns, strict=True)]
            for row in zip(*columns, strict=True):
                number += 1
                yield number, dict(zip(names, row, strict=True))

    def writer(self) -> Writer:
        return _Writer(self)


@contextmanager
def explained(origin: str, name: str) -> Iterator[None]:
    """What Arrow raises for a damaged file of the format ``name`` is a DataError that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:  # a damaged page: OSError
        raise DataError(f"{origin}: not a readable {name} file: {' '.join(str(error).split())}") from error


class _Writer:
    """Columns of one type each, found by looking at all rows; a column without a value holds text."""

    nests: ClassVar[bool] = True

    def __init__(self, target: Columnar) -> None:
        self._target = target
        self._block: list[Row] = []
        self._size = 0
        self.schema: pa.Schema | None = None

    def see(self, row: Row) -> None:
        self._block.append(row)
        self._size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(self._block) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            self._widen(_schema(self._block))
            self._block, self._size = [], 0

    def settle(self, columns: Sequence[str], added: Sequence[Row]) -> None:
        import pyarrow as pa

        self._widen(_schema(self._block))
        self._widen(pa.schema([(name, pa.null()) for name in columns]))
        self._widen(_schema(added))
        assert self.schema is not None
        self.schema = pa.schema([field.with_type(_filled(field.type)) for field in self.schema])
        self._block = []

    def _widen(self, schema: pa.Schema) -> None:
        import pyarrow as pa

        before = self.schema or pa.schema([])
        for field in schema:
            if field.name in before.names:
                try:
                    pa.unify_schemas([pa.schema([before.field(field.name)]), pa.schema([field])], **_WIDEN)
                except pa.ArrowException:
                    raise _of_two_types(field.name, f"{before.field(field.name).type} and {field.type}") from None
        self.schema = pa.unify_schemas([before, schema], **_WIDEN)

    def plain(self, row: Row) -> Row:
        assert self.schema is not None
        if unknown := [name for name in row if name not in self.schema.names]:
            raise NotHeldError(f"the column {unknown[0]!r} was not there when the file was read first", JSONL)
        return {name: row.get(name) for name in self.schema.names}

    def write(self, stream: BinaryIO, rows: Iterator[Row]) -> int:
        import pyarrow as pa

        assert self.schema is not None
        return self._target.write_batches(
            stream,
            self.schema,
            (
                pa.RecordBatch.from_arrays(
                    [_array(field.name, [row.get(field.name) for row in block], field.type) for field in self.schema],
                    schema=self.schema,
                )
                for block in ([self.plain(row) for _, row in some] for some in blocks(enumerate(rows), BATCH_ROWS))
            ),
        )


def _schema(rows: Sequence[Row]) -> pa.Schema:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    arrays = {name: _array(name, [row.get(name) for row in rows]) for name in names}
    return pa.schema([(name, array.type) for name, array in arrays.items()])


def _array(name: str, values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    import pyarrow as pa

    try:
        name.encode()
        return pa.array(values, kind)
    except UnicodeEncodeError:
        raise NotHeldError(f"the column {name!r} holds half a surrogate pair", JSONL) from None
    except OverflowError:
        raise NotHeldError(f"the column {name!r} holds whole numbers of more than 64 bits", JSONL) from None
    except (pa.ArrowException, TypeError, ValueError):
        kinds = dict.fromkeys(type(value).__name__ for value in values if value is not None)
        found = " and ".join(_KINDS.get(one, one) for one in kinds)
        if len(kinds) > 1:
            raise _of_two_types(name, found) from None
        raise NotHeldError(f"the column {name!r} holds {found} that have no type of Arrow's together", JSONL) from None


def _of_two_types(name: str, types: str) -> NotHeldError:
    return NotHeldError(f"the column {name!r} holds values of two types ({types})", JSONL)


def _filled(kind: pa.DataType) -> pa.DataType:
    """The type, with text where no value told."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_filled(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_filled(field.type)) for field in kind])
    return kind


def values(column: pa.Array, name: str, origin: str) -> list[Any]:
    """A column's values as Python's. Raises DataError where Python has none for one."""
    import pyarrow as pa

    try:
        found = list(column.to_pylist())
        # Python's times end at the microsecond, and nobody says what was cut off.
        if "time64[ns]" in str(column.type) and not pa.array(found, column.type).equals(column):
            raise ValueError("times finer than a microsecond")
        return found
    except (ValueError, OverflowError) as error:
        raise DataError(f"{origin}: the column {name!r} holds values that can't be read: {error}") from error
