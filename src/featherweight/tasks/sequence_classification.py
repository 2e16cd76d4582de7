"""Sequence classification: one label out of two or more for each text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.label import PROBABILITIES, Label
from featherweight.errors import DataError, ModelError
from featherweight.process.imports import importing_models
from featherweight.recipe import DataSection, ModelSection
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding, Examples, Ragged, Rows, Split
from featherweight.sources import models
from featherweight.sources.models import ModelSource
from featherweight.storage.cache import cached, key_of
from featherweight.tasks import heads
from featherweight.tasks.reading import lengths, tokens
from featherweight.tasks.reading.labels import (
    LabelColumn,
    Reading,
    class_indices,
    label_names,
    read_as,
    read_label_column,
    row_ids,
)
from featherweight.tasks.reading.splits import carve, sample

if TYPE_CHECKING:
    import torch

    from featherweight.tasks import Task


class SequenceClassification:
    """Single-label classification of one text.

    Args:
        labels: class names in the order of the model's outputs.
    """

    name: ClassVar[str] = "sequence-classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    answers_with: ClassVar[type[Answer]] = Label

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.answer = Label(self.labels)

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[SequenceClassification, dict[str, Examples]]:
        """Read labels, agree on the classes, leave out empty texts, and carve a validation split where none is,
        and a test split where that is asked for.

        Returns:
            The task, and ``train``, ``validation`` and, where it is labelled, ``test``.

        Raises:
            DataError: naming the file, the row and the fix.
        """
        if "train" not in splits:
            raise DataError(f"{next(iter(splits.values())).origin}: there is no train split; set data.train_file")
        columns = {name: read_label_column(split, section.label, section.labels) for name, split in splits.items()}
        for name in ("train", "validation"):
            if name in columns and columns[name].is_unlabelled:
                raise DataError(
                    f"{splits[name].origin}: the {name} split is unlabelled (every label in {section.label!r} is "
                    "missing or -1); give labelled rows"
                )
        names = label_names(columns["train"], section.labels, section.label)
        ordered = section.labels is not None
        examples = {
            name: _examples(column, read_as(column, names, section.label, ordered=ordered), section)
            for name, column in columns.items()
            if not column.is_unlabelled
        }
        if "validation" not in examples:
            share = section.validation_fraction
            examples |= carve(examples["train"], "validation", share, section.split_seed, names, section.group)
        if "test" not in examples and section.test_fraction is not None:
            whole = sum(columns["train"].counts.values())
            share = section.test_fraction * whole / len(examples["train"])  # of what validation left
            examples |= carve(examples["train"], "test", share, section.split_seed, names, section.group)
        for name, split in examples.items():
            if name == "train":
                examples[name] = sample(split, section.max_train_samples, seed, section.group)
            else:
                examples[name] = sample(split, section.max_eval_samples, section.split_seed)
        return cls(names), examples

    @classmethod
    def measure_only(cls, split: Split, section: DataSection, labels: Sequence[str]) -> Examples:
        """Read one split for measuring a model that already has its classes."""
        column = read_label_column(split, section.label, section.labels)
        if column.is_unlabelled:
            raise DataError(f"{split.origin}: unlabelled (every label in {section.label!r} is missing or -1)")
        examples = _examples(column, read_as(column, labels, section.label), section)
        return sample(examples, section.max_eval_samples, section.split_seed)

    @classmethod
    def labels_of(cls, split: Split, section: DataSection) -> tuple[str, ...]:
        """The classes that a split's own labels make up."""
        return label_names(read_label_column(split, section.label, section.labels), section.labels, section.label)

    @staticmethod
    def has_head(config: Any) -> bool:
        """Whether the stored model was trained as a classifier, going by its configuration."""
        return heads.is_trained(config)

    @importing_models()
    def load_model(self, source: ModelSource, section: ModelSection) -> tuple[Any, Any, list[str]]:
        """Load model and tokenizer with the right head, pad token and label names.

        Returns:
            The model in fp32 and evaluation mode, its tokenizer, and the dotted names of the modules that are fresh
            and must therefore travel with any adapter.

        Raises:
            ConfigError: the base model's trained head has other labels than the data.
            ModelError: the checkpoint can't be loaded, or lacks more than a head.
        """
        tokenizer = models.load_tokenizer(source)
        config = models.load_config(source)
        text = config.get_text_config()  # of a model for images and texts, the part that reads texts
        if tokenizer.pad_token is None:
            # The head finds the last token that is not padding, and attention never sees padding, so any token does.
            any_token = tokenizer.convert_ids_to_tokens(getattr(text, "pad_token_id", None) or 0)
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or any_token
        order = [] if section.head != "auto" else heads.order(config, self.labels, source.name)
        heads.answer(config, [self.labels[index] for index in order] or self.labels)
        config.problem_type = "single_label_classification"
        config.pad_token_id = text.pad_token_id = tokenizer.pad_token_id
        model, missing = models.load_model(
            source, self.auto_class, config, ignore_mismatched_sizes=section.head != "auto"
        )
        head = heads.modules(model)
        if not head:
            raise ModelError(
                f"{source.name}: {config.model_type} has its head within the model that it stands on, where it is not "
                "told apart; choose another architecture"
            )
        fresh = sorted({name.rpartition(".")[0] for name in missing})
        if lost := [name for name in fresh if not heads.within(name, [*head, "pooler"])]:
            raise ModelError(f"{source.name}: the checkpoint lacks the weights of {lost[0]!r}; it is incomplete")
        models.require_finite(model, source.name, apart_from=head)
        if section.head != "auto":
            heads.initialise(model, head)
        heads.reorder(model, order)
        heads.answer(model.config, self.labels)
        poolers = [name for name in fresh if not heads.within(name, head)]
        return model, tokenizer, sorted({*head, *poolers})

    def mend_head(self, model: Any, head: Sequence[str]) -> list[str]:
        """Draw modules of the head afresh that hold NaN or infinity, or nothing but zeros; their names."""
        return heads.mend(model, head)

    def max_length(
        self, tokenizer: Any, model: Any, configured: int | None, *, tried: bool = False
    ) -> tuple[int, str | None]:
        """Tokens after which texts are cut, and why; see :func:`featherweight.tasks.reading.lengths.usable`."""
        return lengths.usable(tokenizer, model, configured, tried=tried)

    def encode(self, examples: Examples, tokenizer: Any, max_length: int) -> Encoding:
        """Tokenise one split into the cache, memory-mapped from there; a split is tokenised once."""
        rows = hashlib.sha256(examples.ids.tobytes()).hexdigest()
        key = key_of(examples.fingerprint, rows, examples.text_column, tokens.identity(tokenizer), max_length)
        folder = cached("encoded", key, lambda aside: tokens.write(examples.all_texts(), tokenizer, max_length, aside))
        offsets = np.load(folder / "offsets.npy")
        ids: Any = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r", shape=(int(offsets[-1]),))
        cut, lost = np.load(folder / "truncated.npy")
        # What is saved beside the model cuts as the run did, also where the file is read without transformers.
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.enable_truncation(max_length, direction=tokenizer.truncation_side)
        return Encoding(Ragged(ids, offsets), examples.labels, cut=int(cut), lost=int(lost), key=key)

    def tokenise(self, texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
        """Token ids of each text, with the model's special tokens, cut at ``max_length``, never empty."""
        return tokens.encode(texts, tokenizer, max_length)[0]

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, summed over the rows in fp32; targets (rows,), int64."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs.values.float(), targets, reduction="none").sum()

    def answers(self, outputs: Outputs) -> dict[str, NDArray[np.float32]]:
        """``probabilities``: softmax over the classes; float32, shape (rows, classes)."""
        return {PROBABILITIES: outputs.values.float().softmax(dim=-1).cpu().numpy()}

    def shares(self, examples: Examples) -> dict[str, float]:
        """Share of each label in a split."""
        counts = np.bincount(examples.labels, minlength=len(self.labels))
        return {name: float(count / len(examples)) for name, count in zip(self.labels, counts, strict=True)}


if TYPE_CHECKING:
    _is_one: type[Task] = SequenceClassification


def _examples(labels: LabelColumn, reading: Reading, section: DataSection) -> Examples:
    """Keep the text and what to slice and group by, and leave out rows whose text is empty or only white space."""
    import pyarrow.compute as pc
    from pyarrow import types

    split, column = labels.split, section.text
    others = [*section.slices, *([section.group] if section.group else [])]
    rows = Rows.of(split.rows, {column: "text", **{name: f"column:{name}" for name in others}})
    kind = rows.table.schema.field("text").type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"{split.origin}: the text column {column!r} holds {kind}, not text; set data.text")
    filled = [np.empty(0, dtype=bool)]
    for batch in rows.batches("text"):
        trimmed = pc.utf8_trim_whitespace(pc.fill_null(batch.column("text"), ""))
        filled.append(pc.not_equal(trimmed, "").to_numpy(zero_copy_only=False))
    keep = np.flatnonzero(np.concatenate(filled))
    if len(keep) == 0:
        raise DataError(f"{split.origin}: every text in column {column!r} is empty; set data.text")
    dropped = len(rows) - len(keep)
    if dropped:
        rows = rows.select(keep)
    return Examples(
        name=split.name,
        texts=rows,
        text_column=column,
        labels=class_indices(labels, reading)[keep],
        ids=row_ids(split.rows)[keep],
        dropped=dropped,
        origin=split.origin,
        fingerprint=split.fingerprint,
        skipped=split.skipped,
        reading=reading.said,
    )
