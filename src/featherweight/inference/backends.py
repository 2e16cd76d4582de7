"""What answers behind the server: how questions get ready for a model, and a model of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from featherweight.records.answers import Answers
from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question, Tokens, Writing
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
        found: list[dict[str, Any]] = [{}] * len(ready)
        for places in _written_alike(ready):
            rows = [ready[place] for place in places]
            for place, reply in zip(places, self._answer(rows, rows[0].question.writing), strict=True):
                found[place] = prediction(reply, ready[place])
        return found

    def _answer(self, rows: Sequence[Ready], writing: Writing | None) -> Iterator[dict[str, Any]]:
        kind, options = self._predictor.kind, dict(self._predictor.options)
        heard = None if writing is None else writing.heard
        options |= {} if writing is None else writing.options
        answers = self._predictor.backend.answers([one.tokens for one in rows], options, heard)
        return kind.reply(answers, [one.question for one in rows], options)


def _written_alike(ready: Sequence[Ready]) -> list[list[int]]:
    """Places of the rows that may be answered together: alone each that somebody listens to."""
    found: dict[Any, list[int]] = {}
    for place, one in enumerate(ready):
        writing, is_open = one.question.writing, one.question.new_tokens > 0
        alone = writing is not None and writing.heard is not None
        options = () if writing is None else tuple(sorted(writing.options.items()))
        found.setdefault((is_open, options, place if alone else None), []).append(place)
    return list(found.values())


def answers_of(backend: Backend, rows: Sequence[Tokens], options: Mapping[str, Any]) -> Answers:
    """Answers from what the model's head gives."""
    return backend.task.answer.of_outputs(backend.outputs(rows), options)


def prediction(reply: dict[str, Any], ready: Ready) -> dict[str, Any]:
    """One prediction as the server gives it: ``truncated`` stands only where the text was cut, ``prompt_tokens`` where
    text was written."""
    more: dict[str, Any] = {"truncated": True} if ready.tokens.lost else {}
    return reply | more | ({"prompt_tokens": ready.cost} if ready.question.new_tokens else {})


def estimated_tokens(characters: int, cutting: Cutting) -> int:
    """A guess that needs no tokenizer, for how much is waiting."""
    tokens = characters // _CHARACTERS_PER_TOKEN + 2
    return tokens if cutting.most is None else min(tokens, cutting.most)
