"""What a model is asked, row by row, and how a tokenizer writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """One row that is to be answered.

    Attributes:
        text: what people read of it.
        words: where its words are, which are answered one by one: first character and behind the last. None where the
            row is answered as a whole.
    """

    text: str
    words: Sequence[tuple[int, int]] | None = None

    def spelt(self) -> list[str]:
        """Its words."""
        return [self.text[start:end] for start, end in self.words or ()]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A question as its model sees it.

    Attributes:
        ids: of its tokens, never none.
        reads: for each of its words the token that answers for it, counted from the first; -1 where it has none, as it
            was cut off. None where the row is answered as a whole.
        lost: how many tokens were cut off.
    """

    ids: Sequence[int]
    reads: Sequence[int] | None = None
    lost: int = 0
