"""From a column of labels to class indices, refusing everything that could be read in two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.records import Split

if TYPE_CHECKING:
    import datasets

_UNLABELLED = "-1"  # what GLUE puts in the label column of a split whose labels are secret
_MISSING = -1


@dataclass(frozen=True)
class LabelColumn:
    """A label column as distinct values and codes.

    Attributes:
        values: distinct values as text, in order of appearance.
        codes: int64, shape (rows,), index into ``values``, or -1 where the label is missing.
    """

    split: Split
    values: list[str]
    codes: NDArray[np.int64]

    @property
    def counts(self) -> Counter[str]:
        present = self.codes[self.codes != _MISSING]
        totals = np.bincount(present, minlength=len(self.values))
        return Counter({value: int(total) for value, total in zip(self.values, totals, strict=True)})

    @property
    def is_unlabelled(self) -> bool:
        return set(self.values) <= {_UNLABELLED}

    def first_row(self, code: int) -> int:
        """The row's number in the file, counted from 1."""
        return int(row_ids(self.split.rows)[np.argmax(self.codes == code)]) + 1


def row_ids(rows: datasets.Dataset) -> NDArray[np.int64]:
    """Each row's number in its source, counted from 0; int64, shape (rows,)."""
    if "__row__" not in rows.column_names:
        return np.arange(len(rows), dtype=np.int64)
    numbers = rows.select_columns("__row__").with_format("numpy")[:]["__row__"]
    return np.asarray(numbers, dtype=np.int64) - 1


def read_label_column(split: Split, column: str) -> LabelColumn:
    """Read and check one split's label column, whatever its type, in one pass over Arrow batches."""
    known: dict[str, int] = {}
    codes = [np.empty(0, dtype=np.int64)]
    for batch in split.rows.select_columns(column).with_format("arrow").iter(batch_size=100_000):
        encoded = batch.column(column).combine_chunks().dictionary_encode()
        mapping = []
        for value in encoded.dictionary.to_pylist():
            text = _as_text(value)
            mapping.append(known.setdefault(text, len(known)) if text else _MISSING)
        indices = encoded.indices.fill_null(len(mapping)).to_numpy(zero_copy_only=False)
        codes.append(np.asarray([*mapping, _MISSING], dtype=np.int64)[indices])
    labels = LabelColumn(split, list(known), np.concatenate(codes))
    _refuse_missing(labels, column)
    _refuse_look_alikes(labels, column)
    return labels


def label_names(train: LabelColumn, configured: Sequence[str] | None, column: str) -> tuple[str, ...]:
    """The classes in the order of the model's outputs, the same for any order of the rows.

    Configured names win, then names that the source declares, then the values of train: integers in their order,
    texts in alphabetical order.
    """
    names = configured or train.split.label_names
    if names is None:
        if len(train.values) > max(20, len(train.codes) // 2):
            raise DataError(
                f"{train.split.origin}: the label column {column!r} has {len(train.values)} different values in "
                f"{len(train.codes)} rows; is it the label? Set data.label"
            )
        whole = all(_is_integer(value) for value in train.values)
        if not whole and all(_is_number(value) for value in train.values):
            raise DataError(
                f"{train.split.origin}: the label column {column!r} holds numbers such as {train.values[0]}, which "
                "are no classes; classes are texts or integers"
            )
        names = sorted(train.values, key=int) if whole else sorted(train.values)
    rows = len(train.codes)
    present = len(train.values)
    if rows < len(names):
        raise DataError(f"{train.split.origin}: {rows} rows for {len(names)} classes; more rows are needed")
    if present < 2:
        only = f" ({train.values[0]!r})" if train.values else ""
        raise DataError(f"{train.split.origin}: the label column {column!r} has one class only{only}; two are needed")
    return tuple(names)


def class_indices(labels: LabelColumn, names: Sequence[str], column: str) -> NDArray[np.int64]:
    """Class index of each row; int64, shape (rows,).

    A value is matched by name first, then, where every value is an integer, by position.

    Raises:
        DataError: with a table of the values found, where one of them is no known label.
    """
    by_name = {name: index for index, name in enumerate(names)}
    by_position = {str(index): index for index in range(len(names))}
    lookup: Mapping[str, int] = by_name if set(labels.values) <= set(by_name) else {**by_position, **by_name}
    if lookup is not by_name and not all(_is_integer(value) for value in labels.values):
        lookup = by_name
    for code, value in enumerate(labels.values):
        if value not in lookup:
            raise DataError(
                f"{labels.split.origin}: row {labels.first_row(code)}: the label {value!r} is none of "
                f"{', '.join(map(repr, names))}; the column {column!r} holds {describe_counts(labels.counts)}; "
                "mend the rows or set data.labels"
            )
    table = np.asarray([lookup[value] for value in labels.values], dtype=np.int64)
    return table[labels.codes]


def describe_counts(values: Counter[str]) -> str:
    """A small table of values and counts for a message, the most frequent first."""
    shown = ", ".join(f"{value!r} ({count})" for value, count in values.most_common(12))
    return shown + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdecimal()


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _refuse_missing(labels: LabelColumn, column: str) -> None:
    missing = int((labels.codes == _MISSING).sum())
    if missing and missing < len(labels.codes):
        raise DataError(
            f"{labels.split.origin}: row {labels.first_row(_MISSING)}: no label in column {column!r} "
            f"({missing} of {len(labels.codes)} rows); label these rows or take them out"
        )
    if _UNLABELLED in labels.values and len(labels.values) > 2:
        code = labels.values.index(_UNLABELLED)
        raise DataError(
            f"{labels.split.origin}: row {labels.first_row(code)}: the label -1 marks a row without a label; the "
            f"column {column!r} holds {describe_counts(labels.counts)}; take these rows out"
        )


def _refuse_look_alikes(labels: LabelColumn, column: str) -> None:
    seen: dict[str, str] = {}
    for value in labels.values:
        other = seen.setdefault(value.strip().casefold(), value)
        if other != value:
            raise DataError(
                f"{labels.split.origin}: row {labels.first_row(labels.values.index(value))}: the labels {other!r} and "
                f"{value!r} differ only in case or white space; the column {column!r} holds "
                f"{describe_counts(labels.counts)}; write them alike"
            )
