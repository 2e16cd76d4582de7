"""The JSON Schemas of ``metrics.json`` and ``sweep.json``, from the types in ``featherweight.records`` and what is said
of them."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from featherweight.records import outcome, sweeps

_INTERVAL = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_MEASURED = {"^eval_.*_interval$": _INTERVAL, "^eval_(?!.*_interval$)": {"type": "number"}}
_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def schema() -> dict[str, Any]:
    """Keys that no type names are allowed everywhere, as a kind of answer or an exhibit may bring its own."""
    *parts, whole = _written(outcome)
    return _schema("metrics.json of Featherweight", whole, [one for one in parts if one.name not in whole.bases])


def schema_of_sweeps() -> dict[str, Any]:
    """The same of a sweep, with those types of a run that it refers to."""
    *parts, whole = _written(outcome, sweeps)
    found = _schema("sweep.json of Featherweight", whole, parts)
    named, definitions = _named({**found, "$defs": {}}), found["$defs"]
    while more := {name for one in named for name in _named(definitions[one])} - named:
        named |= more
    return found | {"$defs": {name: one for name, one in definitions.items() if name in named}}


def _schema(title: str, whole: _Written, parts: Sequence[_Written]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **_table(whole),
        "$defs": {one.name: _table(one) for one in parts},
    }


def _named(schema: Any) -> set[str]:
    """The definitions that a schema refers to."""
    return set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))


@dataclass(frozen=True)
class _Written:
    """A type as its source has it: what is said of each key, those of its bases included, and its bases' names."""

    name: str
    said: dict[str, str]
    bases: frozenset[str]
    type: Any


def _written(*modules: ModuleType) -> Iterator[_Written]:
    known: dict[str, _Written] = {}
    for module, node in [(one, node) for one in modules for node in ast.parse(inspect.getsource(one)).body]:
        if isinstance(node, ast.ClassDef):
            bases = [known[one.id] for one in node.bases if isinstance(one, ast.Name) and one.id in known]
            said = {key: text for base in bases for key, text in base.said.items()}
            for field, text in pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    said[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
            above = {name for base in bases for name in (base.name, *base.bases)}
            known[node.name] = _Written(node.name, said, frozenset(above), getattr(module, node.name))
    yield from known.values()


def _table(written: _Written) -> dict[str, Any]:
    table = written.type
    hints = get_type_hints(table, include_extras=True)
    found = {
        "type": "object",
        "description": " ".join(table.__doc__.split()),
        "properties": {key: {**_value(hint), "description": written.said[key]} for key, hint in hints.items()},
        "required": [key for key, hint in hints.items() if get_origin(hint) is not NotRequired],
    }
    if outcome.Figures.__name__ in {written.name, *written.bases}:
        found["patternProperties"] = _MEASURED
    return found


def _value(hint: Any) -> dict[str, Any]:
    match get_origin(hint), get_args(hint):
        case (origin, (inner,)) if origin is NotRequired:
            found = _value(inner)
        case (origin, choices) if origin is Literal:
            found = {"enum": list(choices)}
        case (origin, choices) if origin is UnionType:
            found = {"anyOf": [_value(one) for one in choices]}
        case (origin, (item,)) if origin is list:
            found = {"type": "array", "items": _value(item)}
        case (origin, (_, item)) if origin is dict:
            found = {"type": "object", "additionalProperties": _value(item)}
        case _ if is_typeddict(hint):
            found = {"$ref": f"#/$defs/{hint.__name__}"}
        case _:
            found = {} if hint is Any else {"type": _PLAIN[hint]}
    return found
