"""What answers behind the server: how questions get ready for a model, and a model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from featherweight.records.answers import Answers
from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question, Tokens
from featherweight.tasks import Task

if TYPE_CHECKING:
    from featherweight.inference.predictor import Backend, Predictor

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Ready:
    """A question ready for its model."""

    question: Question
    tokens: Tokens

    @property
    def cost(self) -> int:
        """Tokens that the model will see."""
        return len(self.tokens.ids)


class Answerer(Protocol):
    """Answers for one or several names. Called from one thread at a time."""

    def task(self, name: str) -> Task: ...

    def cutting(self, name: str) -> Cutting: ...

    def text_columns(self, name: str) -> tuple[str, ...]: ...

    def prepare(self, name: str, asked: Sequence[Question]) -> list[Ready]: ...

    def answer(self, names: Sequence[str], ready: Sequence[Ready]) -> list[dict[str, Any]]: ...


class OwnModel:
    """A predictor that has a model to itself: full tuning, a linear probe, DoRA, an export, ..."""

    batches = "its own"

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def task(self, name: str) -> Task:
        return self._predictor.task

    def cutting(self, name: str) -> Cutting:
        return self._predictor.backend.cutting

    def text_columns(self, name: str) -> tuple[str, ...]:
        return self._predictor.backend.text_columns

    def prepare(self, name: str, asked: Sequence[Question]) -> list[Ready]:
        return list(map(Ready, asked, self._predictor.backend.tokenise(asked)))

    def answer(self, names: Sequence[str], ready: Sequence[Ready]) -> list[dict[str, Any]]:
        kind, options = self._predictor.kind, self._predictor.options
        answers = self._predictor.backend.answers([one.tokens for one in ready], options)
        replies = kind.reply(answers, [one.question for one in ready], options)
        return [prediction(reply, one) for reply, one in zip(replies, ready, strict=True)]


def answers_of(backend: Backend, rows: Sequence[Tokens], options: Mapping[str, Any]) -> Answers:
    """Answers from what the model's head gives."""
    return backend.task.answer.of_outputs(backend.outputs(rows), options)


def prediction(reply: dict[str, Any], ready: Ready) -> dict[str, Any]:
    """One prediction as the server gives it: ``truncated`` stands only where the text was cut."""
    return reply | {"truncated": True} if ready.tokens.lost else reply


def estimated_tokens(characters: int, cutting: Cutting) -> int:
    """A guess that needs no tokenizer, for how much is waiting."""
    tokens = characters // _CHARACTERS_PER_TOKEN + 2
    return tokens if cutting.most is None else min(tokens, cutting.most)
