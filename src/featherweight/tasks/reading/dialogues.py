"""From cells to what is continued: prompts and completions, messages, texts; in Alpaca's and ShareGPT's forms, too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherweight.errors import DataError
from featherweight.records.dialogues import ASSISTANT, USER, Dialogue, Turn
from featherweight.records.rows import DIALOGUE
from featherweight.sources import cells
from featherweight.tasks.reading.labels import row_ids
from featherweight.tasks.reading.questions import clean

if TYPE_CHECKING:
    from featherweight.recipe import DataSection
    from featherweight.records.rows import Examples, Split

CONTEXT = "input"  # of Alpaca's rows, beside their instruction
_ALPACA = "instruction"
_ROLES = {"human": USER, "gpt": ASSISTANT, "bot": ASSISTANT, "chatgpt": ASSISTANT}  # as ShareGPT calls them
_SHARED = ("from", "value")
_MESSAGE = ("role", "content")


@dataclass(frozen=True)
class DialogueColumn:
    """One split's rows.

    Attributes:
        rows: None for one that has no prompt, or nothing to learn.
        said: what a person has to be told of how they were read.
    """

    split: Split
    rows: Sequence[Dialogue | None]
    said: str | None

    @property
    def is_unlabelled(self) -> bool:
        return all(row is None for row in self.rows)


def read(split: Split, section: DataSection) -> DialogueColumn:
    """Read and check one split.

    Raises:
        DataError: naming the row, where a cell is nothing that can be continued.
    """
    (prompt,), completion = section.texts, section.label
    context = CONTEXT if prompt == _ALPACA and CONTEXT in split.rows.column_names else None
    chat = bool(getattr(section, "chat", False)) or prompt == _ALPACA
    rows: list[Dialogue | None] = []
    kinds: set[str] = set()
    for place, (asked, answered, beside) in enumerate(cells_of(split, prompt, completion, context)):
        try:
            row, kind = _row(asked, answered if completion != prompt else None, beside, prompt == completion)
        except ValueError as error:
            number = int(row_ids(split.rows)[place]) + 1
            raise DataError(f"{split.origin}: row {number}: {error}") from None
        rows.append(as_chat(row) if chat and row is not None else row)
        kinds.add(kind)
    return DialogueColumn(split, rows, _said(kinds, prompt == _ALPACA))


def are_chats(column: DialogueColumn) -> bool:
    """Whether the rows are conversations, going by the first."""
    return next((row.is_chat for row in column.rows if row is not None), False)


def of_given(given: Any, chat: bool | None) -> Dialogue:
    """What a predictor is asked: a prompt, messages, or either with its completion. Raises DataError.

    Args:
        chat: whether a prompt that is a text is a user's message.
    """
    dialogue = _given(given)
    return as_chat(dialogue) if chat else dialogue


def _given(given: Any) -> Dialogue:
    try:
        if isinstance(given, list):
            return _to_be_continued(messages(given))
        if isinstance(given, Mapping):
            if set(given) == {"messages"}:
                return _to_be_continued(messages(given["messages"]))
            if set(given) == {"text"}:
                return Dialogue("", clean(given["text"]))
            if set(given) in ({"prompt"}, {"prompt", "completion"}):
                prompt = parsed(given["prompt"]) or ""
                return _pair(prompt, given.get("completion"), is_open="completion" not in given)
            raise ValueError(
                'a prompt, a list of messages, or {"prompt": ..., "completion": ...} was expected, not an object with '
                f"{', '.join(map(repr, given)) or 'no key'}"
            )
    except ValueError as error:
        raise DataError(str(error)) from None
    return Dialogue(clean(given))


def _to_be_continued(turns: tuple[Turn, ...]) -> Dialogue:
    """Messages whose next one is to be written; those that end with the assistant's are scored."""
    if turns and turns[-1].role == ASSISTANT:
        return Dialogue((), turns)
    return Dialogue(turns)


def as_chat(dialogue: Dialogue) -> Dialogue:
    """A prompt and what follows it, which are texts, as a user's message and the assistant's."""
    if dialogue.is_chat or dialogue.prompt == "":
        return dialogue
    replies = (
        None if said is None else (Turn(ASSISTANT, str(said)),) for said in (dialogue.completion, dialogue.rejected)
    )
    return Dialogue((Turn(USER, str(dialogue.prompt)),), *replies)


def cells_of(split: Split, prompt: str, completion: str, context: str | None) -> Iterator[tuple[Any, Any, Any]]:
    """Those of two columns, and of a third one where there is one, row by row."""
    names = [prompt, completion, *([context] if context else [])]
    wanted = list(dict.fromkeys(names))
    for batch in split.rows.select_columns(wanted).with_format("arrow").iter(batch_size=10_000):
        columns = {name: batch.column(name).to_pylist() for name in wanted}
        beside = columns[context] if context else [None] * len(columns[prompt])
        yield from zip(columns[prompt], columns[completion], beside, strict=True)


def _row(asked: Any, answered: Any, beside: Any, is_whole: bool) -> tuple[Dialogue | None, str]:
    """A row, and what it was written as. Raises ValueError.

    Args:
        is_whole: prompt and completion stand in one cell.
    """
    asked = parsed(asked)
    if is_whole:
        if asked is None:
            return None, "text"
        if isinstance(asked, str):
            return Dialogue("", clean(asked)), "text"
        turns = messages(asked)
        return (Dialogue((), turns) if any(one.role == ASSISTANT for one in turns) else None), _form(asked)
    answered = parsed(answered)
    if answered is None or asked is None:
        return None, "text"
    if isinstance(asked, str) and beside:
        asked = f"{asked}\n\n{beside}"
    return _pair(asked, answered), _form(asked) if isinstance(asked, list) else "text"


def parsed(cell: Any) -> Any:
    """The messages that a cell spells as JSON; else the cell, for a text may begin with a bracket; None if empty."""
    found = cells.parsed(cell)
    spelt = isinstance(found, list) and isinstance(cell, str)
    return cell if spelt and not (found and all(isinstance(one, dict) for one in found)) else found


def _pair(prompt: Any, completion: Any, is_open: bool = False) -> Dialogue:
    if isinstance(prompt, list):
        turns = messages(prompt)
        if is_open:
            return Dialogue(_without_reply(turns))
        if isinstance(completion, str):
            return Dialogue(turns, (Turn(ASSISTANT, clean(completion)),))
        return Dialogue(turns, messages(completion))
    if isinstance(completion, list):
        raise ValueError("the prompt is a text and the completion a list of messages; write both alike")
    return Dialogue(clean(prompt), None if is_open else clean(completion))


def _without_reply(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """What the assistant says last is what is to be written."""
    while len(turns) > 1 and turns[-1].role == ASSISTANT:
        turns = turns[:-1]
    return turns


def messages(given: Any) -> tuple[Turn, ...]:
    """Raises ValueError where it is no list of messages."""
    if not isinstance(given, list) or not given:
        raise ValueError('a text, or a list of messages such as {"role": "user", "content": "..."}, was expected')
    return tuple(_message(one) for one in given)


def _message(given: Any) -> Turn:
    for role, content in (_MESSAGE, _SHARED):
        if isinstance(given, Mapping) and {role, content} <= set(given):
            who, said = given[role], given[content]
            if not isinstance(who, str) or not isinstance(said, str):
                raise ValueError(f"a message's {role!r} and {content!r} are texts")
            return Turn(_ROLES.get(who, who), clean(said))
    raise ValueError("a message has 'role' and 'content', or 'from' and 'value'")


def _form(given: Any) -> str:
    first = given[0] if isinstance(given, list) and given else {}
    return "ShareGPT" if isinstance(first, Mapping) and set(_SHARED) <= set(first) else "messages"


def _said(kinds: set[str], is_alpaca: bool) -> str | None:
    if "ShareGPT" in kinds:
        return "ShareGPT's conversations, read as messages (human is user, gpt is assistant)"
    return "Alpaca's rows, read as a user's message and the assistant's" if is_alpaca else None


def digest(examples: Examples) -> str:
    """Of how rows were read, which the same file may be in several ways."""
    found = hashlib.sha256()
    for dialogue in examples.texts.values(DIALOGUE):
        found.update(dialogue.encode())
    return found.hexdigest()
