"""What a predictor is given, as a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.errors import DataError
from featherweight.records.questions import Question
from featherweight.sources import cells

_PAIR = ("text", "text_pair")  # as pipelines of transformers take them
_WRITTEN = '{"text": ..., "text_pair": ...}'


def whole_text(given: Any) -> Question:
    """A text, or a pair of texts, that is answered as a whole. Raises DataError where it is neither."""
    if isinstance(given, Mapping) and set(given) == set(_PAIR):
        text, pair = (clean(given[key]) for key in _PAIR)
        return Question(text, pair=pair)
    return Question(clean(given))


def require_fits(asked: Question, columns: Sequence[str]) -> Question:
    """The question, where it has as many texts as the model was tuned on. Raises DataError where it has not.

    Args:
        columns: of the texts that the model was tuned on; none where nobody knows.
    """
    wanted, given = len(columns), 1 if asked.pair is None else 2
    if wanted in {0, given}:
        return asked
    if wanted == 2:
        raise DataError(f"a pair was expected, {_WRITTEN}, for the model was tuned on {' and '.join(columns)}")
    raise DataError(f"one text was expected and not a pair, for the model was tuned on {columns[0]} alone")


def clean(text: Any) -> str:
    """Text as a tokenizer can take it: a lone surrogate, which JSON can spell, has no UTF-8 form. Raises DataError
    where it is no text."""
    if not isinstance(text, str):
        raise DataError(f"a text was expected, not {cells.not_a_text(text)}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
