"""JSON bodies as RFC 8259 has them, and no more: what the standard library lets pass is an error here."""

from __future__ import annotations

import json
from typing import Any, NoReturn

_DEEPEST = 32


def parse(body: bytes) -> Any:
    """Raises json.JSONDecodeError: not UTF-8, not JSON, NaN or Infinity, a key twice, nested too deeply, a huge number,
    half a surrogate pair."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("the body is not UTF-8", "", error.start) from None
    _check_depth(text)
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise json.JSONDecodeError("half a surrogate pair", "", 0) from None
    return content


def _check_depth(text: str) -> None:
    """Before parsing, which recurses. Brackets within strings don't count."""
    depth = 0
    quoted = escaped = False
    if text.count("[") + text.count("{") <= _DEEPEST:
        return
    for position, character in enumerate(text):
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > _DEEPEST:
                raise json.JSONDecodeError(f"nested more than {_DEEPEST} deep", "", position)
        elif character in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise json.JSONDecodeError("a key stands there twice", "", 0)
    return content


def _constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise json.JSONDecodeError("a number has more than 20 digits", "", 0)
    return int(digits)
