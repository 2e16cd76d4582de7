"""A recipe from a file, from flags and from nested values."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from featherweight.errors import ConfigError
from featherweight.recipe.paths import anchor_paths, name_of
from featherweight.recipe.problems import explain
from featherweight.recipe.sections import (
    DEFAULT_METHOD,
    DataSection,
    EvaluationSection,
    MethodOptions,
    Recipe,
    TrainingSection,
)
from featherweight.recipe.sweeping import problems as problems_of_sweep
from featherweight.registry import DEFAULT_TASK, METHODS, TASKS, did_you_mean
from featherweight.storage.names import beside, exists

_MAX_BYTES = 1 << 20
_PLACEHOLDER = DataSection(name="placeholder")


def load(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file, lay ``overrides`` over it, and validate the whole.

    Args:
        path: a TOML file, or None where ``overrides`` say everything.
        overrides: nested values as in the file. Paths in them are relative to the working directory, those in the
            file to the file's folder.

    Raises:
        ConfigError: with one line for every problem found.
    """
    content: dict[str, Any] = {}
    if path is not None:
        path = Path(path)
        content = _read_toml(path)
        content.setdefault("name", path.stem)
        anchor_paths(content, path.parent)
    given = _merge({}, overrides or {})
    anchor_paths(given, Path.cwd())
    if path is None:
        given.setdefault("name", name_of(given))
    method = _method_name(given)
    if method is not None and method != (_method_name(content) or DEFAULT_METHOD):
        content.pop("method", None)  # these are another method's options
    return parse(_merge(content, given), origin=str(path) if path is not None else "the recipe")


def parse(content: Mapping[str, Any], origin: str = "the recipe") -> Recipe:
    """Validate nested plain values. Raises ConfigError with one line for every problem found."""
    content = dict(content)
    problems: list[str] = []
    method: Any = content.pop("method", {})
    options: MethodOptions | None = None
    try:
        options = _parse_method(method)
    except ConfigError as error:
        problems += error.problems
    task: Any = TASKS[DEFAULT_TASK]  # also of a task that there is none of
    name = content.get("task", DEFAULT_TASK)
    try:
        task = TASKS[name] if isinstance(name, str) else task  # what is no name is refused below
    except ConfigError as error:
        problems.append(f"task: {error}")
    content.setdefault("training", {})
    for key, section, placeholder in (
        ("data", task.Columns, _PLACEHOLDER),
        ("training", training_of(task), TrainingSection()),
    ):
        if isinstance(content.get(key), Mapping):
            try:
                content[key] = section.model_validate(dict(content[key]))
            except ValidationError as error:
                problems += explain(error, section, prefix=(key,))
                content[key] = placeholder
    try:
        recipe = Recipe.model_validate({**content, "method": MethodOptions(name="placeholder")})
    except ValidationError as error:
        problems += explain(error, Recipe)
    else:
        if options is not None and recipe.training.loraplus_lr_ratio and not METHODS[options.name].trains_lora:
            problems.append(f"training.loraplus_lr_ratio: {options.name!r} trains nothing of LoRA's; leave it out")
        if recipe.evaluation != EvaluationSection() and recipe.task in TASKS and not TASKS[recipe.task].scores_tokens:
            problems.append(f"evaluation: {recipe.task} writes no text; leave the section out")
        if options is not None and not problems:
            problems += problems_of_sweep(recipe.model_copy(update={"method": options}), with_values)
    if problems or options is None:
        raise ConfigError([f"{origin}: {problem}" for problem in problems])
    return recipe.model_copy(update={"method": options})


def with_values(recipe: Recipe, values: Mapping[str, Any], origin: str = "the recipe") -> Recipe:
    """The recipe without its sweep and with other values, by dotted key; another method has none of the recipe's
    options. Raises ConfigError with one line for every problem found."""
    content = recipe.model_dump(exclude_unset=True, exclude={"sweep"})
    if values.get("method.name", recipe.method.name) != recipe.method.name:
        content["method"] = {}
    for key, value in values.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        content = _merge(content, nested)
    return parse(content, origin)


def training_of(task: Any) -> type[TrainingSection]:
    """The ``[training]`` section of a task: with keys of its own where it has any."""
    found: type[TrainingSection] = getattr(task, "Training", TrainingSection)
    return found


def load_data_section(values: Mapping[str, Any], task: str = DEFAULT_TASK) -> DataSection:
    """A task's data section on its own, with paths relative to the working directory. Raises ConfigError."""
    content = {"data": dict(values)}
    anchor_paths(content, Path.cwd())
    columns: type[DataSection] = TASKS[task].Columns
    try:
        return columns.model_validate(content["data"])
    except ValidationError as error:
        raise ConfigError(explain(error, columns, prefix=("data",))) from None


def parse_set(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``section.key=value`` strings into nested values; a value is TOML, or plain text where it is not TOML."""
    nested: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            problems.append(f"--set {assignment}: write it as section.key=value, such as training.learning_rate=1e-3")
            continue
        try:
            value: Any = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            value = text
        for part in reversed(parts):
            value = {part: value}
        nested = _merge(nested, value)
    if problems:
        raise ConfigError(problems)
    return nested


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if exists(path) and not path.is_file():
            raise ConfigError(f"{path}: not a regular file; name a TOML file")
        if exists(path) and path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: larger than the {_MAX_BYTES:,} bytes that a recipe may have")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe{did_you_mean(str(path), beside(path, '*.toml'))}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read as a UTF-8 text file: {error}") from error


def _method_name(content: Mapping[str, Any]) -> Any:
    method = content.get("method")
    return method.get("name") if isinstance(method, Mapping) else None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _parse_method(content: Any) -> MethodOptions:
    if isinstance(content, MethodOptions):
        return content
    if not isinstance(content, dict) or not isinstance(content.get("name", DEFAULT_METHOD), str):
        raise ConfigError(f"method.name: say which method: {', '.join(sorted(METHODS))}")
    try:
        method = METHODS[content.get("name", DEFAULT_METHOD)]
    except ConfigError as error:
        raise ConfigError(f"method.name: {error}") from None
    try:
        options: MethodOptions = method.Options.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error, method.Options, prefix=("method",))) from None
    return options
