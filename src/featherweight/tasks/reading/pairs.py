"""Prompts with two answers each, one of which is the better: from cells to dialogues, and on to tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.errors import DataError
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import ASSISTANT, USER, Dialogue, Learning, Turn
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples
from featherweight.tasks.reading import continuing, dialogues
from featherweight.tasks.reading.dialogues import DialogueColumn
from featherweight.tasks.reading.labels import row_ids
from featherweight.tasks.reading.questions import clean

if TYPE_CHECKING:
    from featherweight.records.rows import Split

LEFT_OUT = "both answers are the same, or one of them is empty"
_IMPLICIT = "what both answers begin with is taken as the prompt"
_WHOLE = Learning(everybody=True)  # an answer is compared from its first token to its last, whoever speaks
_ANSWERS = {"chosen", "rejected"}


def read(split: Split, section: Any) -> DialogueColumn:
    """Read and check one split; see :func:`dialogues.read`."""
    (prompt,), chosen = section.texts, section.label
    rows: list[Dialogue | None] = []
    implicit = False
    for place, (asked, one, other) in enumerate(dialogues.cells_of(split, prompt, chosen, section.rejected)):
        try:
            given = None if prompt == chosen else dialogues.parsed(asked) or ""
            row = _compared(given, dialogues.parsed(one), dialogues.parsed(other))
        except (DataError, ValueError) as error:
            number = int(row_ids(split.rows)[place]) + 1
            raise DataError(f"{split.origin}: row {number}: {error}") from None
        implicit |= row is not None and given is None
        rows.append(dialogues.as_chat(row) if section.chat and row is not None else row)
    return DialogueColumn(split, rows, _IMPLICIT if implicit else None)


def of_given(given: Any, chat: bool | None) -> Dialogue:
    """What a predictor is asked: a prompt, or ``{"prompt": ..., "chosen": ..., "rejected": ...}``. Raises DataError."""
    if not isinstance(given, Mapping) or not _ANSWERS & set(given):
        dialogue = dialogues.of_given(given, chat)
        if dialogue.completion is not None:
            raise DataError("a prompt was expected, or two answers to compare: 'prompt', 'chosen' and 'rejected'")
        return dialogue
    try:
        if not _ANSWERS <= set(given) <= {"prompt", *_ANSWERS}:
            raise ValueError(f"'prompt', 'chosen' and 'rejected' were expected, not {', '.join(map(repr, given))}")
        found = _compared(*(dialogues.parsed(given.get(key)) for key in ("prompt", "chosen", "rejected")))
    except ValueError as error:
        raise DataError(str(error)) from None
    if found is None:
        raise DataError("'chosen' or 'rejected' is empty")
    return dialogues.as_chat(found) if chat else found


def differ(row: Dialogue) -> bool:
    """Whether there is anything to compare."""
    return row.completion != row.rejected and all(side.answered.strip() for side in row.sides)


def encode(asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
    """Each question as its model sees it: of one with two answers both, each behind the prompt, as two sequences. They
    are compared from the same token on, the first at which either parts from the prompt alone, as TRL has it."""
    each = [[Question(one.text, dialogue=side) for side in _sides(one)] for one in asked]
    found = iter(continuing.encode([side for sides in each for side in sides], tokenizer, cutting, _WHOLE))
    return [_joined([next(found) for _ in sides]) for sides in each]


def of_rows(examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
    """Tokens of each pair: the chosen answer's sequence and then the rejected one's."""
    found = continuing.sequences("compared", examples, tokenizer, cutting, encode, _WHOLE)
    return replace(found, targets=examples.truth, windows=np.arange(0, len(found.tokens) + 1, 2))


def _compared(prompt: Any, chosen: Any, rejected: Any) -> Dialogue | None:
    """None where an answer is missing. Raises ValueError or DataError.

    Args:
        prompt: None where it is what both answers begin with.
    """
    if chosen is None or rejected is None:
        return None
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise ValueError("one answer is a text and the other a list of messages; write both alike")
    if isinstance(chosen, list):
        return _of_messages(prompt, dialogues.messages(chosen), dialogues.messages(rejected))
    chosen, rejected = clean(chosen), clean(rejected)
    if isinstance(prompt, list):
        return Dialogue(dialogues.messages(prompt), (Turn(ASSISTANT, chosen),), (Turn(ASSISTANT, rejected),))
    if prompt is not None:
        return Dialogue(clean(prompt), chosen, rejected)
    shared = _shared(chosen, rejected)
    if shared and chosen[shared - 1] == " ":
        shared -= 1  # answers begin with the space that parts them from the prompt
    return Dialogue(chosen[:shared], chosen[shared:], rejected[shared:])


def _of_messages(prompt: Any, chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> Dialogue:
    if isinstance(prompt, list):
        return Dialogue(dialogues.messages(prompt), chosen, rejected)
    shared = _shared(chosen, rejected)
    if prompt and not shared:
        return Dialogue((Turn(USER, clean(prompt)),), chosen, rejected)
    return Dialogue(chosen[:shared], chosen[shared:], rejected[shared:])


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How much both begin with, of which something is left of each."""
    most = max(min(len(one), len(other)) - 1, 0)
    return next((place for place in range(most) if one[place] != other[place]), most)


def _sides(asked: Question) -> Sequence[Dialogue]:
    return (asked.dialogue or Dialogue(asked.text)).sides


def _joined(sides: Sequence[Tokens]) -> Tokens:
    """Two answers as one row; what is to be written as it is."""
    if len(sides) == 1:
        return sides[0]
    first = min((one.reads[0] for one in sides if one.reads), default=0)
    ids: list[int] = []
    reads: list[int] = []
    ends: list[int] = []
    for one in sides:
        if one.reads:
            reads += range(len(ids) + first, len(ids) + one.reads[-1] + 1)
        ids += one.ids
        ends.append(len(ids))
    return Tokens(ids, reads, None, sum(one.lost for one in sides), ends)
