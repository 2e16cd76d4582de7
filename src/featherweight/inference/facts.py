"""``featherweight.json``, the file beside an adapter that says what it answers: read as what somebody else wrote.

Imports neither torch nor transformers: an ONNX export is answered for where little else is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from featherweight.answers import Check, kind_of
from featherweight.errors import ModelError
from featherweight.records.cutting import LongTexts, Pool
from featherweight.records.holding import Dtype, Quantization
from featherweight.registry import ANSWERS, DEFAULT_TASK, TASKS
from featherweight.runs.directory import FACTS, RunDirectory
from featherweight.sources.json_files import read_json


def read_facts(folder: Path) -> dict[str, Any]:
    """What the folder's ``featherweight.json`` says, without what is null; empty where it has none.

    Raises:
        ModelError: the file and the key that is wrong.
    """
    path = folder / FACTS
    if not path.is_file():
        return {}
    content = read_json(path)
    known = _read(content, _KEYS, path)
    if "task" in known and known["task"] not in set(TASKS):
        raise ModelError(f"{path}: task: {known['task']!r} is none of {', '.join(sorted(TASKS))}")
    if "answer" in known and known["answer"] not in set(ANSWERS):
        raise ModelError(f"{path}: answer: {known['answer']!r} is none of {', '.join(sorted(ANSWERS))}")
    return known | _read(content, kind_of(known).known, path)


def task_named(target: str) -> str:
    """The task that a run, an adapter or an export says that it is for; the one that everything began with where
    nothing says it."""
    from featherweight.recipe import load
    from featherweight.sources import models

    path, _ = models.placed(target)
    recipe = RunDirectory(path).recipe
    if recipe.is_file():
        return load(recipe).task
    return str(read_facts(path).get("task", DEFAULT_TASK))


def _read(content: Mapping[str, Any], keys: Mapping[str, Check], path: Path) -> dict[str, Any]:
    """The keys that are known; those of later versions are let be."""
    for key, (is_one, what) in keys.items():
        if key in content and not is_one(content[key]):
            raise ModelError(f"{path}: {key}: {what} was expected")
    return {key: content[key] for key in keys if content.get(key) is not None}


def _is_whole(value: Any, least: int) -> bool:
    return value is None or (type(value) is int and value >= least)


def _is_base(value: Any) -> bool:
    names, held = ("name", "revision", "fingerprint"), {"dtype": Dtype, "quantization": Quantization}
    return (
        isinstance(value, dict)
        and all(value.get(one) is None or isinstance(value[one], str) for one in names)
        and all(value[key] in get_args(known) for key, known in held.items() if key in value)
    )


def _is_one_or_two_names(value: Any) -> bool:
    names = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(isinstance(name, str) for name in names)


# Each key that is read: what it must be, and how that is said.
_KEYS: dict[str, Check] = {
    "answer": (lambda value: isinstance(value, str), "the name of a kind of answer"),
    "task": (lambda value: isinstance(value, str), "the name of a task"),
    "max_length": (lambda value: _is_whole(value, 1), "a whole number from 1"),
    "max_target_length": (lambda value: _is_whole(value, 1), "a whole number from 1"),
    "long_texts": (lambda value: value in get_args(LongTexts), f"one of {', '.join(get_args(LongTexts))}"),
    "stride": (lambda value: _is_whole(value, 0), "a whole number from 0"),
    "pool": (lambda value: value in get_args(Pool), f"one of {', '.join(get_args(Pool))}"),
    "pad_token_id": (lambda value: _is_whole(value, 0), "a whole number from 0"),
    "equal_lengths": (lambda value: isinstance(value, bool), "true or false"),
    "text_column": (_is_one_or_two_names, "the name of a column, or two of them"),
    "base_model": (_is_base, "a table with name, revision and fingerprint"),
}
