"""What a predictor is given, as a question."""

from __future__ import annotations

from typing import Any

from featherweight.errors import DataError
from featherweight.records.questions import Question
from featherweight.sources import cells


def whole_text(given: Any) -> Question:
    """A text that is answered as a whole. Raises DataError where it is none."""
    return Question(clean(given))


def clean(text: Any) -> str:
    """Text as a tokenizer can take it: a lone surrogate, which JSON can spell, has no UTF-8 form. Raises DataError
    where it is no text."""
    if not isinstance(text, str):
        raise DataError(f"a text was expected, not {cells.not_a_text(text)}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
