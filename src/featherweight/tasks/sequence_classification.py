"""Sequence classification: one label out of two or more for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featherweight.answers import Answer
from featherweight.answers.label import Label
from featherweight.errors import DataError
from featherweight.records.cutting import Cutting
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Rows, Split, numbers_of
from featherweight.registry import deferred
from featherweight.tasks import heads, loading, losses
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.reading import encoding, tokens
from featherweight.tasks.reading.labels import (
    LabelColumn,
    Reading,
    as_text,
    called,
    class_indices,
    given,
    going_on,
    label_names,
    read_as,
    read_label_column,
)
from featherweight.tasks.reading.questions import whole_text
from featherweight.tasks.reading.splits import complete, require_labelled, require_train, sample
from featherweight.tasks.reading.texts import all_of, examples_of

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import DataSection, TrainingSection
    from featherweight.tasks import Task
    from featherweight.tasks.loading import Loading
    from featherweight.tasks.losses import Objective


class SequenceClassification:
    """Single-label classification of one text.

    Args:
        labels: class names in the order of the model's outputs.
    """

    name: ClassVar[str] = "sequence-classification"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    hub_tag: ClassVar[str] = "text-classification"
    reads_tokens: ClassVar[bool] = False
    scores_tokens: ClassVar[bool] = False
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:LabelColumns")

    def __init__(self, labels: Sequence[str]) -> None:
        self.answer = Label(labels)

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[SequenceClassification, Mapping[str, Examples]]:
        """Read labels, agree on the classes, leave out empty texts, and carve a validation split where none is,
        and a test split where that is asked for."""
        require_train(splits)
        columns = {name: _column(split, section) for name, split in splits.items()}
        require_labelled(splits, [name for name, column in columns.items() if column.is_unlabelled], section)
        names = given(section)
        task = cls(label_names(columns["train"], names, section.label))
        examples = {
            name: _examples(
                column, read_as(column, task.answer.names, section.label, ordered=names is not None), section
            )
            for name, column in columns.items()
            if not column.is_unlabelled
        }
        return task, complete(examples, task.answer, section, seed)

    @classmethod
    def of_answer(cls, answer: Answer) -> SequenceClassification:
        return cls(answer.possible)

    @classmethod
    def of_split(cls, split: Split, section: DataSection) -> SequenceClassification:
        """With the classes that its own labels make up."""
        return cls(label_names(_column(split, section), given(section), section.label))

    @classmethod
    def of_model(cls, config: Any) -> SequenceClassification | None:
        if not heads.has_head(config, heads.SEQUENCE) or config.num_labels == 1:
            return None
        if config.problem_type == heads.SEVERAL:
            return None
        return cls(heads.stored_labels(config))

    def named_by(self, section: DataSection, model: str) -> SequenceClassification:
        """With ``data.labels`` as names: by name where these are the model's own, else new ones in their order."""
        return SequenceClassification(called(self.answer.names, given(section), model))

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        return going_on(section, known, adapter, "labels")

    @classmethod
    def glance(
        cls, splits: Mapping[str, Split], section: DataSection
    ) -> tuple[SequenceClassification, Mapping[str, Examples]]:
        """Whatever its labels are worth; a label has one number in all splits."""
        read = {name: Rows.of(split.rows, {section.label: "label"}).coded("label") for name, split in splits.items()}
        written = {name: [as_text(value, splits[name]) for value in values] for name, (values, _) in read.items()}
        names = sorted({value for values in written.values() for value in values})
        number = {value: index for index, value in enumerate(names)}
        codes = {
            name: np.asarray([number[value] for value in written[name]], dtype=np.int64)[rows]
            for name, (_, rows) in read.items()
        }
        return cls(names), {name: all_of(split, section, codes[name]) for name, split in splits.items()}

    def read(self, split: Split, section: DataSection) -> Examples:
        column = _column(split, section)
        if column.is_unlabelled:
            raise DataError(f"{split.origin}: unlabelled (every label in {section.label!r} is missing or -1)")
        examples = _examples(column, read_as(column, self.answer.names, section.label), section)
        return sample(examples, section.max_eval_samples, section.split_seed)

    def settled(self, section: DataSection) -> DataSection:
        return section.model_copy(update={"labels": list(self.answer.names)})

    def questions(self, given: Sequence[Any]) -> list[Question]:
        return list(map(whole_text, given))

    def tokenise(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return tokens.encode(asked, tokenizer, cutting)

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        return encoding.of_rows(examples, tokenizer, cutting)

    def head(self) -> HeadPlan:
        names = self.answer.names
        return HeadPlan(heads.SEQUENCE, names, len(names), "single_label_classification")

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, summed over the rows in fp32; targets (rows,), int64."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs.values.float(), targets, reduction="none").sum()

    def objective(self, training: TrainingSection, train: Examples) -> Objective:
        counts = np.bincount(numbers_of(train.truth), minlength=self.answer.width)
        return losses.of_classes(self.loss, training, self.answer.names, counts)

    def loading(self) -> Loading:
        return loading.with_names(self.head())


if TYPE_CHECKING:
    _is_one: type[Task] = SequenceClassification


def _column(split: Split, section: DataSection) -> LabelColumn:
    return read_label_column(split, section.label, given(section))


def _examples(labels: LabelColumn, reading: Reading, section: DataSection) -> Examples:
    return examples_of(labels.split, section, class_indices(labels, reading), reading.said)
