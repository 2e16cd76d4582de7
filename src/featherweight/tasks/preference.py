"""Preference: a model that writes text learns which of two answers to a prompt is the better, by DPO and its kin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.pair_losses import REFERENCE
from featherweight.answers.preference import LOGPS, Preference, of_both
from featherweight.errors import ConfigError
from featherweight.records.answers import Answers
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Ragged, Split
from featherweight.registry import deferred
from featherweight.tasks.causal_lm import CausalLM
from featherweight.tasks.reading import dialogues, pairs
from featherweight.tasks.reading.dialogues import DialogueColumn

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import DataSection, TrainingSection
    from featherweight.tasks import Compares


class PreferenceLearning(CausalLM):
    """The better of two answers, for each prompt.

    Args:
        answer: how prompts are taken, and what training lowers.
    """

    name: ClassVar[str] = "preference"
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:PreferenceColumns")
    Training: ClassVar[type[TrainingSection]] = deferred("featherweight.tasks.training:PreferenceTraining")
    _needs: ClassVar[str] = "two answers"
    _left_out: ClassVar[str] = pairs.LEFT_OUT
    answer: Preference

    @staticmethod
    def column(split: Split, section: DataSection) -> DialogueColumn:
        return pairs.read(split, section)

    @classmethod
    def of_answer(cls, answer: Answer) -> Self:
        if not isinstance(answer, Preference):
            raise TypeError(f"a preference was expected, not {answer.name}")
        return cls(answer)

    @classmethod
    def of_model(cls, config: Any) -> Self | None:
        """Nothing tells such a model from others that continue texts."""
        return None

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        raise ConfigError(
            f"model.adapter: a preference is learned against the model that model.name names, so write {adapter} out "
            "with `featherweight export --format merged`, and give that folder as model.name"
        )

    def questions(self, given: Sequence[Any]) -> list[Question]:
        """Of a prompt or of messages, which are answered; of ``{"prompt": ..., "chosen": ..., "rejected": ...}``, of
        which it is told which of the two is preferred."""
        found = [pairs.of_given(one, self.answer.chat) for one in given]
        return [Question(one.asked or one.answered, dialogue=one) for one in found]

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        return pairs.of_rows(examples, self._made_for(tokenizer), cutting)

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Of each pair, as :class:`PairLoss` has it, summed in fp32. Without a reference the model is its own."""
        import torch

        values = outputs.values
        if self.refers and values.shape[1] <= REFERENCE:
            values = torch.cat([values, values[:, :1].detach()], dim=1)
        losses: torch.Tensor = self.answer.loss.of(values, torch)
        return losses.sum()

    def replies(self) -> CausalLM:
        return CausalLM(self.answer.of_replies())

    @property
    def refers(self) -> bool:
        return self.answer.loss.refers

    def reference(self, answers: Answers) -> NDArray[np.float32]:
        return np.asarray(answers[LOGPS], dtype=np.float32).reshape(-1)

    def _encode(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return pairs.encode(asked, tokenizer, cutting)

    @staticmethod
    def _teaches(row: Dialogue) -> bool:
        return pairs.differ(row)

    @staticmethod
    def _truth(rows: Sequence[Dialogue]) -> Ragged:
        return of_both([side.answered for side in row.sides] for row in rows)

    @classmethod
    def _of(cls, column: DialogueColumn, section: Any) -> Self:
        return cls(Preference(dialogues.are_chats(column), section.chat_template))


if TYPE_CHECKING:
    _is_one: type[Compares] = PreferenceLearning
