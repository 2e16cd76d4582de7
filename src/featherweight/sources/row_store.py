"""The rows of data files as one Arrow stream of strings on disk: read once, strictly, a batch in memory at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from featherweight.errors import DataError
from featherweight.recipe import DataSection
from featherweight.registry import did_you_mean, look_alike
from featherweight.sources import cells, data_files
from featherweight.sources.formats import Reading, Row

ROW = "__row__"
ROWS_FILE, SKIPPED_FILE = "rows.arrow", "skipped.json"
_TRUTH_KEYS = frozenset({"data.label", "data.labels_columns", "data.rejected"})
_BATCH_ROWS = 10_000
_BATCH_BYTES = 16 << 20
_MOST_OTHERS = 1000  # columns that nobody asked for
TEXT_FIX = "a text is a string: mend the row, or name the column of the texts in data.text"


def asked_columns(section: DataSection) -> dict[str, str]:
    """Each column that the section names, with the key that names it."""
    wanted = [("group", section.group)] if section.group else []
    wanted += [("slices", name) for name in section.slices] + [("filter", name) for name in section.filter]
    wanted += [(key, name) for name, key in section.truths.items()]
    wanted += [("text", name) for name in section.texts]
    return {name: f"data.{key}" for key, name in wanted}


def build(paths: Sequence[Path], section: DataSection, folder: Path, *, may_lack_label: bool) -> None:
    """Write the rows of the files that pass the filter to ``folder``, as strings beside the row's number.

    Rows count on from file to file. Kept are the columns that the section names and those of the first rows, 10,000
    at most, which the data checks look at. What nobody named is left out where only later rows have it, and where it
    holds lists, such as embeddings.

    Args:
        may_lack_label: a file without the label column has no label in any row, instead of being refused.

    Raises:
        DataError: naming the file, the row and the fix.
    """
    import pyarrow as pa

    bad: list[DataError] = []
    how = Reading(
        section.encoding,
        bad.append if section.skip_bad_rows else _refuse_with_hint,
        section.delimiter,
        tuple(asked_columns(section)),
    )
    with pa.OSFile(str(folder / ROWS_FILE), "wb") as sink, closing(_Rows(section, sink)) as rows:
        for path in paths:
            rows.add(path, how, may_lack_label)
    _settle_bad_rows(bad, rows.read, section, folder / SKIPPED_FILE)
    origin = data_files.named(paths)
    if rows.read == 0:
        raise DataError(f"{origin}: no rows; the file needs a header and at least two labelled rows")
    if rows.kept == 0:
        raise DataError(f"{origin}: none of the {rows.read} rows has {section.filter}; check data.filter")
    rows.require_one_kind_of_label(origin)


def require_columns(
    found: Collection[str], asked: Mapping[str, str], origin: str, *, may_lack_label: bool = False
) -> None:
    """Raises DataError where a column that is asked for is not among those found.

    Args:
        may_lack_label: the label need not be there; but where it seems to be, under nearly its name, that is no lack.
    """
    for name, key in asked.items():
        is_optional = may_lack_label and key in _TRUTH_KEYS and not look_alike(name, found)
        if name not in found and not is_optional:
            whose = cells.whose_columns(found) if key in {"data.text", *_TRUTH_KEYS} else ""
            raise DataError(
                f"{origin}: no column {name!r} for {key}{did_you_mean(name, found)}; "
                f"the file has: {', '.join(map(repr, found))}{whose}"
            )


def as_text(value: Any) -> str | None:
    """A cell of any column as text; what JSON spells otherwise is spelled as JSON."""
    if value is None:
        return None
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # A lone surrogate, which JSON can spell, has no UTF-8 form.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class _Rows:
    """The rows that were read so far, on their way to the disk.

    Attributes:
        read: how many there were.
        kept: how many of them passed the filter.
    """

    def __init__(self, section: DataSection, sink: Any) -> None:
        self.read = self.kept = 0
        self._section = section
        self._sink = sink
        self._asked = asked_columns(section)
        self._columns: list[str] = []
        self._writer: Any = None
        self._last = 0  # number of the last row
        self._label_kinds: dict[type, list[int]] = {}  # kind: [count, first row]

    def add(self, path: Path, how: Reading, may_lack_label: bool) -> None:
        before = self._last
        with closing(data_files.read(path, how)) as read:
            for position, (numbers, rows) in enumerate(_batched(read)):
                if position == 0:
                    found = list(dict.fromkeys(name for row in rows for name in row))
                    require_columns(found, self._asked, str(path), may_lack_label=may_lack_label)
                    self._begin(found, rows)
                self.read += len(rows)
                self._last = before + numbers[-1]
                self._write(*_passing(numbers, rows, self._section.filter), before, str(path))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def require_one_kind_of_label(self, origin: str) -> None:
        """Raises DataError where labels are texts here and numbers there."""
        kinds = {cells.LABEL_KINDS[kind]: seen for kind, seen in self._label_kinds.items()}
        if len(kinds) > 1 and not (self._section.numeric and set(kinds) <= {"integer", "number"}):
            table = "; ".join(
                f"{kind}: {count} rows, first in row {row}" for kind, (count, row) in sorted(kinds.items())
            )
            raise DataError(
                f"{origin}: the label column {self._section.label!r} mixes types ({table}); write them all alike"
            )

    def _begin(self, found: Sequence[str], rows: Sequence[Row]) -> None:
        import pyarrow as pa

        if self._writer is not None:
            return
        lists = {name for row in rows for name, value in row.items() if isinstance(value, list)}
        others = [name for name in found if name not in {*self._asked, *lists, ROW}]
        self._columns = [*self._asked, *others[:_MOST_OTHERS]]
        schema = pa.schema([(ROW, pa.int64()), *((name, pa.large_string()) for name in self._columns)])
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def _write(self, numbers: list[int], rows: list[Row], before: int, origin: str) -> None:
        import pyarrow as pa

        values = {name: [row.get(name) for row in rows] for name in self._columns}
        for text in self._section.texts if "text" not in self._section.lists else ():
            cells.require_texts(values[text], numbers, origin, text, TEXT_FIX)
        counted = [before + number for number in numbers]
        for label in self._section.truths:
            if "label" not in self._section.lists:
                cells.require_labels(values[label], numbers, origin, label)
            values[label] = cells.without_nan(values[label])
        if self._section.label in self._section.truths:
            self._count_labels(values[self._section.label], counted)
        arrays = [pa.array(counted, pa.int64()), *(_strings(values[name]) for name in self._columns)]
        self._writer.write_batch(pa.record_batch(arrays, names=[ROW, *self._columns]))
        self.kept += len(rows)

    def _count_labels(self, labels: Sequence[Any], numbers: Sequence[int]) -> None:
        for kind, count in Counter(map(type, labels)).items():
            if kind in cells.LABEL_KINDS:
                if kind not in self._label_kinds:
                    self._label_kinds[kind] = [0, numbers[list(map(type, labels)).index(kind)]]
                self._label_kinds[kind][0] += count


def _batched(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[list[int], list[Row]]]:
    """Group rows by count and by size, so that neither many rows nor huge ones fill the memory."""
    numbers: list[int] = []
    batch: list[Row] = []
    size = 0
    for number, row in rows:
        numbers.append(number)
        batch.append(row)
        for value in row.values():
            if type(value) is str:
                size += len(value)
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield numbers, batch
            numbers, batch, size = [], [], 0
    if batch:
        yield numbers, batch


def _passing(numbers: list[int], rows: list[Row], wanted: Mapping[str, str]) -> tuple[list[int], list[Row]]:
    if not wanted:
        return numbers, rows
    kept = [
        index
        for index, row in enumerate(rows)
        if all(as_text(row.get(name)) == value for name, value in wanted.items())
    ]
    return [numbers[index] for index in kept], [rows[index] for index in kept]


def _strings(values: Sequence[Any]) -> Any:
    import pyarrow as pa

    if set(map(type, values)) <= {str, type(None)}:
        with suppress(UnicodeEncodeError):  # a lone surrogate
            return pa.array(values, pa.large_string())
    return pa.array([as_text(value) for value in values], pa.large_string())


def _refuse_with_hint(error: DataError) -> None:
    raise DataError(f"{error}; mend it, or leave such rows out with --skip-bad-rows")


def _settle_bad_rows(bad: list[DataError], read: int, section: DataSection, target: Path) -> None:
    """Write down how many rows are left out, or refuse the file where they are more than may be."""
    if len(bad) > section.skip_bad_rows * max(read, len(bad)):
        raise DataError(
            f"{bad[0]}; {len(bad):,} such rows beside {read:,}, and data.skip_bad_rows lets no more than "
            f"{section.skip_bad_rows:.2%} be left out"
        )
    target.write_text(json.dumps(len(bad)), encoding="utf-8")
