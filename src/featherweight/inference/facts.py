"""``featherweight.json``, the file beside an adapter that says what it answers: read as what somebody else wrote.

Imports nothing but the standard library: an ONNX export is answered for where little else is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherweight.errors import ModelError
from featherweight.registry import ANSWERS, TASKS
from featherweight.runs.directory import FACTS
from featherweight.sources.json_files import read_json

_MAX_LABELS = 1_000_000


def read_facts(folder: Path) -> dict[str, Any]:
    """What the folder's ``featherweight.json`` says, without what is null; empty where it has none.

    Raises:
        ModelError: the file and the key that is wrong.
    """
    path = folder / FACTS
    if not path.is_file():
        return {}
    content = read_json(path)
    for key, (is_one, what) in _KEYS.items():
        if key in content and not is_one(content[key]):
            raise ModelError(f"{path}: {key}: {what} was expected")
    known = {key: content[key] for key in _KEYS if content.get(key) is not None}  # keys of later versions are let be
    if "task" in known and known["task"] not in set(TASKS):
        raise ModelError(f"{path}: task: {known['task']!r} is none of {', '.join(sorted(TASKS))}")
    if "answer" in known and known["answer"] not in set(ANSWERS):
        raise ModelError(f"{path}: answer: {known['answer']!r} is none of {', '.join(sorted(ANSWERS))}")
    if len(set(known.get("labels", ()))) < len(known.get("labels", ())):
        raise ModelError(f"{path}: labels: one stands there twice")
    return known


def _is_whole(value: Any, least: int) -> bool:
    return value is None or (type(value) is int and value >= least)


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value)


def _are_labels(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and 0 < len(value) <= _MAX_LABELS and all(isinstance(one, str) for one in value)
    )


def _are_thresholds(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and _is_number(one.get("wanted_error_rate"))
        and (one.get("confidence") is None or _is_number(one["confidence"]))
        for one in value
    )


def _is_base(value: Any) -> bool:
    names = ("name", "revision", "fingerprint")
    return isinstance(value, dict) and all(value.get(one) is None or isinstance(value[one], str) for one in names)


# Each key that is read: what it must be, and how that is said.
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "answer": (lambda value: isinstance(value, str), "the name of a kind of answer"),
    "task": (lambda value: isinstance(value, str), "the name of a task"),
    "labels": (_are_labels, "a list of names"),
    "max_length": (lambda value: _is_whole(value, 1), "a whole number from 1"),
    "temperature": (lambda value: value is None or (_is_number(value) and value > 0), "a number above 0"),
    "thresholds": (_are_thresholds, "a list of tables with wanted_error_rate and confidence"),
    "pad_token_id": (lambda value: _is_whole(value, 0), "a whole number from 0"),
    "equal_lengths": (lambda value: isinstance(value, bool), "true or false"),
    "text_column": (lambda value: isinstance(value, str), "the name of a column"),
    "base_model": (_is_base, "a table with name, revision and fingerprint"),
}
