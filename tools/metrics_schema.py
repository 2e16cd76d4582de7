"""The JSON Schema of ``metrics.json``, from the types in ``featherweight.records.outcome`` and what is said of them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from featherweight.records import outcome

_INTERVAL = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_MEASURED = {"^eval_.*_interval$": _INTERVAL, "^eval_(?!.*_interval$)": {"type": "number"}}
_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def schema() -> dict[str, Any]:
    """Keys that no type names are allowed everywhere, as a kind of answer or an exhibit may bring its own."""
    *parts, whole = _written()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "metrics.json of Featherweight",
        **_table(whole),
        "$defs": {one.name: _table(one) for one in parts if one.name not in whole.bases},
    }


@dataclass(frozen=True)
class _Written:
    """A type as its source has it: what is said of each key, those of its bases included, and its bases' names."""

    name: str
    said: dict[str, str]
    bases: frozenset[str]


def _written() -> Iterator[_Written]:
    known: dict[str, _Written] = {}
    for node in ast.parse(inspect.getsource(outcome)).body:
        if isinstance(node, ast.ClassDef):
            bases = [known[one.id] for one in node.bases if isinstance(one, ast.Name) and one.id in known]
            said = {key: text for base in bases for key, text in base.said.items()}
            for field, text in pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    said[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
            above = {name for base in bases for name in (base.name, *base.bases)}
            known[node.name] = _Written(node.name, said, frozenset(above))
    yield from known.values()


def _table(written: _Written) -> dict[str, Any]:
    table = getattr(outcome, written.name)
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
