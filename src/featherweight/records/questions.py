"""What a model is asked, row by row, and how a tokenizer writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from featherweight.records.dialogues import Dialogue

MAX_NEW_TOKENS = 256  # where nobody says how many
# How text is written, by GenerationConfig's names; the seed is that of drawing.
GENERATION = ("max_new_tokens", "num_beams", "temperature", "top_p", "seed")
JOINT = " ⏎ "  # between the two texts of a pair, wherever they are read as one


def columns_of(known: Mapping[str, Any]) -> tuple[str, ...]:
    """The column of the texts that a model was tuned on, or the two of their pairs; none where nobody knows.

    Args:
        known: its ``featherweight.json``.
    """
    named = known.get("text_column")
    return tuple(named) if isinstance(named, list) else () if named is None else (named,)


@dataclass(frozen=True, eq=False, slots=True)
class Writing:
    """How one question's continuation is written, where that is asked for beside it.

    Attributes:
        options: by ``GenerationConfig``'s names, laid over the predictor's.
        heard: is told the text part by part, as it is written; it may raise, which ends the writing.
    """

    options: Mapping[str, Any]
    heard: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One row that is to be answered.

    Attributes:
        text: what people read of it.
        words: where its words are, which are answered one by one: first character and behind the last. None where the
            row is answered as a whole.
        pair: the second text, where it is about two (``text_pair`` of tokenizers).
        dialogue: what is to be continued, where that is asked.
        writing: how, where this question says so.
    """

    text: str
    words: Sequence[tuple[int, int]] | None = None
    pair: str | None = None
    dialogue: Dialogue | None = None
    writing: Writing | None = None

    @property
    def characters(self) -> int:
        """How long it is, all its texts together."""
        said = () if self.dialogue is None else (len(side.answered) for side in self.dialogue.sides)
        return len(self.text) + len(self.pair or "") + sum(said)

    @property
    def new_tokens(self) -> int:
        """How many may have to be written."""
        if self.dialogue is None or self.dialogue.completion is not None:
            return 0
        asked = {} if self.writing is None else self.writing.options
        return int(asked.get("max_new_tokens", MAX_NEW_TOKENS))

    def spelt(self) -> list[str]:
        """Its words."""
        return [self.text[start:end] for start, end in self.words or ()]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A question as its model sees it.

    Attributes:
        ids: of its tokens, never none.
        reads: for each of its words the token that answers for it, counted from the first; -1 where it has none, as it
            was cut off; of a text that is continued, each token before one that is learned, in ascending order; of a
            reply, each of its tokens. None where the row is answered as a whole, or its continuation or reply is to be
            written.
        kinds: for each token which of the two texts it is of, as the tokenizer says (``token_type_ids``). None where
            the row is one text, or the model is not told.
        lost: how many tokens were cut off.
        ends: where in ``ids`` each of its windows ends, where it is several sequences; none where it is one.
        reply: ids of what a decoder is to give for it, where that is measured; never none.
    """

    ids: Sequence[int]
    reads: Sequence[int] | None = None
    kinds: Sequence[int] | None = None
    lost: int = 0
    ends: Sequence[int] = ()
    reply: Sequence[int] | None = None

    def windows(self) -> list[Tokens]:
        """Each of its sequences by itself."""
        if not self.ends:
            return [self]
        return [Tokens(self.ids[start:end], self._reads(start, end)) for start, end in pairwise((0, *self.ends))]

    def _reads(self, start: int, end: int) -> Sequence[int] | None:
        return None if self.reads is None else [place - start for place in self.reads if start <= place < end]
