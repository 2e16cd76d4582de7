"""What pydantic finds, as a line for each key as the user wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

from featherweight.recipe.sections import DEFAULT_METHOD, ModelSection, TrainingSection
from featherweight.recipe.sweeping import SweepSection
from featherweight.registry import DEFAULT_TASK, METHODS, TASKS, did_you_mean, elsewhere

_NO_KEYS = {"constrained-str", "function-after", "range", "choices"}  # which of several types, in pydantic's paths


def explain(error: ValidationError, model: type[BaseModel], prefix: Sequence[str] = ()) -> list[str]:
    """One line for each of pydantic's findings, with the key as the user wrote it."""
    lines = []
    for finding in error.errors(include_url=False):
        location = [str(part) for part in finding["loc"] if str(part) not in _NO_KEYS]
        key = ".".join([*prefix, *location]) or "recipe"
        if finding["type"] == "extra_forbidden":
            known = _fields_at(model, finding["loc"][:-1])
            lines.append(f"{key}: {_unknown(key, known)}")
        elif finding["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            message = finding["msg"].removeprefix("Value error, ")
            given = finding["input"]
            shown = "" if isinstance(given, dict | BaseModel) else f" (got {given!r})"
            lines.append(f"{key}: {message[:1].lower()}{message[1:]}{shown}")
    return lines


def _unknown(key: str, known: Sequence[str]) -> str:
    """What to say of a key that there is none of, where ``known`` are the keys of its section."""
    if advice := elsewhere.key(key):
        return advice
    name = key.rpartition(".")[2]
    homes = [f"{section}.{name}" for section, keys in _keys_of_sections().items() if name in keys]
    return "unknown key" + (f" (did you mean '{homes[0]}'?)" if homes else did_you_mean(name, known))


def _keys_of_sections() -> dict[str, Iterable[str]]:
    columns = TASKS[DEFAULT_TASK].Columns
    sections: dict[str, type[BaseModel]] = {
        "model": ModelSection, "data": columns, "training": TrainingSection, "sweep": SweepSection,
    }  # fmt: skip
    return {name: section.model_fields for name, section in sections.items()} | {
        "method": METHODS[DEFAULT_METHOD].Options.model_fields
    }


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        kinds = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        inner = next((one for one in kinds if issubclass(one, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)
