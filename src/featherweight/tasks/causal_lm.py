"""Causal language modelling: a text that goes on. Supervised fine-tuning on prompts and completions, or on messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from featherweight.answers import Answer
from featherweight.answers.text import LOG_PROBABILITY, Text, as_bytes
from featherweight.answers.written import CHRF, EXACT
from featherweight.errors import DataError
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue, Learning
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import DIALOGUE, Encoding, Examples, Ragged, Split
from featherweight.registry import deferred
from featherweight.tasks import heads, losses
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.loading import Loading
from featherweight.tasks.losses import Objective
from featherweight.tasks.reading import continuing, dialogues
from featherweight.tasks.reading.dialogues import DialogueColumn
from featherweight.tasks.reading.labels import row_ids
from featherweight.tasks.reading.splits import complete, require_labelled, require_train, sample
from featherweight.tasks.reading.texts import rows_with

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import DataSection, TrainingSection
    from featherweight.tasks import Writes


class CausalLM:
    """The next token of a text, for each that is learned.

    Args:
        answer: how prompts are taken, and what of a row is learned.
    """

    name: ClassVar[str] = "causal-lm"
    peft_task_type: ClassVar[str] = "CAUSAL_LM"
    hub_tag: ClassVar[str] = "text-generation"
    reads_tokens: ClassVar[bool] = True
    scores_tokens: ClassVar[bool] = True
    written: ClassVar[tuple[str, ...]] = (EXACT, "rougeL", CHRF)
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:DialogueColumns")
    _needs: ClassVar[str] = "a completion"
    _left_out: ClassVar[str] = "the completion is empty"

    def __init__(self, answer: Text) -> None:
        self.answer = answer

    @staticmethod
    def column(split: Split, section: DataSection) -> DialogueColumn:
        """One split's rows. Raises DataError."""
        return dialogues.read(split, section)

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[Self, Mapping[str, Examples]]:
        """Read the dialogues, leave out rows without a prompt or a completion, and carve what is to be held out."""
        require_train(splits)
        columns = {name: cls.column(split, section) for name, split in splits.items()}
        require_labelled(splits, [name for name, one in columns.items() if one.is_unlabelled], section)
        found = {name: cls._examples(one, section) for name, one in columns.items() if not one.is_unlabelled}
        task = cls._of(columns["train"], section)
        return task, complete(found, task.answer, section, seed)

    @classmethod
    def of_answer(cls, answer: Answer) -> Self:
        if not isinstance(answer, Text):
            raise TypeError(f"text was expected, not {answer.name}")
        return cls(answer)

    @classmethod
    def of_split(cls, split: Split, section: DataSection) -> Self:
        return cls._of(cls.column(split, section), section)

    @classmethod
    def of_model(cls, config: Any) -> Self | None:
        return cls(Text()) if heads.continues(config) else None

    def named_by(self, section: DataSection, model: str) -> Self:
        return self

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        return section

    @classmethod
    def glance(cls, splits: Mapping[str, Split], section: DataSection) -> tuple[Self, Mapping[str, Examples]]:
        columns = {name: cls.column(split, section) for name, split in splits.items()}
        labelled = {name: one for name, one in columns.items() if not one.is_unlabelled}
        if not labelled:
            raise DataError(f"{next(iter(splits.values())).origin}: no row has {cls._needs}")
        task = cls._of(next(iter(labelled.values())), section)
        return task, {name: cls._examples(one, section, whole=True) for name, one in labelled.items()}

    def read(self, split: Split, section: DataSection) -> Examples:
        column = self.column(split, section)
        if column.is_unlabelled:
            raise DataError(f"{split.origin}: no row has {self._needs} in {section.label!r}")
        return sample(self._examples(column, section), section.max_eval_samples, section.split_seed)

    def settled(self, section: DataSection) -> DataSection:
        return section

    def questions(self, given: Sequence[Any]) -> list[Question]:
        """Of a prompt, of messages, or of ``{"prompt": ..., "completion": ...}``, whose completion is measured."""
        found = [dialogues.of_given(one, self.answer.chat) for one in given]
        return [Question(one.asked or one.answered, dialogue=one) for one in found]

    def tokenise(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        if self.answer.chat is None and tokenizer.chat_template is not None:
            asked = [
                replace(one, dialogue=dialogues.as_chat(one.dialogue)) if one.dialogue and one.new_tokens else one
                for one in asked
            ]
        return self._encode(asked, self._made_for(tokenizer), cutting)

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        return continuing.of_rows(examples, self._made_for(tokenizer), cutting, self.answer.learning)

    def to_write(self, examples: Examples) -> Iterator[tuple[Question, str]]:
        """The last reply of each row as it is asked for, and as it stands there."""
        for question in examples.questions():
            assert question.dialogue is not None
            asked, reply = question.dialogue.opened()
            yield Question(asked.asked, dialogue=asked), reply

    def replies(self) -> CausalLM:
        return type(self)(self.answer.of_replies())

    def head(self) -> HeadPlan:
        return HeadPlan(heads.CAUSAL, None, 0, is_pretrained=True)

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, summed over the tokens that are learned, in fp32."""
        return -outputs.values[:, LOG_PROBABILITY].sum()

    def objective(self, training: TrainingSection, train: Examples) -> Objective:
        return losses.own(self.loss, training)

    def loading(self) -> Loading:
        prompt = (
            'tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True, '
            'return_tensors="pt", return_dict=True)'
            if self.answer.chat
            else 'tokenizer("Once upon a time", return_tensors="pt")'
        )
        after = [
            f"inputs = {prompt}",
            "# model.generate(**inputs, max_new_tokens=256, do_sample=False) continues it",
        ]
        return Loading(self.head().auto_class, after=after)

    def _encode(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return continuing.encode(asked, tokenizer, cutting, self.answer.learning)

    @staticmethod
    def _teaches(row: Dialogue) -> bool:
        """Whether there is anything to learn of a row."""
        return bool(row.answered.strip())

    @staticmethod
    def _truth(rows: Sequence[Dialogue]) -> Ragged:
        return as_bytes([row.answered for row in rows])

    @classmethod
    def _examples(cls, column: DialogueColumn, section: DataSection, whole: bool = False) -> Examples:
        """Rows with something to learn; with ``whole`` every other column too."""
        import pyarrow as pa

        split = column.split
        kept = [(place, row) for place, row in enumerate(column.rows) if row is not None and cls._teaches(row)]
        if not kept:
            raise DataError(f"{split.origin}: of every row {cls._left_out} (column {section.label!r}); set data.label")
        places = np.asarray([place for place, _ in kept], dtype=np.int64)
        rows = [row for _, row in kept]
        texts = {
            "text": pa.array([_shown(row) for row in rows], pa.large_string()),
            DIALOGUE: pa.array([row.dumps() for row in rows], pa.large_string()),
        }
        return Examples(
            name=split.name,
            texts=rows_with(texts, split, section, places, whole),
            text_columns=section.texts,
            truth=cls._truth(rows),
            ids=row_ids(split.rows)[places],
            dropped=len(column.rows) - len(kept),
            origin=split.origin,
            fingerprint=split.fingerprint,
            skipped=split.skipped,
            reading=column.said,
            dropped_for=cls._left_out,
        )

    @classmethod
    def _of(cls, column: DialogueColumn, section: DataSection) -> Self:
        return cls(Text(dialogues.are_chats(column), getattr(section, "chat_template", None), _learning(section)))

    def _made_for(self, tokenizer: Any) -> Any:
        """The tokenizer, with the template that the recipe has; it is saved with it."""
        if self.answer.template is not None:
            tokenizer.chat_template = self.answer.template
        return tokenizer


def _learning(section: Any) -> Learning:
    return Learning(not section.completion_only_loss, not section.assistant_only_loss)


def _shown(row: Dialogue) -> str:
    """What stands for a row: its prompt, and of one that is learned whole the text."""
    return row.asked or row.answered


if TYPE_CHECKING:
    _is_one: type[Writes] = CausalLM
