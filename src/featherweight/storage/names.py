"""Names that become files: what is refused, whoever made them up."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

_RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{digit}" for device in ("com", "lpt") for digit in range(1, 10))}
_MAX_BYTES = 255


def problem(name: str) -> str | None:
    """Why ``name`` can't be the name of one file in a folder of ours on every system, or None where it can."""
    if name in {"", ".", ".."}:
        return "is no name"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        return f"is longer than {_MAX_BYTES} bytes"
    if any(char in '/\\:*?"<>|' or unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        return "holds a character that file names can't hold everywhere"
    if name[-1] in " ." or name.split(".", maxsplit=1)[0].strip().casefold() in _RESERVED:
        return "means something else on Windows"
    return None


def path_problem(path: str) -> str | None:
    """The same for a relative path with ``/`` in it: no way out of its folder, no empty part."""
    return next((f"has a part that {found}" for part in path.split("/") if (found := problem(part))), None)


def folded(path: str) -> str:
    """What a file system that knows neither case nor Unicode's forms takes for the same path."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def apart(paths: Sequence[str]) -> list[str]:
    """Different paths without the folders that lead to all of them; as they are where one lies within another, or where
    not all are relative."""
    try:
        shared = os.path.commonpath(paths)
    except ValueError:
        return list(paths)
    found = [os.path.relpath(path, shared or os.curdir) for path in paths]
    return list(paths) if os.curdir in found else found


def printable(text: str) -> str:
    """Text for a terminal: control characters and marks that reorder a line are written as escapes."""
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in {"Cc", "Cs"}
        or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        else char
        for char in text
    )


def on_screen(text: str) -> str:
    """The same of a text that somebody else wrote, such as a model, and that may have several lines and tabs."""
    return "".join(char if char in "\n\t" else printable(char) for char in text)


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; a name that no file can have means no."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def beside(path: Path, pattern: str = "*") -> list[str]:
    """The paths in the folder where ``path`` is, or would be."""
    return [str(other) for other in path.parent.glob(pattern)] if exists(path.parent) else []
