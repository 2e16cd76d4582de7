"""A recipe as TOML again, and the JSON Schema of all recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from featherweight.recipe.paths import PATH_KEYS, each_name, relative, tried_names
from featherweight.recipe.reading import training_of
from featherweight.recipe.sections import DEFAULT_METHOD, Recipe, TrainingSection
from featherweight.recipe.sweeping import SweepSection
from featherweight.registry import DEFAULT_TASK, METHODS, TASKS


def dump(recipe: Recipe, reasons: Mapping[str, str], folder: Path) -> str:
    """Write a recipe out with every default, as TOML that :func:`load` reads back from ``folder``.

    Args:
        reasons: dotted key to why its value was chosen, written as a comment.
        folder: where the text will be saved; paths are made relative to it so that a whole tree can move.
    """
    values = recipe.model_dump()
    for section, key in ((section, key) for section, keys in PATH_KEYS.items() for key in keys):
        values[section][key] = each_name(values[section][key], lambda name: relative(name, folder))
    del values["sweep"]
    if not TASKS[recipe.task].scores_tokens:  # says nothing of such a task
        del values["evaluation"]
    document = tomlkit.document()
    for key, value in values.items():
        if not isinstance(value, dict):
            _write_value(document, key, value, reasons.get(key))
    for section, content in values.items():
        if isinstance(content, dict):
            table = tomlkit.table()
            for key, value in content.items():
                _write_value(table, key, value, reasons.get(f"{section}.{key}"))
            document.add(tomlkit.nl())
            document.add(section, table)
    if recipe.sweep is not None:
        document.add(tomlkit.nl())
        document.add("sweep", _sweep(recipe.sweep, folder))
    return tomlkit.dumps(document)


def _sweep(sweep: SweepSection, folder: Path) -> Any:
    """Without what is as usual, for a recipe that is swept says all that matters elsewhere."""
    values = sweep.model_dump(exclude_none=True, exclude_defaults=True)
    parameters = tried_names(values.pop("parameters", {}), lambda name, key: relative(name, folder))
    table, tried = tomlkit.table(), tomlkit.table()
    for key, value in values.items():
        table.add(key, value)
    for key, value in parameters.items():
        _write_value(tried, key, value, None)
    table.add("parameters", tried)
    return table


def json_schema() -> dict[str, Any]:
    """The recipe's JSON Schema, with one alternative for each registered method, and each task's own ``data`` and
    ``training``."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    alternatives = []
    for name in sorted(METHODS):
        options = METHODS[name].Options.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(options.pop("$defs", {}))
        options["properties"]["name"] = {"const": name}
        if name != DEFAULT_METHOD:
            options["required"] = sorted({*options.get("required", []), "name"})
        definitions[f"method-{name}"] = options
        alternatives.append({"$ref": f"#/$defs/method-{name}"})
    del definitions["MethodOptions"]
    schema["properties"]["method"] = {"oneOf": alternatives}
    schema["required"] = [key for key in schema["required"] if key != "method"]
    _add_tasks(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Featherweight recipe"}


def _add_tasks(schema: dict[str, Any]) -> None:
    """What ``data`` and ``training`` may hold, by what ``task`` says."""
    schema["allOf"] = []
    for name in sorted(TASKS):
        columns = TASKS[name].Columns.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(columns.pop("$defs", {}))
        schema["$defs"][f"data-{name}"] = columns
        asked: dict[str, Any] = {"properties": {"task": {"const": name}}}
        if name != DEFAULT_TASK:
            asked["required"] = ["task"]
        own = {"data": {"$ref": f"#/$defs/data-{name}"}, "training": {"$ref": "#/$defs/TrainingSection"}}
        if (training := training_of(TASKS[name])) is not TrainingSection:
            schema["$defs"][f"training-{name}"] = training.model_json_schema(ref_template="#/$defs/{model}")
            own["training"] = {"$ref": f"#/$defs/training-{name}"}
        schema["allOf"].append({"if": asked, "then": {"properties": own}})
    del schema["$defs"]["DataSection"]
    schema["properties"] |= {"data": {"type": "object"}, "training": {"type": "object"}}
    schema["properties"]["task"]["enum"] = sorted(TASKS)


def _write_value(table: Any, key: str, value: Any, reason: str | None) -> None:
    if value is None:
        table.add(tomlkit.comment(f"{key} is not set"))
        return
    item = tomlkit.inline_table() if isinstance(value, dict) else tomlkit.item(value)
    if isinstance(value, dict):
        item.update(value)
    if reason:
        item.comment(reason)
    table.add(key, item)
