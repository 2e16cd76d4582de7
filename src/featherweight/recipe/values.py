"""Types of a recipe's values that are more than plain, each with the message for what does not fit."""

from __future__ import annotations

import codecs
import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
ColumnName = Annotated[str, Field(min_length=1)]
# Becomes part of a path in the hub's cache.
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_/-])*$", max_length=255)]


def _require_files(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("a file's name, a pattern such as data/train-*.parquet, or a list of them was expected")
    return value


def _require_texts(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    pair = not isinstance(value, list) or len(value) == 2
    if not pair or not all(isinstance(name, str) and name for name in names):
        raise ValueError("the name of a column was expected, or a list of two where each row is a pair of texts")
    return value


def _require_delimiter(value: str) -> str:
    value = {"\\t": "\t", "tab": "\t"}.get(value, value)  # as they are written where a tab can't be
    if len(value) != 1 or value.isalnum() or value in '"\r\n\0 ':
        raise ValueError("one character that separates fields was expected, such as ';', '|' or tab")
    return value


def _require_encoding(value: str) -> str:
    try:
        codec = codecs.lookup(value)
    except (LookupError, ValueError):
        codec = None
    if codec is None or not codec._is_text_encoding or codec.incrementaldecoder is None:
        raise ValueError("no text encoding; try utf-8, cp1252 or utf-16")
    return value


def _is_share(value: Any) -> bool:
    return type(value) in {int, float} and 0 < value <= 1


def _are_costs(value: Any) -> bool:
    known = isinstance(value, dict) and set(value) == {"false_positive", "false_negative"}
    return known and all(type(one) in {int, float} and 0 < one < math.inf for one in value.values())


_AIMS = {"precision": _is_share, "recall": _is_share, "cost": _are_costs}


def require_aim(value: Any) -> Any:
    """What a decision threshold is chosen by; in one line, where it is nothing of the kind."""
    name, wanted = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (value, None)
    if value is not None and value != "f1" and not (isinstance(name, str) and name in _AIMS and _AIMS[name](wanted)):
        raise ValueError(
            '"f1", {precision = 0.9}, {recall = 0.9} or {cost = {false_positive = 1, false_negative = 5}} was '
            "expected, with shares up to 1 and costs above 0"
        )
    return value


_UNITS = {"s": 1, "sec": 1, "seconds": 1, "min": 60, "minutes": 60, "h": 3600, "hours": 3600}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(sorted(_UNITS, key=len, reverse=True))})")


def seconds_of(duration: str) -> float:
    """Seconds of a ``Duration``, such as 600.0 of '10 min'."""
    number, unit = _DURATION.fullmatch(duration).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def _require_duration(value: str) -> str:
    if not _DURATION.fullmatch(value) or not seconds_of(value):
        raise ValueError("a time was expected, such as '90 s', '10 min' or '1.5 h'")
    return value


def _named(value: Any) -> Any:
    """One name, or a list of them, as a list; ``none`` is an empty one, as TrainingArguments has it."""
    return ([] if value == "none" else [value]) if isinstance(value, str) else value


_ONE_OR_MORE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Names = Annotated[list[str], BeforeValidator(_named), WithJsonSchema(_ONE_OR_MORE)]
Duration = Annotated[str, AfterValidator(_require_duration)]
Files = Annotated[str | list[str], BeforeValidator(_require_files)]
Texts = Annotated[str | list[str], BeforeValidator(_require_texts)]
Delimiter = Annotated[str, AfterValidator(_require_delimiter)]
Encoding = Annotated[str, AfterValidator(_require_encoding)]
