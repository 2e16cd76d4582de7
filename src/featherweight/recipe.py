"""The recipe: what to tune, on what, how. TOML in, one validated frozen object out, TOML again beside the results.

Keys carry Hugging Face's names and meanings (``TrainingArguments``, ``LoraConfig``, the ``run_*`` scripts). Every
problem is reported at once, each with its key. Nothing here imports torch, so a typo costs milliseconds.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from featherweight import elsewhere
from featherweight.errors import ConfigError
from featherweight.names import beside, exists, problem
from featherweight.recipe_values import (
    Delimiter,
    Encoding,
    Files,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Revision,
)
from featherweight.registry import BASELINES, METHODS, TASKS, did_you_mean

PACKAGE_PREFIX = "package:"
_MAX_BYTES = 1 << 20
_LONGEST_NAME = 64
FILE_KEYS = ("train_file", "validation_file", "test_file")
DEFAULT_METHOD = "lora"
# Keys whose values may be files or folders of this machine, by section.
_PATH_KEYS = {"model": ("name", "adapter"), "data": ("name", *FILE_KEYS)}

_FILES = "CSV, TSV, JSON, JSONL or Parquet file, a pattern, or a list of them; text files may be gzipped"


class Section(BaseModel):
    """Base of every part of a recipe: unknown keys, wrong types, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    """The foundation model."""

    name: str = Field(description="hub id, folder, .gguf file, or package:NAME/PATH", min_length=1)
    revision: Revision | None = Field(None, description="branch, tag or commit of a hub model")
    adapter: str | None = Field(
        None, description="run or adapter of this model to go on from: it is measured as it is, and trained further"
    )
    head: Literal["auto", "new"] = Field(
        "auto", description="auto: keep a trained head whose labels are the data's, by name; new: always start afresh"
    )


class DataSection(Section):
    """The labelled texts: either ``name`` or ``train_file`` and its siblings."""

    name: str | None = Field(None, description="hub id, folder, or package:NAME/PATH", min_length=1)
    config: str | None = Field(None, description="configuration of a hub data set")
    revision: Revision | None = Field(None, description="branch, tag or commit of a hub data set")
    train_file: Files | None = Field(None, description=_FILES)
    validation_file: Files | None = Field(None, description=_FILES)
    test_file: Files | None = Field(None, description=_FILES)
    text: str = Field("text", description="column that holds the text")
    label: str = Field("label", description="column that holds the label")
    labels: list[str] | None = Field(
        None,
        description="label names, in the order of the model's outputs; where none of them is an integer, labels may be "
        "integers that count from 0",
        min_length=2,
    )
    slices: list[str] = Field([], description="columns whose values the evidence looks at one by one")
    keywords: list[str] = Field([], description="words; the evidence looks at the rows that hold each of them")
    group: str | None = Field(
        None,
        description="column whose equal values mark rows that are not independent, such as one document's; splits and "
        "samples are drawn by whole groups",
    )
    allow_leak: bool = Field(False, description="measure on rows that stand in train; the report says so")
    encoding: Encoding = Field("utf-8", description="how the bytes of text files are read, such as cp1252 or utf-16")
    delimiter: Delimiter | None = Field(
        None, description="what separates the fields of CSV and TSV, such as ';', '|' or tab; found out if unset"
    )
    skip_bad_rows: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of a file's rows that may be left out because they can't be read; 0 refuses the first"
    )
    filter: dict[str, str] = Field({}, description="keep only the rows where each of these columns has this value")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of train to hold out, stratified and seeded, where there is no validation split"
    )
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="share of train to hold out besides, where there is no labelled test split: what a run reports is "
        "then measured on rows that chose nothing",
    )
    drop_train_twins: bool = Field(
        False,
        description="leave out the train rows whose text, but for case, white space and punctuation, also stands in a "
        "held-out split",
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        42,
        description="chooses the rows that are measured, whatever training.seed is, so that seeds can be compared",
    )
    max_length: PositiveInt | None = Field(None, description="texts are cut after so many tokens")
    max_train_samples: PositiveInt | None = Field(None, description="train on a seeded sample of so many rows")
    max_eval_samples: PositiveInt | None = Field(None, description="evaluate on a seeded sample of so many rows")

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        files = [key for key in FILE_KEYS if getattr(self, key) is not None]
        if self.name is None and not files:
            raise ValueError("give 'name' (hub id, folder or package file) or 'train_file'")
        if self.name is not None and files:
            raise ValueError(f"give either 'name' or '{files[0]}', not both")
        if self.text in {*self.slices, self.group}:
            raise ValueError("'slices' and 'group' name columns beside the text")
        if self.validation_fraction + (self.test_fraction or 0) >= 1:
            raise ValueError("'validation_fraction' and 'test_fraction' leave no row to train on")
        if any(not word.strip() for word in self.keywords):
            raise ValueError("'keywords' holds an empty word")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("'labels' names one label twice")
        return self

    @property
    def sources(self) -> list[str]:
        """Where the data come from: the data set's name, or the files of train."""
        named = self.name or self.train_file or []
        return [named] if isinstance(named, str) else named


class TrainingSection(Section):
    """``TrainingArguments``' names and meanings."""

    learning_rate: PositiveFloat | None = Field(None, description="peak learning rate; chosen by the method if unset")
    per_device_train_batch_size: PositiveInt = 32
    per_device_eval_batch_size: PositiveInt = 32
    gradient_accumulation_steps: PositiveInt = 1
    num_train_epochs: PositiveFloat = 3.0
    max_steps: int = Field(-1, description="optimizer steps; overrides num_train_epochs where positive")
    weight_decay: NonNegativeFloat = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: PositiveFloat = 1e-8
    max_grad_norm: NonNegativeFloat = Field(1.0, description="gradient clipping; 0 turns it off")
    lr_scheduler_type: Literal["linear", "cosine", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"] = (
        "linear"
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="overrides warmup_ratio where positive")
    eval_strategy: Literal["epoch", "steps"] = "epoch"
    eval_steps: PositiveInt = 500
    save_strategy: Literal["epoch", "steps"] = "epoch"
    save_steps: PositiveInt = 500
    save_total_limit: PositiveInt = Field(2, description="checkpoints kept besides the best one")
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = Field(None, description="an eval metric; chosen by the task if unset")
    greater_is_better: bool | None = Field(None, description="false where the metric is a loss, else true, if unset")
    logging_steps: PositiveInt = 10
    max_skipped_steps: Annotated[int, Field(ge=0)] = Field(
        3, description="steps whose loss or gradient is not finite that are left out before the run ends as diverged"
    )
    train_sampling_strategy: Literal["random", "group_by_length"] = Field(
        "random", description="group_by_length: batches of like length, so that less is padding"
    )
    trunk_cache: Literal["off", "fp32", "fp16"] = Field(
        "off", description="run the frozen blocks below the lowest adapted one once and keep their output on disk"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    bf16: bool = False
    fp16: bool = False

    @model_validator(mode="after")
    def _one_precision(self) -> TrainingSection:
        if self.bf16 and self.fp16:
            raise ValueError("set 'bf16' or 'fp16', not both")
        return self


class EvidenceSection(Section):
    """What the tuned model is measured against."""

    baselines: list[str] | None = Field(
        None, description="the cheap rivals that are fitted, by name; all that are known if unset, none if empty"
    )

    @model_validator(mode="after")
    def _known_once(self) -> EvidenceSection:
        names = self.baselines or []
        if unknown := [name for name in names if name not in set(BASELINES)]:
            raise ValueError(
                f"'baselines': no baseline is named {unknown[0]!r}{did_you_mean(unknown[0], BASELINES)}; known: "
                f"{', '.join(sorted(BASELINES))}"
            )
        if len(set(names)) < len(names):
            raise ValueError("'baselines' names one baseline twice")
        return self


class MethodOptions(Section):
    """Base of a method's own options; ``name`` picks the method."""

    name: str


class Recipe(Section):
    """A whole recipe."""

    name: str = Field(
        "run", description="names the run's folder", pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}$"
    )
    task: str = "sequence-classification"
    model: ModelSection
    data: DataSection
    method: SerializeAsAny[MethodOptions]
    training: TrainingSection = TrainingSection()
    evidence: EvidenceSection = EvidenceSection()

    @model_validator(mode="after")
    def _name_of_a_folder(self) -> Recipe:
        if found := problem(self.name):
            raise ValueError(f"'name': {self.name!r} {found}")
        return self


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
        _anchor_paths(content, path.parent)
    given = _merge({}, overrides or {})
    _anchor_paths(given, Path.cwd())
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
    try:
        TASKS[content.get("task", "sequence-classification")]
    except (ConfigError, TypeError) as error:
        problems.append(f"task: {error}")
    try:
        placeholder = MethodOptions(name="placeholder")
        recipe = Recipe.model_validate({**content, "method": placeholder})
    except ValidationError as error:
        problems += _explain(error, Recipe)
    if problems or options is None:
        raise ConfigError([f"{origin}: {problem}" for problem in problems])
    return recipe.model_copy(update={"method": options})


def load_data_section(values: Mapping[str, Any]) -> DataSection:
    """A data section on its own, with paths relative to the working directory. Raises ConfigError."""
    content = {"data": dict(values)}
    _anchor_paths(content, Path.cwd())
    try:
        return DataSection.model_validate(content["data"])
    except ValidationError as error:
        raise ConfigError(_explain(error, DataSection, prefix=("data",))) from None


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


def dump(recipe: Recipe, reasons: Mapping[str, str], folder: Path) -> str:
    """Write a recipe out with every default, as TOML that :func:`load` reads back from ``folder``.

    Args:
        reasons: dotted key to why its value was chosen, written as a comment.
        folder: where the text will be saved; paths are made relative to it so that a whole tree can move.
    """
    values = recipe.model_dump()
    for section, key in ((section, key) for section, keys in _PATH_KEYS.items() for key in keys):
        values[section][key] = _each_name(values[section][key], lambda name: _relative(name, folder))
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
    return tomlkit.dumps(document)


def json_schema() -> dict[str, Any]:
    """The recipe's JSON Schema, with one alternative for each registered method."""
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
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Featherweight recipe"}


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


def name_of(content: Mapping[str, Any]) -> str:
    """A name for a recipe that was given none: of its data and its model, so that other data get another folder."""
    data, model = content.get("data"), content.get("model")
    parts = [
        _last_part(section.get(key))
        for section, keys in ((data, ("name", *FILE_KEYS)), (model, ("name",)))
        if isinstance(section, Mapping)
        for key in [next((key for key in keys if section.get(key)), keys[0])]
    ]
    name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(filter(None, parts))).strip("-._")[:_LONGEST_NAME].rstrip("-._")
    return name if name and problem(name) is None else "run"


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


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _anchor_paths(content: dict[str, Any], base: Path) -> None:
    """Make the file names in ``content`` absolute, in place; hub ids and package files stay as they are."""
    for section, keys in _PATH_KEYS.items():
        values = content.get(section)
        if not isinstance(values, dict):
            continue
        content[section] = values = dict(values)
        for key in keys:
            if key in values:
                values[key] = _each_name(values[key], partial(_anchored, base=base, key=f"{section}.{key}"))


def _anchored(name: str, base: Path, key: str) -> str:
    if name.startswith(PACKAGE_PREFIX):
        return name
    try:
        path = base / Path(name).expanduser()
        looks_like_path = name.startswith((".", "/", "~")) or name.endswith(".gguf")
        return str(path.resolve()) if key.endswith("_file") or looks_like_path or exists(path) else name
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}: {name[:80]!r} can't be a path: {error}") from None


def _relative(name: str, folder: Path) -> str:
    return os.path.relpath(name, folder) if Path(name).is_absolute() else name


def _each_name(value: Any, change: Callable[[str], str]) -> Any:
    """A name, or each of a list of names, changed; what is neither is for the validation to refuse."""
    if isinstance(value, list):
        return [_each_name(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


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
        raise ConfigError(_explain(error, method.Options, prefix=("method",))) from None
    return options


def _explain(error: ValidationError, model: type[BaseModel], prefix: Sequence[str] = ()) -> list[str]:
    """One line for each of pydantic's findings, with the key as the user wrote it."""
    lines = []
    for finding in error.errors(include_url=False):
        location = [str(part) for part in finding["loc"] if str(part) not in {"constrained-str", "function-after"}]
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
    sections: dict[str, type[BaseModel]] = {"model": ModelSection, "data": DataSection, "training": TrainingSection}
    return {name: section.model_fields for name, section in sections.items()} | {
        "method": METHODS[DEFAULT_METHOD].Options.model_fields
    }


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


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
