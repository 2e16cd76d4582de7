"""The sections of a recipe: every key, with its type, its default and what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from featherweight.errors import ConfigError
from featherweight.recipe.schedules import Polynomial, Schedule, schedule_of
from featherweight.recipe.section import Section
from featherweight.recipe.sweeping import SweepSection
from featherweight.recipe.values import (
    ColumnName,
    Delimiter,
    Duration,
    Encoding,
    Files,
    Names,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Revision,
    Texts,
    require_aim,
)
from featherweight.records.cutting import LONGEST, Cutting
from featherweight.records.holding import Dtype, Quantization
from featherweight.records.questions import MAX_NEW_TOKENS
from featherweight.registry import BASELINES, DEFAULT_TASK, OBSERVERS, OPTIMIZERS, did_you_mean
from featherweight.storage.names import problem

PACKAGE_PREFIX = "package:"
FILE_KEYS = ("train_file", "validation_file", "test_file")
DEFAULT_METHOD = "lora"
ADAMW = ("adamw_torch", "adamw_torch_fused")  # two names of one optimizer
LONGEST_NAME = 64
_FILES = (
    "CSV, TSV, JSON, JSONL, Parquet, Arrow or Excel file, also within a zip file, a pattern, or a list; text files "
    "may be gzipped"
)


# Text and label columns, in the order in which they are looked for.
Usual: TypeAlias = tuple[tuple[str | tuple[str, str], str], ...]


class ModelSection(Section):
    """The foundation model."""

    name: str = Field(description="hub id, folder, .gguf file, or package:NAME/PATH", min_length=1)
    revision: Revision | None = Field(None, description="branch, tag or commit of a hub model")
    adapter: str | None = Field(
        None,
        description="run or adapter of this model to go on from: it is measured as it is, and trained further",
        min_length=1,
    )
    dtype: Dtype = Field(
        "float32",
        description="in which the frozen weights are held, half the memory in bfloat16; products stay in fp32. auto: "
        "bfloat16 where the model's file has it, which changes no answer",
    )
    quantization: Quantization | None = Field(
        None, description="hold the frozen linear layers in 4 or 8 bits, by bitsandbytes; the head stays as it is"
    )
    head: Literal["auto", "new", "probe"] = Field(
        "auto",
        description="auto: keep a trained head whose labels are the data's, by name; new: always start afresh, at "
        "random; probe: afresh, from a linear probe",
    )

    @property
    def holding(self) -> dict[str, str]:
        """How the frozen weights are held, by these keys; empty where they are as usual, in fp32."""
        held = {"dtype": self.dtype, "quantization": self.quantization or ""}
        return {key: value for key, value in held.items() if value not in ("float32", "")}


class DataSection(Section):
    """The rows: either ``name`` or ``train_file`` and its siblings. Each task adds keys of its own.

    Attributes:
        lists: the keys of columns whose cells may be lists; they are read as JSON.
        numeric: whether the label is a number, so that whole ones and others are of one kind.
        usual: text and label columns that are looked for, in this order, where the section leaves them open.
        longest: tokens of a row where ``max_length`` is open and the model can hold as many.
    """

    lists: ClassVar[frozenset[str]] = frozenset()
    numeric: ClassVar[bool] = False
    usual: ClassVar[Usual] = ()
    longest: ClassVar[int] = LONGEST

    name: str | None = Field(None, description="hub id, folder, zip file, or package:NAME/PATH", min_length=1)
    config: str | None = Field(None, description="configuration of a hub data set", min_length=1)
    revision: Revision | None = Field(None, description="branch, tag or commit of a hub data set")
    train_file: Files | None = Field(None, description=_FILES)
    validation_file: Files | None = Field(None, description=_FILES)
    test_file: Files | None = Field(None, description=_FILES)
    mix: dict[str, PositiveFloat] | None = Field(
        None,
        description="instead of train_file, files with the share that each has of train, such as { 'a.jsonl' = 3, "
        "'b.jsonl' = 1 }: as many rows as there are for these shares, drawn by split_seed, none of them twice",
        min_length=2,
    )
    text: Texts = Field(
        "text", description="column that holds the text, or a list of two that hold pairs; known names are found"
    )
    label: ColumnName = Field("label", description="column that holds the truth about the text")
    slices: list[ColumnName] = Field([], description="columns whose values the evidence looks at one by one")
    keywords: list[str] = Field([], description="words; the evidence looks at the rows that hold each of them")
    group: ColumnName | None = Field(
        None,
        description="column whose equal values mark rows that are not independent, such as one document's; splits and "
        "samples are drawn by whole groups",
    )
    allow_leak: bool = Field(False, description="measure on rows that stand in train; the report says so")
    encoding: Encoding = Field("utf-8", description="how the bytes of text files are read, such as cp1252 or utf-16")
    delimiter: Delimiter | None = Field(
        None, description="what separates the fields of CSV and TSV, such as ';', '|' or tab; found out if unset"
    )
    skip_bad_rows: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of a file's rows that may be left out because they can't be read; 0 refuses the first"
    )
    filter: dict[ColumnName, str] = Field(
        {}, description="keep only the rows where each of these columns has this value"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of train to hold out, stratified and seeded, where there is no validation split"
    )
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="share of train to hold out besides, where there is no labelled test split: what a run reports is "
        "then measured on rows that chose nothing",
    )
    drop_train_twins: bool = Field(
        False,
        description="leave out the train rows whose text, but for case, white space and punctuation, also stands in a "
        "held-out split",
    )
    drop_suspects: bool = Field(
        False,
        description="leave out the train rows whose label is suspected to be wrong, and list them in suspects.jsonl",
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        42,
        description="chooses the rows that are measured, whatever training.seed is, so that seeds can be compared",
    )
    max_length: PositiveInt | None = Field(None, description="texts are cut after so many tokens")
    max_train_samples: PositiveInt | None = Field(None, description="train on a seeded sample of so many rows")
    max_eval_samples: PositiveInt | None = Field(None, description="evaluate on a seeded sample of so many rows")

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        files = [key for key in (*FILE_KEYS, "mix") if getattr(self, key) is not None]
        if self.train_file is not None and self.mix is not None:
            raise ValueError("give either 'train_file' or 'mix', not both")
        if self.name is None and not files:
            raise ValueError("give 'name' (hub id, folder or package file) or 'train_file'")
        if self.name is not None and files:
            raise ValueError(f"give either 'name' or '{files[0]}', not both")
        if {*self.texts} & {*self.slices, self.group}:
            raise ValueError("'slices' and 'group' name columns beside the text")
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("'text' names one column twice")
        if self.validation_fraction + (self.test_fraction or 0) >= 1:
            raise ValueError("'validation_fraction' and 'test_fraction' leave no row to train on")
        if any(not word.strip() for word in self.keywords):
            raise ValueError("'keywords' holds an empty word")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """The column of the texts, or the two columns of their pairs."""
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    @property
    def held_out_files(self) -> bool:
        """Whether rows are held out in files of their own."""
        return self.validation_file is not None or self.test_file is not None

    @property
    def truths(self) -> Mapping[str, str]:
        """The columns that hold the truth, each with the key that names it."""
        return {self.label: "label"}

    def cutting(self, max_length: int) -> Cutting:
        """What becomes of texts that are longer than so many tokens."""
        return Cutting(max_length)

    @property
    def sources(self) -> list[str]:
        """Where the data come from: the data set's name, or the files of train."""
        named = self.name or self.train_file or [*(self.mix or ())]
        return [named] if isinstance(named, str) else named


class TrainingSection(Section):
    """``TrainingArguments``' names and meanings."""

    learning_rate: PositiveFloat | None = Field(None, description="peak learning rate; chosen by the method if unset")
    head_learning_rate: PositiveFloat | None = Field(
        None, description="peak learning rate of the head; learning_rate if unset"
    )
    per_device_train_batch_size: PositiveInt = 32
    per_device_eval_batch_size: PositiveInt = 32
    gradient_accumulation_steps: PositiveInt = 1
    num_train_epochs: PositiveFloat = 3.0
    max_steps: int = Field(-1, description="optimizer steps; overrides num_train_epochs where positive")
    time_limit: Duration | None = Field(
        None,
        description="such as '10 min': as many steps are made as end by then with their evaluations, from the measured "
        "time of a few",
    )
    optim: str = Field(
        ADAMW[0], description="adamw_torch (adamw_torch_fused is the same), adafactor or sgd, as the Trainer's"
    )
    loraplus_lr_ratio: Annotated[float, Field(ge=1)] | None = Field(
        None, description="LoRA+: the B matrices train at so many times learning_rate; with any optimizer"
    )
    weight_decay: NonNegativeFloat = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: PositiveFloat = 1e-8
    loss: str | None = Field(
        None,
        description="what training lowers: focal where there are classes, huber for numbers; the task's own if unset",
    )
    focal_gamma: NonNegativeFloat = Field(
        2.0, description="of loss = 'focal': how little what is sure and right counts"
    )
    class_weights: Literal["auto"] | dict[str, PositiveFloat] | None = Field(
        None, description="what a row of each class counts: auto lets every class weigh the same; 1 where none is named"
    )
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of each label that is spread over all classes"
    )
    max_grad_norm: NonNegativeFloat = Field(1.0, description="gradient clipping; 0 turns it off")
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
        "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
    ] = "linear"  # fmt: skip
    lr_scheduler_kwargs: dict[str, Any] | None = Field(
        None, validate_default=True, description="what else the schedule takes, such as { num_cycles = 2 }"
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="overrides warmup_ratio where positive")
    eval_strategy: Literal["epoch", "steps"] = "epoch"
    eval_steps: PositiveInt = 500
    save_strategy: Literal["epoch", "steps"] = "epoch"
    save_steps: PositiveInt = 500
    save_total_limit: PositiveInt = Field(2, description="checkpoints kept besides the best one")
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = Field(
        None,
        description="loss, or any statistic of the task's answers, also by scikit-learn's name; chosen by the task if "
        "unset",
    )
    greater_is_better: bool | None = Field(
        None, description="false where the metric is a loss or an error, else true, if unset"
    )
    early_stopping_patience: PositiveInt | None = Field(
        None, description="evaluations in a row without improvement after which training ends; never if unset"
    )
    early_stopping_threshold: NonNegativeFloat | None = Field(
        None, description="by how much the metric has to be better to count as improvement; 0 if unset"
    )
    logging_steps: PositiveInt = 10
    max_skipped_steps: Annotated[int, Field(ge=0)] = Field(
        3, description="steps whose loss or gradient is not finite that are left out before the run ends as diverged"
    )
    train_sampling_strategy: Literal["random", "group_by_length"] = Field(
        "random", description="group_by_length: batches of like length, so that less is padding"
    )
    trunk_cache: Literal["off", "fp32", "fp16"] = Field(
        "off", description="run the frozen blocks below the lowest adapted one once and keep their output on disk"
    )
    report_to: Names = Field(
        [],
        description="who is told how the run goes: tensorboard, mlflow, wandb, trackio, comet_ml, or a name that an "
        "installed package registers; one or a list",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    gradient_checkpointing: bool = Field(
        False, description="compute each block again in the backward pass: less memory, and a third more work"
    )
    fsdp: bool = Field(
        False,
        description="each of several processes keeps a part of every frozen weight, for a base that does not fit one "
        "device",
    )
    bf16: bool | Literal["auto"] = Field(
        False,
        description="round what products multiply to bf16, in training and its evaluations; sums stay in fp32; auto: "
        "where this processor gains by it and the model answers the validation rows no worse, and no figure of the "
        "report is rounded",
    )
    fp16: bool = False

    @field_validator("optim")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            OPTIMIZERS.require(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("report_to")
    @classmethod
    def _known_observers(cls, names: list[str]) -> list[str]:
        try:
            for name in names:
                OBSERVERS.require(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return list(dict.fromkeys(names))

    @field_validator("lr_scheduler_kwargs")
    @classmethod
    def _taken_by_the_schedule(cls, given: dict[str, Any] | None, section: ValidationInfo) -> dict[str, Any] | None:
        if name := section.data.get("lr_scheduler_type"):
            schedule_of(name, given)
        return given

    @model_validator(mode="after")
    def _agrees(self) -> TrainingSection:
        if self.bf16 and self.fp16:
            raise ValueError("set 'bf16' or 'fp16', not both")
        schedule, rate = self.schedule, self.learning_rate
        if isinstance(schedule, Polynomial) and rate is not None and schedule.lr_end >= rate:
            raise ValueError("'lr_scheduler_kwargs': 'lr_end' has to be below 'learning_rate'")
        if rate is None and (self.optim not in ADAMW or self.loraplus_lr_ratio is not None):
            raise ValueError("set 'learning_rate': those that are chosen are for AdamW without LoRA+")
        return self

    @property
    def schedule(self) -> Schedule:
        """What ``lr_scheduler_type`` and ``lr_scheduler_kwargs`` say."""
        return schedule_of(self.lr_scheduler_type, self.lr_scheduler_kwargs)


Share = Annotated[float, Field(gt=0, le=1)]


class AtPrecision(Section):
    precision: Share = Field(description="so many of the positive answers are right; the most are found that can be")


class AtRecall(Section):
    recall: Share = Field(description="so many of the positive rows are found; as precisely as can be")


class Costs(Section):
    """What an error costs, in any unit."""

    false_positive: PositiveFloat
    false_negative: PositiveFloat


class AtCost(Section):
    cost: Costs = Field(description="what errors cost is least in all")


class EvidenceSection(Section):
    """What the tuned model is measured against, and what is chosen on rows that it was not tuned on."""

    baselines: list[str] | None = Field(
        None, description="the cheap rivals that are fitted, by name; all that are known if unset, none if empty"
    )
    decision_threshold: Annotated[
        Literal["f1"] | AtPrecision | AtRecall | AtCost | None, BeforeValidator(require_aim)
    ] = Field(
        None,
        description="of two labels, from which probability on the positive one is answered: chosen on validation by "
        "F1, a precision, a recall or what errors cost, and proven on other rows",
    )
    pos_label: str | None = Field(None, description="the positive one of two labels; the rarer one of train if unset")

    @model_validator(mode="after")
    def _asked_for(self) -> EvidenceSection:
        if self.pos_label is not None and self.decision_threshold is None:
            raise ValueError("'pos_label' is the label that 'decision_threshold' is for; set that too")
        return self

    @model_validator(mode="after")
    def _known_once(self) -> EvidenceSection:
        names = self.baselines or []
        if unknown := [name for name in names if name not in set(BASELINES)]:
            raise ValueError(
                f"'baselines': no baseline is named {unknown[0]!r}{did_you_mean(unknown[0], BASELINES)}; known: "
                f"{', '.join(sorted(BASELINES))}"
            )
        if len(set(names)) < len(names):
            raise ValueError("'baselines' names one baseline twice")
        return self


class EvaluationSection(Section):
    """How a model that writes text is measured beside the likelihood of what it should have written."""

    generate: bool = Field(
        False, description="let the models answer the evaluated prompts, greedily, and measure what they write"
    )
    max_new_tokens: PositiveInt = Field(MAX_NEW_TOKENS, description="of an answer, at most")
    num_beams: PositiveInt = Field(
        1,
        description="answers that are weighed side by side, as by transformers; 1 takes the likeliest token each time",
    )
    max_generate_samples: PositiveInt = Field(
        200, description="prompts that are answered: a sample, drawn by data.split_seed"
    )
    answer_pattern: str | None = Field(
        None,
        description="regular expression that takes the answer out of a text, such as '#### (\\S+)'; the last thing "
        "that it finds counts",
        min_length=1,
    )
    few_shot: PositiveInt = Field(3, description="examples of train in the prompt of the rival few-shot")
    forgetting_file: str | None = Field(
        None,
        description="text file, a blank line between texts, on which it is measured what tuning made the model forget; "
        "a page of general knowledge if unset",
        min_length=1,
    )

    @model_validator(mode="after")
    def _answers(self) -> EvaluationSection:
        if self.answer_pattern is None:
            return self
        if not self.generate:
            raise ValueError("'answer_pattern' is for answers that are written; set 'generate' = true too")
        try:
            re.compile(self.answer_pattern)
        except re.error as error:
            raise ValueError(f"'answer_pattern' is no regular expression: {error}") from None
        return self


class MethodOptions(Section):
    """Base of a method's own options; ``name`` picks the method."""

    name: str


class Recipe(Section):
    """A whole recipe."""

    name: str = Field(
        "run", description="names the run's folder", pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}$"
    )
    task: str = DEFAULT_TASK
    model: ModelSection
    data: SerializeAsAny[DataSection]
    method: SerializeAsAny[MethodOptions]
    training: SerializeAsAny[TrainingSection] = TrainingSection()
    evidence: EvidenceSection = EvidenceSection()
    evaluation: EvaluationSection = EvaluationSection()
    sweep: SweepSection | None = None

    @model_validator(mode="after")
    def _name_of_a_folder(self) -> Recipe:
        if found := problem(self.name):
            raise ValueError(f"'name': {self.name!r} {found}")
        return self
