"""Talking with a finished model, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError
from featherweight.records.dialogues import ASSISTANT, SYSTEM, USER, Dialogue, Turn
from featherweight.records.questions import Question

if TYPE_CHECKING:
    from featherweight.inference.predictor import Predictor
    from featherweight.inference.torch_backend import TorchBackend

Heard = Callable[[str], None]


class Talk:
    """A conversation with one model.

    Args:
        predictor: of a model that writes text.
        chat: whether what is said are messages; else each is a text to be continued, and nothing is remembered.
        system: the system's message, which comes first.
    """

    def __init__(self, predictor: Predictor, chat: bool, system: str | None = None) -> None:
        self._predictor = predictor
        self._chat = chat
        self._system = system
        self.turns: list[Turn] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        self.turns = [] if self._system is None else [Turn(SYSTEM, self._system)]

    def say(self, text: str, heard: Heard = lambda part: None) -> str:
        """The model's reply to what a user says.

        Args:
            heard: is told the reply part by part, as it is written.
        """
        backend = self._predictor.backend
        dialogue = Dialogue((*self.turns, Turn(USER, text))) if self._chat else Dialogue(text)
        question = Question(text, dialogue=dialogue)
        answers = backend.answers(backend.tokenise([question]), self._predictor.options, heard)
        (reply,) = self._predictor.kind.reply(answers, [question], self._predictor.options)
        if self._chat:
            self.turns += [Turn(USER, text), Turn(ASSISTANT, reply["text"])]
        return str(reply["text"])


def talks(
    target: str,
    *,
    compare: bool = False,
    system: str | None = None,
    base_model: str | None = None,
    generation: Mapping[str, Any] | None = None,
) -> dict[str, Talk]:
    """A conversation with a run, an adapter or a model and, where ``compare``, one with the model that it was made
    from, by ``base`` and ``tuned``.

    Raises:
        ConfigError: it writes no text, or was not made from another model.
        ModelError: it can't be loaded.
    """
    from featherweight.inference.loading import origin_of
    from featherweight.inference.predictor import load_predictor

    tuned = load_predictor(target, base_model=base_model, generation=generation)
    if not tuned.task.scores_tokens:
        raise ConfigError(f"chat: {target} is for {tuned.task.name} and writes no text; ask it with `predict`")
    if tuned.task.head().replies:
        raise ConfigError(f"chat: {target} replies to each text by itself and knows no turns; ask it with `predict`")
    backend: TorchBackend = tuned.backend  # type: ignore[assignment]
    own = tuned.kind.chat  # type: ignore[attr-defined]
    chat = backend.loaded.tokenizer.chat_template is not None if own is None else own
    found = {"tuned": Talk(tuned, chat, system)}
    if not compare:
        return found
    origin = origin_of(target, base_model)
    if origin is None or origin.where is None:
        raise ConfigError(f"--compare: {target} was not made from another model; leave it out")
    base = load_predictor(origin.where, generation=generation)
    return {"base": Talk(base, chat, system), **found}
