"""The ``[data]`` section of each built-in task: what is common, and keys of its own.

Apart from the tasks, which answer where pydantic is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from featherweight.recipe import DataSection
from featherweight.recipe.sections import Usual
from featherweight.recipe.values import ColumnName, PositiveInt
from featherweight.records.cutting import Cutting, LongTexts, Pool

_PAIRS = (  # as the hub's data sets have them: NLI, GLUE, STS, SICK
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("sentence_A", "sentence_B"),
    ("question", "sentence"),
)
_TEXTS = (("text", "text_pair"), "text", *_PAIRS)


class WholeTexts(DataSection):
    """Texts that are answered as wholes, whatever their length."""

    long_texts: LongTexts = Field(
        "cut",
        description="of texts beyond max_length: cut keeps one side, head-tail the first quarter and the end, stride "
        "all of it, as windows whose answers are pooled",
    )
    stride: Annotated[int, Field(ge=0)] | None = Field(
        None, description="of long_texts = 'stride': tokens that windows share; an eighth of max_length if unset"
    )
    pool: Pool | None = Field(
        None, description="of long_texts = 'stride': how windows' outputs become the text's; mean if unset"
    )

    @model_validator(mode="after")
    def _one_text(self) -> WholeTexts:
        if self.long_texts == "stride" and len(self.texts) > 1:
            raise ValueError("'long_texts' = 'stride' is for single texts; a pair can be cut, or 'head-tail'")
        if self.long_texts != "stride" and (self.stride is not None or self.pool is not None):
            raise ValueError("'stride' and 'pool' are for long_texts = 'stride'")
        return self

    def cutting(self, max_length: int) -> Cutting:
        shared = max_length // 8 if self.stride is None else self.stride
        return Cutting(max_length, self.long_texts, shared, self.pool or "mean")


class LabelColumns(WholeTexts):
    """The labelled texts: either ``name`` or ``train_file`` and its siblings."""

    usual: ClassVar[Usual] = (
        *((texts, "label") for texts in _TEXTS),
        (("question1", "question2"), "is_duplicate"),
        (("sentence_A", "sentence_B"), "entailment_label"),
    )
    label: ColumnName = Field("label", description="column that holds the label; known names are found")
    labels: list[str] | None = Field(
        None,
        description="label names, in the order of the model's outputs; where none of them is an integer, labels may be "
        "integers that count from 0",
        min_length=2,
    )

    @model_validator(mode="after")
    def _each_label_once(self) -> LabelColumns:
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("'labels' names one label twice")
        return self


class LabelSetColumns(LabelColumns):
    """Texts with any number of labels each: either ``name`` or ``train_file`` and its siblings."""

    lists: ClassVar[frozenset[str]] = frozenset({"label"})
    usual: ClassVar[Usual] = tuple((texts, label) for texts in _TEXTS for label in ("labels", "label", "intents"))
    label: ColumnName = Field("labels", description="column that holds each row's labels; known names are found")
    label_separator: str | None = Field(
        None, description="what stands between labels where a text holds several, such as ','", min_length=1
    )
    labels_columns: list[ColumnName] | None = Field(
        None, description="columns of 0 and 1 that are named after a label each, instead of data.label", min_length=2
    )

    missing_labels: Literal["refuse", "empty"] = Field(
        "refuse", description="empty: a row in which no labels are given has none of them"
    )

    @property
    def truths(self) -> Mapping[str, str]:
        return dict.fromkeys(self.labels_columns, "labels_columns") if self.labels_columns else super().truths

    @model_validator(mode="after")
    def _one_form(self) -> LabelSetColumns:
        if self.labels_columns is None:
            return self
        if "label" in self.model_fields_set or self.label_separator is not None:
            raise ValueError("give either 'label' or 'labels_columns', not both")
        if len(set(self.labels_columns)) < len(self.labels_columns):
            raise ValueError("'labels_columns' names one column twice")
        if self.labels is not None and set(self.labels) != set(self.labels_columns):
            raise ValueError("'labels' has other names than 'labels_columns'; leave it out")
        return self


class NumberColumns(WholeTexts):
    """Texts with a number each: either ``name`` or ``train_file`` and its siblings."""

    numeric: ClassVar[bool] = True
    usual: ClassVar[Usual] = (
        *((texts, label) for texts in _TEXTS for label in ("label", "score", "similarity_score")),
        (("sentence_A", "sentence_B"), "relatedness_score"),
    )
    label: ColumnName = Field("label", description="column that holds the number; known names are found")


class TagColumns(DataSection):
    """Words with a tag each, or texts with entities: either ``name`` or ``train_file`` and its siblings."""

    lists: ClassVar[frozenset[str]] = frozenset({"text", "label"})
    usual: ClassVar[Usual] = (
        ("tokens", "ner_tags"),
        ("tokens", "tags"),
        ("tokens", "pos_tags"),
        ("words", "tags"),
        ("text", "entities"),
        ("text", "spans"),
        ("text", "label"),
    )
    text: ColumnName = Field("tokens", description="column that holds the words, or the text; known names are found")
    label: ColumnName = Field(
        "ner_tags", description="column that holds the words' tags, or entities by their characters; likewise"
    )
    labels: list[str] | None = Field(
        None, description="every tag, in IOB2 where they make up entities; those of the data if unset", min_length=1
    )

    @model_validator(mode="after")
    def _each_tag_once(self) -> TagColumns:
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("'labels' names one tag twice")
        return self


class DialogueColumns(DataSection):
    """What is continued: prompts and completions, messages, or texts; either ``name`` or ``train_file`` and its
    siblings."""

    lists: ClassVar[frozenset[str]] = frozenset({"text", "label"})
    usual: ClassVar[Usual] = (
        ("prompt", "completion"),
        ("messages", "messages"),
        ("conversations", "conversations"),
        ("instruction", "output"),
        ("text", "text"),
    )
    longest: ClassVar[int] = 1024  # TRL's
    text: ColumnName = Field(
        "prompt", description="column that holds the prompt, or the messages; known names are found"
    )
    label: ColumnName = Field(
        "completion", description="column that holds the completion; that of the messages, or of a text, itself"
    )
    completion_only_loss: bool = Field(True, description="learn the completion alone, and not its prompt")
    assistant_only_loss: bool = Field(
        True, description="of messages learn what the assistant says alone, and not what everybody says"
    )
    chat: bool = Field(
        False, description="take prompts and completions that are texts as a user's message and the assistant's"
    )
    chat_template: str | None = Field(
        None, description="how messages become a text, in Jinja; the model's own template if unset", min_length=1
    )


def _by_both_names(schema: dict[str, Any]) -> None:
    schema["properties"]["max_source_length"] = schema["properties"]["max_length"]


class ReplyColumns(DataSection):
    """Texts and what is written in reply to each, such as its summary or translation: either ``name`` or ``train_file``
    and its siblings."""

    model_config = ConfigDict(json_schema_extra=_by_both_names)
    usual: ClassVar[Usual] = (
        ("document", "summary"),
        ("article", "highlights"),
        ("article", "summary"),
        ("dialogue", "summary"),
        ("text", "summary"),
        ("source", "target"),
        ("input", "target"),
        ("input", "output"),
        ("question", "answer"),
        ("prompt", "completion"),
        ("translation", "translation"),
    )
    longest: ClassVar[int] = 1024  # that of transformers' scripts
    text: ColumnName = Field("text", description="column that holds the text; known names are found")
    label: ColumnName = Field(
        "summary",
        description="column that holds what is written in reply to it; the same, where one column holds a text in each "
        "language",
    )
    max_length: PositiveInt | None = Field(
        None,
        validation_alias=AliasChoices("max_length", "max_source_length"),
        description="texts are cut after so many tokens; max_source_length means the same",
    )
    max_target_length: PositiveInt | None = Field(
        None, description="what is written in reply is cut after so many tokens; 128, or what the model's decoder holds"
    )
    source_prefix: str = Field("", description="put before every text, such as 'summarize: '")
    source_lang: str | None = Field(
        None, description="language of the texts, by the tokenizer's code where it knows several", min_length=1
    )
    target_lang: str | None = Field(None, description="language of what is written in reply, likewise", min_length=1)

    @property
    def lists(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"text", "label"}) if self.text == self.label else frozenset()

    @model_validator(mode="after")
    def _both_languages(self) -> ReplyColumns:
        if (self.source_lang is None) != (self.target_lang is None):
            raise ValueError("'source_lang' and 'target_lang' go together")
        return self

    def cutting(self, max_length: int) -> Cutting:
        return Cutting(max_length, max_target_length=self.max_target_length)


class PreferenceColumns(DataSection):
    """Prompts with two answers each, of which one is the better; either ``name`` or ``train_file`` and its siblings."""

    lists: ClassVar[frozenset[str]] = frozenset({"text", "label"})
    usual: ClassVar[Usual] = (
        ("prompt", "chosen"),
        ("question", "chosen"),
        ("instruction", "chosen"),
        ("input", "chosen"),
        ("chosen", "chosen"),
    )
    longest: ClassVar[int] = 1024  # TRL's
    text: ColumnName = Field(
        "prompt",
        description="column that holds the prompt, or the messages; known names are found. That of the chosen answers "
        "where both answers begin with the prompt",
    )
    label: ColumnName = Field("chosen", description="column that holds the better answer")
    rejected: ColumnName = Field("rejected", description="column that holds the worse answer")
    chat: bool = Field(
        False, description="take prompts and answers that are texts as a user's message and the assistant's"
    )
    chat_template: str | None = Field(
        None, description="how messages become a text, in Jinja; the model's own template if unset", min_length=1
    )

    @property
    def truths(self) -> Mapping[str, str]:
        return {self.label: "label", self.rejected: "rejected"}

    @model_validator(mode="after")
    def _two_answers(self) -> PreferenceColumns:
        if self.rejected in (self.label, self.text):
            raise ValueError("'rejected' names the column of the prompt or of the better answer")
        return self
