"""Regression: one number for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featherweight.answers import Answer
from featherweight.answers.number import Number
from featherweight.errors import ConfigError, DataError
from featherweight.records.cutting import Cutting
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Split
from featherweight.registry import deferred
from featherweight.tasks import heads, losses
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.loading import Loading
from featherweight.tasks.losses import Objective
from featherweight.tasks.reading import encoding, numbers, tokens
from featherweight.tasks.reading.questions import whole_text
from featherweight.tasks.reading.splits import complete, require_labelled, require_train, sample
from featherweight.tasks.reading.texts import all_of, examples_of

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import DataSection, TrainingSection
    from featherweight.tasks import Task


class Regression:
    """One number for one text. The model computes in standard deviations of train; people see the data's own unit.

    Args:
        answer: the scale.
    """

    name: ClassVar[str] = "regression"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    hub_tag: ClassVar[str] = "text-classification"
    reads_tokens: ClassVar[bool] = False
    scores_tokens: ClassVar[bool] = False
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:NumberColumns")

    def __init__(self, answer: Number) -> None:
        self.answer = answer

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[Regression, Mapping[str, Examples]]:
        """Read the numbers, leave out empty texts, and carve what is to be held out."""
        require_train(splits)
        columns = {name: numbers.read(split, section.label) for name, split in splits.items()}
        require_labelled(splits, [name for name, column in columns.items() if column is None], section)
        examples = {
            name: examples_of(splits[name], section, column, None)
            for name, column in columns.items()
            if column is not None
        }
        task = cls._of(examples["train"], section)
        found = complete(examples, task.answer, section, seed)
        return cls._of(found["train"], section), found  # the scale is that of the rows that are trained on

    @classmethod
    def of_answer(cls, answer: Answer) -> Regression:
        if not isinstance(answer, Number):
            raise TypeError(f"a number was expected, not {answer.name}")
        return cls(answer)

    @classmethod
    def of_split(cls, split: Split, section: DataSection) -> Regression:
        """With the scale of its own numbers."""
        return cls._of(cls(Number(0, 1)).read(split, section), section)

    @classmethod
    def of_model(cls, config: Any) -> Regression | None:
        """A model with one output answers in the unit of its data."""
        return cls(Number(0, 1)) if heads.has_head(config, heads.SEQUENCE) and config.num_labels == 1 else None

    def named_by(self, section: DataSection, model: str) -> Regression:
        return self

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        if "scale" not in known:
            raise ConfigError(f"model.adapter: {adapter} does not say in what scale it answers; begin without it")
        return section

    @classmethod
    def glance(cls, splits: Mapping[str, Split], section: DataSection) -> tuple[Regression, Mapping[str, Examples]]:
        columns = {name: numbers.read(split, section.label) for name, split in splits.items()}
        examples = {
            name: all_of(splits[name], section, column) for name, column in columns.items() if column is not None
        }
        if not examples:
            raise DataError(f"{next(iter(splits.values())).origin}: unlabelled (no row has a number)")
        return cls._of(next(iter(examples.values())), section), examples

    def read(self, split: Split, section: DataSection) -> Examples:
        column = numbers.read(split, section.label)
        if column is None:
            raise DataError(f"{split.origin}: unlabelled (no row has a number in {section.label!r})")
        return sample(examples_of(split, section, column, None), section.max_eval_samples, section.split_seed)

    def settled(self, section: DataSection) -> DataSection:
        return section

    def questions(self, given: Sequence[Any]) -> list[Question]:
        return list(map(whole_text, given))

    def tokenise(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return tokens.encode(asked, tokenizer, cutting)

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        return encoding.of_rows(examples, tokenizer, cutting)

    def head(self) -> HeadPlan:
        return HeadPlan(heads.SEQUENCE, None, 1, "regression")

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Squared error in squared standard deviations of train, summed over the rows in fp32; targets (rows,),
        float64, in the data's unit."""
        return ((outputs.values[:, 0].float() - self._standardised(targets)) ** 2).sum()

    def _standardised(self, targets: torch.Tensor) -> torch.Tensor:
        return ((targets - self.answer.mean) / self.answer.deviation).float()

    def objective(self, training: TrainingSection, train: Examples) -> Objective:
        return losses.of_numbers(self.loss, training, self._standardised)

    def loading(self) -> Loading:
        scale = f"{self.answer.mean!r} + {self.answer.deviation!r}"
        return Loading(
            self.head().auto_class,
            options='num_labels=1, problem_type="regression"',
            after=[f"def number(logits):  # in the unit of the data\n    return {scale} * logits[:, 0]"],
        )

    @classmethod
    def _of(cls, train: Examples, section: DataSection) -> Regression:
        try:
            return cls(Number.of_truth(np.asarray(train.truth)))
        except ValueError as error:
            raise DataError(f"{train.origin}: the numbers in {section.label!r} can't be learned: {error}") from None


if TYPE_CHECKING:
    _is_one: type[Task] = Regression
