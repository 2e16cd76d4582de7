"""Sequence classification: one label out of two or more for each text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featherweight.collector import importing_models
from featherweight.errors import ConfigError, DataError, ModelError
from featherweight.recipe import DataSection, ModelSection
from featherweight.records import Encoding, Examples, Rows, Split
from featherweight.sources import models
from featherweight.sources.cache import cached, key_of
from featherweight.sources.models import ModelSource
from featherweight.tasks import tokens
from featherweight.tasks.labels import (
    LabelColumn,
    Reading,
    class_indices,
    label_names,
    read_as,
    read_label_column,
    row_ids,
)
from featherweight.tasks.splits import carve, sample

if TYPE_CHECKING:
    import torch

_DEFAULT_MAX_LENGTH = 512


class SequenceClassification:
    """Single-label classification of one text.

    Args:
        labels: class names in the order of the model's outputs.
    """

    name: ClassVar[str] = "sequence-classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "balanced_accuracy", "matthews_correlation")
    metric_for_best_model: ClassVar[str] = "eval_loss"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

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
        architectures = getattr(config, "architectures", None) or [""]
        return str(architectures[0]).endswith("ForSequenceClassification")

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
        if tokenizer.pad_token is None:
            # The head finds the last token that is not padding, and attention never sees padding, so any token does.
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        base = models.load_config(source)
        order = self._head_order(base, source, section)
        names = [self.labels[index] for index in order]
        model, missing = models.load_model(
            source,
            self.auto_class,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            problem_type="single_label_classification",
            pad_token_id=tokenizer.pad_token_id,
            ignore_mismatched_sizes=section.head == "new",
        )
        head = _head_modules(model)
        fresh = sorted({name.rpartition(".")[0] for name in missing})
        if lost := [name for name in fresh if not any(_within(name, module) for module in [*head, "pooler"])]:
            raise ModelError(f"{source.name}: the checkpoint lacks the weights of {lost[0]!r}; it is incomplete")
        models.require_finite(model, source.name, apart_from=head)
        if section.head == "new":
            _initialise(model, head)
        self._reorder_head(model, order)
        model.config.id2label = dict(enumerate(self.labels))
        model.config.label2id = {name: index for index, name in enumerate(self.labels)}
        poolers = [name for name in fresh if not any(_within(name, module) for module in head)]
        return model, tokenizer, sorted({*head, *poolers})

    def mend_head(self, model: Any, head: Sequence[str]) -> list[str]:
        """Draw modules of the head afresh that hold NaN or infinity, or nothing but zeros; their names."""
        broken = [name for name in head if not _is_usable(model.get_submodule(name))]
        _initialise(model, broken)
        return broken

    def max_length(self, tokenizer: Any, model: Any, configured: int | None) -> tuple[int, str | None]:
        """Tokens after which texts are cut, and the reason where that was chosen here.

        Raises:
            ConfigError: more tokens than the model can hold.
            DataError: so few that no token of any text is left.
        """
        special = tokenizer.num_special_tokens_to_add(pair=False)
        if configured is not None and configured <= special:
            raise DataError(
                f"data.max_length: {configured} leaves no token of any text beside the model's {special} special "
                "ones; raise it"
            )
        limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
        limit = min((one for one in limits if one and one < 1_000_000), default=None)
        if configured is None:
            chosen = min(_DEFAULT_MAX_LENGTH, limit or _DEFAULT_MAX_LENGTH)
            return chosen, f"chosen automatically: {_DEFAULT_MAX_LENGTH}, or what the model can hold if that is less"
        if limit is not None and configured > limit:
            raise ConfigError(f"data.max_length: {configured} is more than the {limit} tokens that the model can hold")
        return configured, None

    def encode(self, examples: Examples, tokenizer: Any, max_length: int) -> Encoding:
        """Tokenise one split into the cache, memory-mapped from there; a split is tokenised once."""
        rows = hashlib.sha256(examples.ids.tobytes()).hexdigest()
        key = key_of(examples.fingerprint, rows, examples.text_column, _tokenizer_hash(tokenizer), max_length)
        folder = cached("encoded", key, lambda aside: tokens.write(examples.all_texts(), tokenizer, max_length, aside))
        offsets = np.load(folder / "offsets.npy")
        ids: Any = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r", shape=(int(offsets[-1]),))
        truncated, lost = np.load(folder / "truncated.npy")
        # What is saved beside the model cuts as the run did, also where the file is read without transformers.
        tokenizer.backend_tokenizer.enable_truncation(max_length, direction=tokenizer.truncation_side)
        return Encoding(ids, offsets, examples.labels, int(truncated), int(lost), key)

    def tokenise(self, texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
        """Token ids of each text, with the model's special tokens, cut at ``max_length``, never empty."""
        return tokens.encode(texts, tokenizer, max_length)[0]

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each row in nats; logits (rows, classes), labels (rows,), result (rows,) in fp32."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.float(), labels, reduction="none")

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Softmax over the classes; (rows, classes) in fp32."""
        return logits.float().softmax(dim=-1)

    def shares(self, examples: Examples) -> dict[str, float]:
        """Share of each label in a split."""
        counts = np.bincount(examples.labels, minlength=len(self.labels))
        return {name: float(count / len(examples)) for name, count in zip(self.labels, counts, strict=True)}

    def _head_order(self, config: Any, source: ModelSource, section: ModelSection) -> list[int]:
        """For each output of the stored head, which of the data's labels it is; identity for a fresh head."""
        identity = list(range(len(self.labels)))
        if section.head == "new" or not self.has_head(config):
            return identity
        stored = [str(config.id2label[index]) for index in range(len(config.id2label))]
        generic = all(name == f"LABEL_{index}" for index, name in enumerate(stored))
        if generic and len(stored) == len(self.labels):
            return identity
        wanted = [name.casefold() for name in self.labels]
        found = [name.casefold() for name in stored]
        if sorted(wanted) == sorted(found):
            return [wanted.index(name) for name in found]
        raise ConfigError(
            f"model.head: {source.name} has a trained head for {', '.join(map(repr, stored))}, the data has "
            f'{", ".join(map(repr, self.labels))}; set data.labels to the model\'s names, or model.head = "new"'
        )

    def _reorder_head(self, model: Any, order: list[int]) -> None:
        import torch

        if order == sorted(order):
            return
        rows = torch.tensor([order.index(index) for index in range(len(order))])
        for name in _head_modules(model):
            outputs = [
                layer
                for layer in model.get_submodule(name).modules()
                if isinstance(layer, torch.nn.Linear) and layer.out_features == len(order)
            ]
            for layer in outputs[-1:]:
                with torch.no_grad():
                    for parameter in layer.parameters():
                        parameter.copy_(parameter[rows].clone())


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


def _head_modules(model: Any) -> list[str]:
    """Names of the modules beside the encoder that hold parameters: the head, whatever an architecture calls it."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def _within(name: str, module: str) -> bool:
    return f".{module}." in f".{name}."


def _is_usable(module: Any) -> bool:
    values = list(module.parameters())
    return all(bool(value.isfinite().all()) for value in values) and any(bool(value.any()) for value in values)


def _initialise(model: Any, head: Sequence[str]) -> None:
    """Fresh linear layers, drawn as transformers draws them."""
    import torch

    deviation = getattr(model.config, "initializer_range", 0.02)
    for name in head:
        for layer in model.get_submodule(name).modules():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=deviation)
                if layer.bias is not None:
                    torch.nn.init.zeros_(layer.bias)


def _tokenizer_hash(tokenizer: Any) -> str:
    """Of all that decides token ids; the last call's truncation and padding, which it remembers, are not among it."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return key_of({key: value for key, value in content.items() if key not in {"truncation", "padding"}})
