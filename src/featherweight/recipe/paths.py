"""The names in a recipe that may be files: made absolute, made relative again, and what a recipe is called after."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from featherweight.errors import ConfigError
from featherweight.recipe.sections import FILE_KEYS, LONGEST_NAME, PACKAGE_PREFIX
from featherweight.recipe.sweeping import flat
from featherweight.storage.names import exists, problem

# Keys whose values may be files or folders of this machine, by section.
PATH_KEYS = {"model": ("name", "adapter"), "data": ("name", *FILE_KEYS, "mix"), "evaluation": ("forgetting_file",)}
TRIED_PATHS = tuple(f"model.{key}" for key in PATH_KEYS["model"])  # of those, what a sweep may try


def anchor_paths(content: dict[str, Any], base: Path) -> None:
    """Make the file names in ``content`` absolute, in place; hub ids and package files stay as they are."""
    for section, keys in PATH_KEYS.items():
        values = content.get(section)
        if not isinstance(values, dict):
            continue
        content[section] = values = dict(values)
        for key in keys:
            if key in values:
                values[key] = each_name(values[key], partial(_anchored, base=base, key=f"{section}.{key}"))
    sweep = content.get("sweep")
    if isinstance(sweep, dict) and isinstance(sweep.get("parameters"), dict):
        content["sweep"] = sweep | {"parameters": tried_names(flat(sweep["parameters"]), partial(_anchored, base=base))}


def tried_names(parameters: dict[str, Any], change: Callable[..., str]) -> dict[str, Any]:
    """The parameters of a sweep, with the names that may be files changed by ``change(name, key=...)``."""
    return {
        key: each_name(value, partial(change, key=key)) if key in TRIED_PATHS else value
        for key, value in parameters.items()
    }


def relative(name: str, folder: Path) -> str:
    return os.path.relpath(name, folder) if Path(name).is_absolute() else name


def each_name(value: Any, change: Callable[[str], str]) -> Any:
    """A name, each of a list of names, or each that a table has something about, changed; what is none of these is for
    the validation to refuse."""
    if isinstance(value, dict):
        return {change(name): about for name, about in value.items()}
    if isinstance(value, list):
        return [each_name(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


def name_of(content: Mapping[str, Any]) -> str:
    """A name for a recipe that was given none: of its data and its model, so that other data get another folder."""
    data, model = content.get("data"), content.get("model")
    parts = [
        _last_part(section.get(key))
        for section, keys in ((data, ("name", *FILE_KEYS)), (model, ("name",)))
        if isinstance(section, Mapping)
        for key in [next((key for key in keys if section.get(key)), keys[0])]
    ]
    name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(filter(None, parts))).strip("-._")[:LONGEST_NAME].rstrip("-._")
    return name if name and problem(name) is None else "run"


def _anchored(name: str, base: Path, key: str) -> str:
    if name.startswith(PACKAGE_PREFIX):
        return name
    try:
        path = base / Path(name).expanduser()
        looks_like_path = name.startswith((".", "/", "~")) or name.endswith(".gguf")
        return str(path.resolve()) if key.endswith(("_file", ".mix")) or looks_like_path or exists(path) else name
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}: {name[:80]!r} can't be a path: {error}") from None


def _last_part(value: Any) -> str:
    """What somebody would call a file, folder, hub id or package by."""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        return ""
    if value.startswith(PACKAGE_PREFIX):
        return Path(value.removeprefix(PACKAGE_PREFIX)).parts[0]
    path = Path(value)
    stem = re.sub(r"(\.[A-Za-z]+)+$", "", path.name)
    split = re.split(r"[-_.*]", stem)[0].lower()
    # Half of all files are called after their split.
    return path.parent.name if f"{split}_file" in FILE_KEYS else stem
