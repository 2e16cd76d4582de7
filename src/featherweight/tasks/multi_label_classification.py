"""Multi-label classification: any of several labels, or none, for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from featherweight.answers import Answer
from featherweight.answers.labels import EVEN, LabelSets
from featherweight.errors import DataError
from featherweight.records.cutting import Cutting
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Split, numbers_of
from featherweight.registry import deferred
from featherweight.tasks import heads, loading, losses
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.reading import encoding, label_sets, tokens
from featherweight.tasks.reading.label_sets import LabelSetColumn, names_of
from featherweight.tasks.reading.labels import called, going_on, label_names, read_as
from featherweight.tasks.reading.questions import whole_text
from featherweight.tasks.reading.splits import complete, require_labelled, require_train, sample
from featherweight.tasks.reading.texts import all_of, examples_of

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import DataSection, TrainingSection
    from featherweight.tasks import Task
    from featherweight.tasks.loading import Loading
    from featherweight.tasks.losses import Objective


class MultiLabelClassification:
    """A yes or a no for each label, of one text.

    Args:
        labels: their names, in the order of the model's outputs.
    """

    name: ClassVar[str] = "multi-label-classification"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    hub_tag: ClassVar[str] = "text-classification"
    reads_tokens: ClassVar[bool] = False
    scores_tokens: ClassVar[bool] = False
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:LabelSetColumns")

    def __init__(self, labels: Sequence[str]) -> None:
        self.answer = LabelSets(labels)

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[MultiLabelClassification, Mapping[str, Examples]]:
        """Read the sets, agree on the labels, leave out empty texts, and carve what is to be held out."""
        require_train(splits)
        columns = {name: label_sets.read(split, section) for name, split in splits.items()}
        require_labelled(splits, [name for name, column in columns.items() if column.is_unlabelled], section)
        task = cls(_names(columns["train"], section))
        examples = {
            name: task._examples(column, section) for name, column in columns.items() if not column.is_unlabelled
        }
        return task, complete(examples, task.answer, section, seed)

    @classmethod
    def of_answer(cls, answer: Answer) -> MultiLabelClassification:
        return cls(answer.possible)

    @classmethod
    def of_split(cls, split: Split, section: DataSection) -> MultiLabelClassification:
        """With the labels that its own rows have."""
        return cls(_names(label_sets.read(split, section), section))

    @classmethod
    def of_model(cls, config: Any) -> MultiLabelClassification | None:
        if not heads.has_head(config, heads.SEQUENCE) or config.problem_type != heads.SEVERAL:
            return None
        return cls(heads.stored_labels(config))

    def named_by(self, section: DataSection, model: str) -> MultiLabelClassification:
        return MultiLabelClassification(called(self.answer.names, names_of(section), model))

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        return going_on(section, known, adapter, "labels")

    @classmethod
    def glance(
        cls, splits: Mapping[str, Split], section: DataSection
    ) -> tuple[MultiLabelClassification, Mapping[str, Examples]]:
        columns = {name: label_sets.read(split, section) for name, split in splits.items()}
        known = {value for column in columns.values() for value in column.values}
        names = names_of(section) or ()
        task = cls(names if known <= set(names) else sorted(known))
        examples = {
            name: all_of(column.split, section, column.sets(task._reading(column, section)))
            for name, column in columns.items()
        }
        return task, examples

    def read(self, split: Split, section: DataSection) -> Examples:
        column = label_sets.read(split, section)
        if column.is_unlabelled:
            where = ", ".join(map(repr, section.truths))
            raise DataError(f"{split.origin}: unlabelled (no row has labels given in {where})")
        return sample(self._examples(column, section), section.max_eval_samples, section.split_seed)

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
        return HeadPlan(heads.SEQUENCE, names, len(names), heads.SEVERAL)

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy in nats, of each row the mean over the labels, summed over the rows in fp32; targets
        (rows, labels), bool."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = outputs.values.float()
        each = binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        return each.mean(dim=1).sum()

    def objective(self, training: TrainingSection, train: Examples) -> Objective:
        return losses.of_sets(self.loss, training, self.answer.names, numbers_of(train.truth))

    def loading(self) -> Loading:
        after = [
            "def fitting(logits):  # for each text the labels that fit it",
            "    names = model.config.id2label",
            f"    return [[names[i] for i, p in enumerate(row) if p >= {EVEN}] for row in logits.sigmoid()]",
        ]
        named = loading.with_names(self.head(), after)
        return replace(named, options=f"{named.options}, problem_type={heads.SEVERAL!r}")

    def _reading(self, column: LabelSetColumn, section: DataSection, *, ordered: bool = True) -> Any:
        return read_as(column, self.answer.names, ", ".join(section.truths), ordered=ordered)

    def _examples(self, column: LabelSetColumn, section: DataSection) -> Examples:
        reading = self._reading(column, section, ordered=names_of(section) is not None)
        said = "; ".join(filter(None, (column.said, reading.said))) or None
        return examples_of(column.split, section, column.sets(reading), said)


if TYPE_CHECKING:
    _is_one: type[Task] = MultiLabelClassification


def _names(train: LabelSetColumn, section: DataSection) -> tuple[str, ...]:
    return label_names(train, names_of(section), ", ".join(section.truths))
