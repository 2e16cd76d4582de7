"""From cells to a set of labels for each row: lists, texts with a separator, and a column of 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.records.rows import Split
from featherweight.sources import cells
from featherweight.tasks.reading.labels import (
    LabelColumn,
    Reading,
    as_text,
    given,
    refuse_look_alikes,
    row_ids,
    without_decimals,
)

if TYPE_CHECKING:
    from featherweight.recipe import DataSection

_YES_OR_NO = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_MOST_HOT = 3  # of as many zeros and ones in each list, two are alike, so they can't be labels themselves
_HINT = (
    "write a list, set data.label_separator where a text holds several, or name a column of 0 and 1 for each label in "
    'data.labels_columns; one label a row is for task = "sequence-classification"'
)

Sets = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelSetColumn(LabelColumn):
    """The labels of all rows, end to end.

    Attributes:
        codes: int64, shape (labels of all rows,), index into ``values``.
        offsets: int64, shape (rows + 1,); the labels of row ``i`` are ``codes[offsets[i]:offsets[i + 1]]``.
        said: what a person has to be told of how they were read.
    """

    offsets: NDArray[np.int64]
    said: str | None = None

    def first_row(self, value: str | None) -> int:
        place = int(np.argmax(self.codes == self.values.index(value or "")))
        return int(row_ids(self.split.rows)[np.searchsorted(self.offsets, place, side="right") - 1]) + 1

    def sets(self, reading: Reading) -> Sets:
        """Which labels each row has; shape (rows, labels)."""
        classes = np.asarray([reading.classes[value] for value in self.values], dtype=np.int64)
        found = np.zeros((len(self.offsets) - 1, max(reading.classes.values()) + 1), dtype=bool)
        found[np.repeat(np.arange(len(found)), np.diff(self.offsets)), classes[self.codes]] = True
        return found


def names_of(section: DataSection) -> list[str] | None:
    """The labels that the section names, in the order of the model's outputs."""
    return given(section) or _own(section, "labels_columns")


def _own(section: DataSection, key: str) -> Any:
    """A key that only this task's section has."""
    return getattr(section, key, None)


def read(split: Split, section: DataSection) -> LabelSetColumn:
    """Read and check one split's labels.

    Raises:
        DataError: naming the row, where a cell holds no set of labels, or some rows have none given and others have.
    """
    rows, columns = _given(split, section)
    if _own(section, "missing_labels") == "empty" and any(row is not None for row in rows):
        rows = [row or [] for row in rows]
    _refuse_missing(split, rows, columns)
    if not _are_yes_or_no_for_each(rows):
        return _joined(split, rows, columns)
    places = len(rows[0] or ())
    names = given(section) or split.label_names or [str(index) for index in range(places)]
    if len(names) != places:
        raise DataError(
            f"{split.origin}: the lists in {section.label!r} are of {places} zeros and ones, and there are "
            f"{len(names)} names; name each place of them in data.labels"
        )
    chosen: list[list[Any] | None] = [[name for name, one in zip(names, row or (), strict=True) if one] for row in rows]
    said = f"the lists in {section.label!r} are read as a 0 or 1 for each label"
    return _joined(split, chosen, columns, said)


def _given(split: Split, section: DataSection) -> tuple[list[list[Any] | None], Sequence[str]]:
    """The labels of each row as they are written, None where it has none given, and the columns that they stand in."""
    columns = _own(section, "labels_columns")
    if columns is not None:
        return list(_marked(split, columns)), columns
    rows = [_labels(split, place, cell, section) for place, cell in enumerate(_cells(split, section.label))]
    if _own(section, "label_separator") is not None and not any(rows):
        rows = [None] * len(rows)  # where every cell is empty nobody has labelled them
    return rows, [section.label]


def _cells(split: Split, column: str) -> Iterator[Any]:
    for batch in split.rows.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
        yield from batch.column(column).to_pylist()


def _labels(split: Split, place: int, cell: Any, section: DataSection) -> list[Any] | None:
    """The labels of one cell; None where it has none given."""
    separator = _own(section, "label_separator")
    if separator is not None and (cell is None or isinstance(cell, str)):
        return [part.strip() for part in (cell or "").split(separator) if part.strip()]
    value = cells.parsed(cell, "[{")
    if isinstance(value, Mapping) and all(_yes_or_no(one) is not None for one in value.values()):
        return [name for name, one in value.items() if _yes_or_no(one)]
    if value is None or (isinstance(value, list) and all(isinstance(one, str | int | float) for one in value)):
        return value
    raise _problem(split, place, f"{str(cell)!r} in the column {section.label!r} is no list of labels; {_HINT}")


def _yes_or_no(cell: Any) -> bool | None:
    """None where it is neither."""
    return _YES_OR_NO.get(str(cell).lower())


def _marked(split: Split, columns: Sequence[str]) -> Iterator[list[Any] | None]:
    """The columns that say yes, of each row; None where none says anything."""
    for place, row in enumerate(zip(*(_cells(split, name) for name in columns), strict=True)):
        if all(cell is None or cell == "" for cell in row):
            yield None
            continue
        found = [_yes_or_no(cell) for cell in row]
        if None in found:
            index = found.index(None)
            raise _problem(
                split, place, f"{row[index]!r} in the column {columns[index]!r} is neither 0 nor 1; mend the row"
            )
        yield [name for name, one in zip(columns, found, strict=True) if one]


def _joined(
    split: Split, rows: Sequence[list[Any] | None], columns: Sequence[str], said: str | None = None
) -> LabelSetColumn:
    known: dict[str, int] = {}
    codes = []
    for row in rows:
        names = (as_text(one, split) for one in row or ())
        codes.append(sorted({known.setdefault(name, len(known)) for name in names if name}))
    ends = np.concatenate([[0], np.cumsum([*map(len, codes)], dtype=np.int64)])
    flat = np.fromiter(chain.from_iterable(codes), dtype=np.int64, count=int(ends[-1]))
    values = without_decimals(list(known), ())
    column = LabelSetColumn(split, values, flat, all(row is None for row in rows), ends, said)
    refuse_look_alikes(column, ", ".join(columns))
    return column


def _are_yes_or_no_for_each(rows: Sequence[list[Any] | None]) -> bool:
    """Whether every row has as many zeros and ones, of which two must be alike."""
    lengths = {len(row) for row in rows if row is not None}
    return (
        len(lengths) == 1
        and min(lengths) >= _MOST_HOT
        and all(type(one) is not str and one in (0, 1) for row in rows for one in row or ())
    )


def _refuse_missing(split: Split, rows: Sequence[list[Any] | None], columns: Sequence[str]) -> None:
    missing = [place for place, row in enumerate(rows) if row is None]
    if missing and len(missing) < len(rows):
        raise _problem(
            split,
            missing[0],
            f"no labels in {', '.join(map(repr, columns))} ({len(missing)} of {len(rows)} rows); label these rows, "
            'take them out, or set data.missing_labels = "empty" where none fits them',
        )


def _problem(split: Split, place: int, problem: str) -> DataError:
    return DataError(f"{split.origin}: row {int(row_ids(split.rows)[place]) + 1}: {problem}")
