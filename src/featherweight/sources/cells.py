"""What is a text and what is a label: one rule for every command, file, hub data set and request.

A text is a string, and null is an empty one. A label is a string, a boolean or a number, and null, or NaN as pandas
writes it to Parquet, is none. In CSV and TSV every cell is a string. A number in a text column and a list or an object
in either are refused, with the task that would take them; nothing is turned into text to make it fit.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from featherweight.errors import DataError
from featherweight.registry import TASKS

_TEXT_TYPES = frozenset({str, type(None)})
LABEL_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}
_LABEL_TYPES = frozenset({*LABEL_KINDS, type(None)})


@dataclass(frozen=True)
class _Shape:
    """Something that is no text, or no label, and the task whose data it is."""

    what: str
    task: str
    fits: Callable[[Any], bool]


def _list_of(kind: type | tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(isinstance(one, kind) for one in value)


def _keys(*wanted: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and set(wanted) <= set(value)


def _either(*tests: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(test(value) for test in tests)


def _all_are(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(test, value))


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and not any(map(str.isspace, value))


def _is_yes_or_no_for_each(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(one, bool | int) for one in value.values())


_spans = _either(
    _keys("start", "end"),
    _keys("start_offset", "end_offset"),
    lambda value: (
        isinstance(value, list) and len(value) == 3 and _list_of(int)(value[:2]) and isinstance(value[2], str)
    ),
)
_TEXT_SHAPES = (
    _Shape("chat messages", "causal-lm", _all_are(_either(_keys("role", "content"), _keys("from", "value")))),
    _Shape("a prompt and its completion", "causal-lm", _keys("prompt", "completion")),
    _Shape("a list of tokens", "token-classification", _all_are(_is_token)),
)
_LABEL_SHAPES = (
    _Shape("entities with their places in the text", "token-classification", _all_are(_spans)),
    _Shape("a list of labels", "multi-label-classification", lambda value: value == [] or _list_of((str, int))(value)),
    _Shape("a yes or no for each label", "multi-label-classification", _is_yes_or_no_for_each),
)
# Columns that tell whose data a file is, where the text column that was asked for is not among them.
_COLUMN_SHAPES = (
    (("messages",), "causal-lm"),
    (("conversations",), "causal-lm"),
    (("prompt", "completion"), "causal-lm"),
    (("chosen", "rejected"), "preference"),
    (("tokens", "tags"), "token-classification"),
    (("tokens", "ner_tags"), "token-classification"),
)


def require_texts(values: Sequence[Any], rows: Sequence[int], origin: str, column: str, fix: str) -> None:
    """Raises DataError, naming the row, where one of the values is no text.

    Args:
        rows: the number of each value's row.
        fix: what to do then, as the end of the message.
    """
    if set(map(type, values)) <= _TEXT_TYPES:
        return
    row, value = next((row, one) for row, one in zip(rows, values, strict=True) if type(one) not in _TEXT_TYPES)
    what = f"{_described(value, _TEXT_SHAPES)}: {reprlib.repr(value)}"
    raise DataError(f"{origin}: row {row}: the text column {column!r} holds {what}; {fix}")


def require_labels(values: Sequence[Any], rows: Sequence[int], origin: str, column: str) -> None:
    """Raises DataError, naming the row, where one of the values is no label."""
    if set(map(type, values)) <= _LABEL_TYPES:
        return
    row, value = next((row, one) for row, one in zip(rows, values, strict=True) if type(one) not in _LABEL_TYPES)
    what = f"{_described(value, _LABEL_SHAPES)}: {reprlib.repr(value)}"
    raise DataError(
        f"{origin}: row {row}: the label column {column!r} holds {what}; write one label a row, or name its column in "
        "data.label"
    )


def without_nan(labels: list[Any]) -> list[Any]:
    """The same, with null for the number that stands for none."""
    if float not in set(map(type, labels)):
        return labels
    return [None if isinstance(label, float) and math.isnan(label) else label for label in labels]


def parsed(cell: Any, begin: str = "[") -> Any:
    """The list that a cell spells as JSON; the cell itself where it spells none, and None where it is empty.

    Args:
        begin: characters that such JSON begins with.
    """
    if isinstance(cell, str) and cell.startswith(tuple(begin)):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell if cell != "" else None


def not_a_text(value: Any) -> str:
    """What a value is that is no text, without its content."""
    return _described(value, _TEXT_SHAPES)


def whose_columns(found: Collection[str]) -> str:
    """What a file's columns say about the task that it is for, as the end of a message; empty where they don't."""
    for columns, task in _COLUMN_SHAPES:
        if set(columns) <= set(found):
            return f"; {' and '.join(columns)} are for {_task(task)}"
    return ""


def _described(value: Any, shapes: Sequence[_Shape]) -> str:
    fitting = next((shape for shape in shapes if shape.fits(value)), None)
    return _kind(value) + (f" ({fitting.what}, for {_task(fitting.task)})" if fitting else "")


def _task(name: str) -> str:
    return f'task = "{name}"' + ("" if name in tuple(TASKS) else ", which featherweight does not have yet")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a value of type {type(value).__name__}"
