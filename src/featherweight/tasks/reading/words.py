"""Where the words of a text are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_IDEOGRAM = "぀-ヿ㐀-䶿一-鿿豈-﫿"  # written without spaces, so each is a word
_WORD = re.compile(rf"[{_IDEOGRAM}]|[^\W{_IDEOGRAM}]+(?:[^\w\s]+[^\W{_IDEOGRAM}]+)*|[^\w\s]")


def of_text(text: str) -> list[tuple[int, int]]:
    """First character and behind the last of each word. Punctuation is a word, but for what stands within one.

    >>> [text[a:b] for text in ["Anna O'Neill, Paris."] for a, b in of_text(text)]
    ['Anna', "O'Neill", ',', 'Paris', '.']
    """
    spans: list[tuple[int, int]] = []
    for found in _WORD.finditer(text):
        start, end = found.span()
        if spans and spans[-1][1] == start and _goes_on(text, start):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _goes_on(text: str, place: int) -> bool:
    """Whether a character is part of the one before it: an accent or a vowel sign, or what joins two characters."""
    return unicodedata.category(text[place])[0] == "M" or "\u200d" in text[place - 1 : place + 1]


def joined(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Words as one text with spaces between them, and where they are in it."""
    spans, place = [], 0
    for word in words:
        spans.append((place, place + len(word)))
        place += len(word) + 1
    return " ".join(words), spans
