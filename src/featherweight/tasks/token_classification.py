"""Token classification: a tag for each word of a text, such as the entities in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featherweight.answers import Answer
from featherweight.answers.entities import tags_of, types_in
from featherweight.answers.tags import PlainTags, Tags
from featherweight.errors import DataError
from featherweight.records.cutting import Cutting
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Ragged, Split, numbers_of
from featherweight.registry import deferred
from featherweight.tasks import heads, loading, losses
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.reading import encoding, tags, tokens, words
from featherweight.tasks.reading.labels import given, going_on, listed, row_ids
from featherweight.tasks.reading.questions import clean
from featherweight.tasks.reading.splits import complete, require_labelled, require_train, sample
from featherweight.tasks.reading.tags import TagColumn
from featherweight.tasks.reading.texts import rows_with

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import DataSection, TrainingSection
    from featherweight.tasks import Task
    from featherweight.tasks.loading import Loading
    from featherweight.tasks.losses import Objective

_TOKENS = "tokens"


class TokenClassification:
    """A tag for each word. The first token of a word answers for it (``label_all_tokens`` of older scripts is off).

    Args:
        answer: the tags.
    """

    name: ClassVar[str] = "token-classification"
    peft_task_type: ClassVar[str] = "TOKEN_CLS"
    hub_tag: ClassVar[str] = "token-classification"
    reads_tokens: ClassVar[bool] = True
    scores_tokens: ClassVar[bool] = False
    Columns: ClassVar[type[DataSection]] = deferred("featherweight.tasks.columns:TagColumns")

    def __init__(self, answer: Tags | PlainTags) -> None:
        self.answer = answer

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[TokenClassification, Mapping[str, Examples]]:
        """Read the tags, agree on the set of them, leave out rows without words, and carve what is to be held out."""
        require_train(splits)
        columns = _columns(splits, section)
        require_labelled(splits, [name for name, column in columns.items() if column.is_unlabelled], section)
        labelled = {name: column for name, column in columns.items() if not column.is_unlabelled}
        task = cls._of(labelled.values(), given(section))
        examples = {name: task._examples(column, section) for name, column in labelled.items()}
        return task, complete(examples, task.answer, section, seed)

    @classmethod
    def of_answer(cls, answer: Answer) -> TokenClassification:
        if not isinstance(answer, Tags | PlainTags):
            raise TypeError(f"tags were expected, not {answer.name}")
        return cls(answer)

    @classmethod
    def of_split(cls, split: Split, section: DataSection) -> TokenClassification:
        return cls._of([_column(split, section)], given(section))

    @classmethod
    def of_model(cls, config: Any) -> TokenClassification | None:
        if not heads.has_head(config, heads.TOKEN):
            return None
        names = heads.stored_labels(config)
        types = types_in(names)
        is_ours = types and set(tags_of(types)) == set(names)
        return cls(Tags(tags_of(types)) if is_ours else PlainTags(names))

    def named_by(self, section: DataSection, model: str) -> TokenClassification:
        return self

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        return going_on(section, known, adapter, "tags")

    @classmethod
    def glance(
        cls, splits: Mapping[str, Split], section: DataSection
    ) -> tuple[TokenClassification, Mapping[str, Examples]]:
        columns = {name: one for name, one in _columns(splits, section).items() if not one.is_unlabelled}
        if not columns:
            raise DataError(f"{next(iter(splits.values())).origin}: unlabelled (no row has tags)")
        task = cls._of(columns.values())
        return task, {name: task._examples(column, section, whole=True) for name, column in columns.items()}

    def read(self, split: Split, section: DataSection) -> Examples:
        column = _column(split, section)
        if column.is_unlabelled:
            raise DataError(f"{split.origin}: unlabelled (no row has tags in {section.label!r})")
        return sample(self._examples(column, section), section.max_eval_samples, section.split_seed)

    def settled(self, section: DataSection) -> DataSection:
        return section

    def questions(self, given: Sequence[Any]) -> list[Question]:
        """Of a text, whose words are found, of a list of words, or of ``{"tokens": [...]}``."""
        return list(map(_question, given))

    def tokenise(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return tokens.encode(asked, tokenizer, cutting)

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        return encoding.of_rows(examples, tokenizer, cutting)

    def head(self) -> HeadPlan:
        return HeadPlan(heads.TOKEN, self.answer.names, len(self.answer.names))

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, summed over the words that the model sees in fp32; targets (words,)."""
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(outputs.values.float(), targets.long(), reduction="none")
        return (losses if outputs.seen is None else losses * outputs.seen).sum()

    def objective(self, training: TrainingSection, train: Examples) -> Objective:
        counts = np.bincount(numbers_of(train.truth), minlength=self.answer.width)
        return losses.of_classes(self.loss, training, self.answer.names, counts)

    def loading(self) -> Loading:
        return loading.with_names(self.head())

    @classmethod
    def _of(cls, columns: Iterable[TagColumn], names: Sequence[str] | None = None) -> TokenClassification:
        """With the tags given, or else those of all splits, so that what is measured can be said."""
        found = names or sorted({tag for column in columns for tag in column.tags})
        if tags.are_entities(set(found)):
            return cls(Tags(tags_of(types_in(found))))
        return cls(PlainTags(found))

    def _examples(self, column: TagColumn, section: DataSection, whole: bool = False) -> Examples:
        """Rows with words and their tags' numbers; with ``whole`` every other column too."""
        import pyarrow as pa

        split = column.split
        keep = [place for place, row in enumerate(column.rows) if row.text.strip()]
        if not keep:
            raise DataError(f"{split.origin}: no row of column {section.text!r} has a word; set data.text")
        truth = self._numbers(column, keep)
        rows = [column.rows[place] for place in keep]
        kept = np.asarray(keep, dtype=np.int64)
        texts = {"text": pa.array([row.text for row in rows], pa.large_string())}
        spans = [place for row in rows for span in row.words for place in span]
        ends = np.cumsum([0, *(len(row.words) for row in rows)])
        return Examples(
            name=split.name,
            texts=rows_with(texts, split, section, kept, whole),
            text_columns=section.texts,
            truth=truth,
            ids=row_ids(split.rows)[kept],
            dropped=len(column.rows) - len(keep),
            origin=split.origin,
            fingerprint=split.fingerprint,
            skipped=split.skipped,
            reading=column.said,
            words=Ragged(np.asarray(spans, dtype=np.int32).reshape(-1, 2), ends),
        )

    def _numbers(self, column: TagColumn, keep: Sequence[int]) -> Ragged:
        """The tags' numbers. Raises DataError for one that the model does not have."""
        number = {name: index for index, name in enumerate(self.answer.names)}
        found = []
        for place in keep:
            row = column.rows[place].tags or ()
            unknown = next((tag for tag in row if tag not in number), None)
            if unknown is not None:
                names = listed(list(map(repr, self.answer.names)))
                raise column.refuse(place, f"the tag {unknown!r} is none of {names}; mend the row")
            found.append([number[tag] for tag in row])
        return Ragged.of(found, np.int32)


if TYPE_CHECKING:
    _is_one: type[Task] = TokenClassification


def _columns(splits: Mapping[str, Split], section: DataSection) -> dict[str, TagColumn]:
    return {name: _column(split, section) for name, split in splits.items()}


def _column(split: Split, section: DataSection) -> TagColumn:
    return tags.read(split, section.texts[0], section.label)


def _question(asked: Any) -> Question:
    if isinstance(asked, Mapping):
        if set(asked) == {"text"}:
            return _question(asked["text"])
        if set(asked) != {_TOKENS}:
            raise DataError('a text, a list of words, or {"tokens": [...]} was expected')
        asked = asked[_TOKENS]
    if isinstance(asked, list):
        text, spans = words.joined(list(map(clean, asked)))
    else:
        text = clean(asked)
        spans = words.of_text(text)
    return Question(text, spans or [(0, len(text))])  # a text without a word is one, which has no token
