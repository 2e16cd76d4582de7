"""What a model continues: a text, or a conversation of several turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
_BETWEEN = "\n\n"  # texts that are shown one after the other


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant``, or what else a template knows.
    """

    role: str
    content: str

    def as_message(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


Said: TypeAlias = "str | tuple[Turn, ...]"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A prompt, and how it goes on. Both are texts, or both are turns.

    Attributes:
        prompt: nothing of it is learned; may be empty.
        completion: what is learned: the whole of a text, and of turns those of the assistant. None where it is still to
            be written.
        rejected: how it does not go on, where two completions are compared: ``completion`` is the better one.
    """

    prompt: Said
    completion: Said | None = None
    rejected: Said | None = None

    @property
    def is_chat(self) -> bool:
        return isinstance(self.prompt, tuple)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All of them, of a conversation."""
        return (*_turns(self.prompt), *_turns(self.completion))

    def replies(self) -> Iterator[int]:
        """Which of :attr:`turns` are learned."""
        for place in range(len(_turns(self.prompt)), len(self.turns)):
            if self.turns[place].role == ASSISTANT:
                yield place

    def opened(self) -> tuple[Dialogue, str]:
        """What comes before the last thing that is learned, to be continued, and that."""
        if not self.is_chat:
            return Dialogue(self.prompt), self.answered
        *_, last = self.replies()
        return Dialogue(self.turns[:last]), self.turns[last].content

    def answered_by(self, reply: str) -> Dialogue:
        """What is to be continued, with the assistant's reply."""
        return Dialogue(self.prompt, (Turn(ASSISTANT, reply),) if self.is_chat else reply)

    def behind(self, others: Sequence[Dialogue]) -> Dialogue:
        """The same with others before it, as examples of how to answer; a system's message stays the first."""
        if not self.is_chat:
            before = "".join(f"{one.prompt}{one.completion}{_BETWEEN}" for one in others)
            return Dialogue(before + str(self.prompt), self.completion)
        first, *rest = self.turns
        system = (first,) if first.role == SYSTEM and rest else ()
        shown = tuple(turn for one in others for turn in one.turns if turn.role != SYSTEM)
        asked, replied = _turns(self.prompt), self.completion
        if not asked:
            replied = _turns(replied)[len(system) :]
        return Dialogue((*system, *shown, *asked[len(system) :]), replied)

    @property
    def asked(self) -> str:
        """What people read of the prompt; of a conversation that begins with what is learned, what comes before the
        first reply."""
        if not self.is_chat:
            return str(self.prompt)
        first = next(self.replies(), len(self.turns))
        return written(self.turns[:first])

    @property
    def answered(self) -> str:
        """What people read of what is learned."""
        if self.completion is None:
            return ""
        if not self.is_chat:
            return str(self.completion)
        return "\n".join(self.turns[place].content for place in self.replies())

    @property
    def sides(self) -> tuple[Dialogue, ...]:
        """With each of its completions by itself, the better one first."""
        if self.rejected is None:
            return (self,)
        return Dialogue(self.prompt, self.completion), Dialogue(self.prompt, self.rejected)

    def dumps(self) -> str:
        """As JSON, for :meth:`loads`."""
        other = [] if self.rejected is None else [_plain(self.rejected)]
        return json.dumps([_plain(self.prompt), _plain(self.completion), *other], ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> Dialogue:
        return cls(*map(_parsed, json.loads(text)))


@dataclass(frozen=True)
class Learning:
    """What of a row is learned.

    Attributes:
        prompts: the prompt too (``completion_only_loss`` of TRL turned off).
        everybody: what everybody says, and not the assistant alone (``assistant_only_loss`` turned off).
    """

    prompts: bool = False
    everybody: bool = False


@dataclass(frozen=True)
class Replying:
    """How texts are answered by a decoder that has an encoder read them, each by itself.

    Attributes:
        prefix: stands before every text, of which it is no part.
        languages: of the texts and of what is written, by the codes of a tokenizer that knows several.
    """

    prefix: str = ""
    languages: tuple[str, str] | None = None


def written(turns: Sequence[Turn]) -> str:
    """A conversation as people read it: of one turn what is said, of several who says what."""
    if len(turns) == 1:
        return turns[0].content
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def _turns(said: Said | None) -> tuple[Turn, ...]:
    return said if isinstance(said, tuple) else ()


def _plain(said: Said | None) -> Any:
    return [[turn.role, turn.content] for turn in said] if isinstance(said, tuple) else said


def _parsed(said: Any) -> Any:
    return tuple(Turn(role, content) for role, content in said) if isinstance(said, list) else said
