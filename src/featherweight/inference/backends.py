"""What answers behind the server: how texts get ready for a model, and a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from featherweight.tasks import Task

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Prepared:
    """A text ready for its model.

    Attributes:
        text: as it came.
        tokens: its token ids, where the backend takes tokens.
        cost: tokens that the model will see.
        truncated: whether the model will see only the text's beginning; None where the backend doesn't know.
    """

    text: str
    tokens: Sequence[int]
    cost: int
    truncated: bool | None


class Backend(Protocol):
    """Answers for one or several names. Called from one thread at a time."""

    def max_length(self, name: str) -> int: ...

    def prepare(self, name: str, texts: Sequence[str]) -> list[Prepared]: ...

    def answer(self, names: Sequence[str], prepared: Sequence[Prepared]) -> list[dict[str, Any]]: ...


class OwnModel:
    """A predictor that has a model to itself: full tuning, a linear probe, DoRA, an export, ..."""

    batches = "its own"

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self._loaded = getattr(predictor.backend, "loaded", None)

    def max_length(self, name: str) -> int:
        found = self._loaded if self._loaded is not None else self._predictor.backend
        return int(found.max_length)

    def prepare(self, name: str, texts: Sequence[str]) -> list[Prepared]:
        if self._loaded is not None:
            return prepare(self._loaded.task, self._loaded.tokenizer, self._loaded.max_length, texts)
        return [Prepared(text, (), estimated_tokens(text, self.max_length(name)), None) for text in texts]

    def answer(self, names: Sequence[str], prepared: Sequence[Prepared]) -> list[dict[str, Any]]:
        found = self._predictor.predict([one.text for one in prepared])
        return [
            prediction(one, bool(one.get("truncated") if asked.truncated is None else asked.truncated))
            for asked, one in zip(prepared, found, strict=True)
        ]


def prepare(task: Task, tokenizer: Any, max_length: int, texts: Sequence[str]) -> list[Prepared]:
    """Tokenise as the predictor does, and see which texts were cut."""
    rows = task.tokenise(texts, tokenizer, max_length)
    full = [index for index, row in enumerate(rows) if len(row) >= max_length]  # only these can have been cut
    cut = {
        index
        for index in full
        if len(tokenizer(texts[index], truncation=False, verbose=False)["input_ids"]) > max_length
    }
    return [
        Prepared(text, row, len(row), index in cut) for index, (text, row) in enumerate(zip(texts, rows, strict=True))
    ]


def prediction(found: dict[str, Any], truncated: bool) -> dict[str, Any]:
    """One prediction as the server gives it: ``truncated`` stands only where the text was cut."""
    return found | {"truncated": True} if truncated else found


def estimated_tokens(text: str, max_length: int) -> int:
    """A guess that needs no tokenizer, for how much is waiting."""
    return min(len(text) // _CHARACTERS_PER_TOKEN + 2, max_length)
