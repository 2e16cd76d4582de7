"""From a column of labels to class indices, refusing everything that could be read in two ways."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ConfigError, DataError
from featherweight.records.rows import Split

if TYPE_CHECKING:
    import datasets

    from featherweight.recipe import DataSection

_UNLABELLED = "-1"  # what GLUE puts in the label column of a split whose labels are secret
_MISSING = -1
ROW = "__row__"  # the column with each row's number in its source
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_DECIMAL_INTEGER = re.compile(r"([+-]?[0-9]{1,300})\.0*")  # as pandas writes integers where one value is missing
_MOST_SHOWN = 12
_FOR_NUMBERS = 'for numbers there is task = "regression"'
_MOST_INTEGERS = 20  # as names of classes, beyond which they may be a scale
_NOT_A_SCALE = "the {} different integers in {!r} are read as classes without an order; {}"


@dataclass(frozen=True)
class LabelColumn:
    """A label column as distinct values and codes.

    Attributes:
        values: distinct values as text, in order of appearance; integers that the source has names for by their names.
        codes: int64, shape (rows,), index into ``values``, or -1 where the label is missing.
        is_unlabelled: every label is missing, or -1 and that is no class.
    """

    split: Split
    values: list[str]
    codes: NDArray[np.int64]
    is_unlabelled: bool

    @property
    def counts(self) -> Counter[str]:
        present = self.codes[self.codes != _MISSING]
        totals = np.bincount(present, minlength=len(self.values))
        return Counter({value: int(total) for value, total in zip(self.values, totals, strict=True)})

    def first_row(self, value: str | None) -> int:
        """The number in the file, counted from 1, of the first row with this value, or without any."""
        code = _MISSING if value is None else self.values.index(value)
        return int(row_ids(self.split.rows)[np.argmax(self.codes == code)]) + 1


@dataclass(frozen=True)
class Reading:
    """How a whole column is read.

    Attributes:
        classes: value to class index; no two values have the same.
        said: what a person has to be told of it; None where values are the names themselves.
    """

    classes: dict[str, int]
    said: str | None = None


def row_ids(rows: datasets.Dataset) -> NDArray[np.int64]:
    """Each row's number in its source, counted from 0; int64, shape (rows,)."""
    if ROW not in rows.column_names:
        return np.arange(len(rows), dtype=np.int64)
    numbers = rows.select_columns(ROW).with_format("numpy")[:][ROW]
    return np.asarray(numbers, dtype=np.int64) - 1


def read_label_column(split: Split, column: str, configured: Sequence[str] | None = None) -> LabelColumn:
    """Read and check one split's label column, whatever its type, in one pass over Arrow batches.

    Args:
        configured: the names in ``data.labels``; a value among them is a class, also where it is -1 or a decimal.

    Raises:
        DataError: rows lack a label, or two labels look alike.
    """
    known: dict[str, int] = {}
    codes = [np.empty(0, dtype=np.int64)]
    for batch in split.rows.select_columns(column).with_format("arrow").iter(batch_size=100_000):
        encoded = batch.column(column).combine_chunks().dictionary_encode()
        mapping = []
        for value in encoded.dictionary.to_pylist():
            text = as_text(value, split)
            mapping.append(known.setdefault(text, len(known)) if text else _MISSING)
        indices = encoded.indices.fill_null(len(mapping)).to_numpy(zero_copy_only=False)
        codes.append(np.asarray([*mapping, _MISSING], dtype=np.int64)[indices])
    values = without_decimals(list(known), configured or ())
    marks_unlabelled = _UNLABELLED not in (configured or ())
    labels = LabelColumn(
        split, values, np.concatenate(codes), not values or (marks_unlabelled and values == [_UNLABELLED])
    )
    _refuse_missing(labels, column, marks_unlabelled)
    refuse_look_alikes(labels, column)
    return labels


def label_names(train: LabelColumn, configured: Sequence[str] | None, column: str) -> tuple[str, ...]:
    """The classes in the order of the model's outputs, the same for any order of the rows.

    Configured names win, then names that the source declares, then the values of train: integers in their order,
    texts in alphabetical order.
    """
    names = configured or train.split.label_names
    if names is None:
        if len(train.values) > max(_MOST_INTEGERS, len(train.codes) // 2):
            raise DataError(
                f"{train.split.origin}: the label column {column!r} has {len(train.values)} different values in "
                f"{len(train.codes)} rows; is it the label? Set data.label"
                + (f", or {_FOR_NUMBERS}" if all(map(_is_number, train.values)) else "")
            )
        whole = all(_is_integer(value) for value in train.values)
        if not whole and all(_is_number(value) for value in train.values):
            raise DataError(
                f"{train.split.origin}: the label column {column!r} holds numbers such as {train.values[0]}, which "
                f"are no classes; classes are texts or integers, and {_FOR_NUMBERS}"
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


def read_as(labels: LabelColumn, names: Sequence[str], column: str, *, ordered: bool = True) -> Reading:
    """One reading for the whole column: its values are names, or they are all positions among the names.

    Integers are positions only where none of the names is an integer, so that no value can be meant in two ways.

    Args:
        names: the classes, each once, in the order of the model's outputs.
        ordered: whether somebody who wrote integers can know the order of the names; they can't where it was made from
            the values of another file.

    Raises:
        DataError: names the first row that holds none of the names, with a table of the values found.
    """
    classes = {name: index for index, name in enumerate(names)}
    values = set(labels.values)
    if values <= set(classes):
        is_scale = not ordered and len(names) > _MOST_INTEGERS and all(map(_is_integer, names))
        return Reading(classes, _NOT_A_SCALE.format(len(names), column, _FOR_NUMBERS) if is_scale else None)
    declared = labels.split.label_names or ()
    folded = {name.casefold(): index for index, name in enumerate(names)}
    if values <= set(declared) and sorted(name.casefold() for name in declared) == sorted(folded):
        return Reading({name: folded[name.casefold()] for name in declared})
    written = declared or [str(index) for index in range(len(names))]
    positions = dict(zip(written, range(len(names)), strict=False))
    may_be_positions = ordered and not any(map(_is_integer, names))
    if may_be_positions and values <= set(positions):
        shown = listed([f"{value} is {names[index]!r}" for value, index in positions.items()])
        return Reading(positions, f"the labels in {column!r} are read as positions: {shown}")
    integers = all(map(_is_integer, labels.values))
    expected = positions if may_be_positions and integers else classes
    unknown = next(value for value in labels.values if value not in expected)
    fix = "mend the rows or set data.labels"
    if integers and any(map(_is_integer, names)):
        fix = "write them as the names, for integers are positions only where no name is an integer"
    elif integers and not ordered:
        fix = "write the names, or set data.labels to them in the order that the integers count"
    raise DataError(
        f"{labels.split.origin}: row {labels.first_row(unknown)}: the label {unknown!r} is none of "
        f"{listed(list(map(repr, names)))}; the column {column!r} holds {describe_counts(labels.counts)}; {fix}"
    )


def called(outputs: Sequence[str], configured: Sequence[str] | None, model: str) -> tuple[str, ...]:
    """What a model's outputs are called in the data: ``data.labels``, by name where these are the model's own names.

    Raises ConfigError where they are neither the model's names nor as many new ones.
    """
    if configured is None:
        return tuple(outputs)
    spelt = {name.casefold(): name for name in configured}
    own = [name.casefold() for name in outputs]
    if sorted(spelt) == sorted(own):
        return tuple(spelt[name] for name in own)
    if len(configured) != len(outputs) or set(spelt) & set(own):
        raise ConfigError(
            f"data.labels: {model} answers {listed(list(map(repr, outputs)))}; give these names, or {len(outputs)} "
            "wholly other ones in their order"
        )
    return tuple(configured)


def given(section: DataSection) -> list[str] | None:
    """The names that a person gives in ``data.labels``."""
    names: list[str] | None = getattr(section, "labels", None)
    return names


def going_on(section: DataSection, known: Mapping[str, Any], adapter: str, what: str) -> DataSection:
    """The section with the names that an adapter answers.

    Args:
        known: the adapter's ``featherweight.json``.
        what: the names are of, such as ``labels``.

    Raises:
        ConfigError: the section has other names, or nobody says what the adapter's are.
    """
    names = known.get("labels") or given(section)
    if names is None:
        raise ConfigError(
            f"model.adapter: {adapter} does not say what its {what} are; name them in data.labels, in the order of "
            "its outputs"
        )
    if given(section) not in (None, names):
        raise ConfigError(
            f"data.labels: the adapter in model.adapter answers {listed(list(map(repr, names)))}, in that order; "
            "leave data.labels out, or begin without the adapter"
        )
    return section.model_copy(update={"labels": names})


def class_indices(labels: LabelColumn, reading: Reading) -> NDArray[np.int64]:
    """Class index of each row of a labelled column; int64, shape (rows,)."""
    table = np.asarray([reading.classes[value] for value in labels.values], dtype=np.int64)
    return table[labels.codes]


def describe_counts(values: Counter[str]) -> str:
    """A small table of values and counts for a message, the most frequent first."""
    return listed([f"{value!r} ({count})" for value, count in values.most_common()])


def as_text(value: Any, split: Split) -> str:
    """A label as text; an integer by the name that the source itself declares for it; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and split.label_names and 0 <= value < len(split.label_names):
        return split.label_names[value]
    text = str(value)
    return text if text.strip() else ""


def listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _MOST_SHOWN} more" if len(parts) > _MOST_SHOWN else ""
    return ", ".join(parts[:_MOST_SHOWN]) + more


def without_decimals(values: list[str], configured: Sequence[str]) -> list[str]:
    """Integers as integers where the whole column is written with a decimal point, such as 0.0 and 1.0."""
    found = [_DECIMAL_INTEGER.fullmatch(value) for value in values]
    whole = [match[1] for match in found if match]
    alike = len(whole) == len(values) == len(set(whole)) and not set(values) & set(configured)
    return whole if alike else values


def _is_integer(value: str) -> bool:
    return _INTEGER.fullmatch(value) is not None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _refuse_missing(labels: LabelColumn, column: str, marks_unlabelled: bool) -> None:
    missing = int((labels.codes == _MISSING).sum())
    if missing and missing < len(labels.codes):
        raise DataError(
            f"{labels.split.origin}: row {labels.first_row(None)}: no label in column {column!r} "
            f"({missing} of {len(labels.codes)} rows); label these rows or take them out"
        )
    others = [value for value in labels.values if value != _UNLABELLED]
    is_mark = marks_unlabelled and _UNLABELLED in labels.values and not labels.is_unlabelled
    if is_mark and (len(others) > 1 or not _is_integer(others[0])):
        raise DataError(
            f"{labels.split.origin}: row {labels.first_row(_UNLABELLED)}: the label -1 marks a row without a label; "
            f"the column {column!r} holds {describe_counts(labels.counts)}; take these rows out, or name -1 among "
            "data.labels where it is a class"
        )


def refuse_look_alikes(labels: LabelColumn, column: str) -> None:
    seen: dict[str, str] = {}
    for value in labels.values:
        other = seen.setdefault(_look(value), value)
        if other != value:
            raise DataError(
                f"{labels.split.origin}: row {labels.first_row(value)}: the labels {other!r} and {value!r} differ only "
                f"in case, white space or how a number or an accent is written; the column {column!r} holds "
                f"{describe_counts(labels.counts)}; write them alike"
            )


def _look(value: str) -> str:
    """What two labels share that a person would take for one."""
    plain = " ".join(unicodedata.normalize("NFC", value).casefold().split())
    number = _DECIMAL_INTEGER.fullmatch(plain)
    whole = number[1] if number else plain
    return str(int(whole)) if _is_integer(whole) else plain
