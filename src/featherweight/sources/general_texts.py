"""Texts beside what a model is tuned for: those that ship, or a file of a user's."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

from featherweight.errors import DataError

_PARAGRAPH = re.compile(r"\n\s*\n")
_SHIPPED = "evidence/general.txt"


def read(path: str | None) -> list[str]:
    """The texts of a file (``evaluation.forgetting_file``), a blank line between two; those that ship if None.

    Raises:
        DataError: it can't be read, or holds none.
    """
    if path is None:
        return _paragraphs(files("featherweight").joinpath(_SHIPPED).read_text(encoding="utf-8"))
    try:
        found = _paragraphs(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"evaluation.forgetting_file: {path} can't be read as a UTF-8 text file: {error}") from None
    if not found:
        raise DataError(f"evaluation.forgetting_file: {path} holds no text")
    return found


def fingerprint(path: str) -> str:
    """Of the file's texts. Raises DataError as above."""
    return hashlib.sha256("\0".join(read(path)).encode()).hexdigest()


def _paragraphs(text: str) -> list[str]:
    return [" ".join(one.split()) for one in _PARAGRAPH.split(text) if one.strip()]
