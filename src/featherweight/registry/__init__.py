"""Lazy name tables: what exists is known without importing it.

A built-in is one line, ``"lora": "featherweight.methods.lora:LoRA"``; a third party adds one through an entry point
in the group named after the table. Looking a name up imports its module and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from featherweight.errors import ConfigError
from featherweight.registry import elsewhere


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string."""
    names = list(known)
    close = look_alike(name, names) or next(iter(difflib.get_close_matches(name, names, n=1)), None)
    return f" (did you mean {close!r}?)" if close else ""


def look_alike(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs only in case, or in white space around it."""
    return next((one for one in known if one.strip().casefold() == name.strip().casefold()), None)


class _Deferred:
    def __init__(self, target: str) -> None:
        self._target = target

    def __get__(self, instance: object, owner: type) -> Any:
        return _imported(self._target)


def deferred(target: str) -> Any:
    """A class's attribute that is imported where it is asked for: ``"module:attribute"``."""
    return _Deferred(target)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


class Registry(Mapping[str, Any]):
    """Names of one kind of component, mapped to what implements them.

    Args:
        kind: what an entry is, for messages ("method").
        group: the entry-point group that third parties register in.
        builtin: name to ``"module:attribute"``.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)

    @cached_property
    def _targets(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=self.group)} | self._builtin

    def for_kind(self, own: Sequence[str], kind: str) -> list[str]:
        """The names that a kind of answer has of its own, and those that third parties registered for it: such a
        component says with ``answers`` which kinds it is for."""
        others = (name for name in self._targets if name not in self._builtin and name not in own)
        return [*own, *(name for name in others if kind in getattr(self[name], "answers", ()))]

    def __contains__(self, name: object) -> bool:
        """Without importing anything."""
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, name: str) -> Any:
        """Import and return the component.

        Raises:
            ConfigError: no component has that name; the message lists those that exist.
        """
        self.require(name)
        return _imported(self._targets[name])

    def require(self, name: str) -> None:
        """Without importing anything. Raises ConfigError as above."""
        if name not in self._targets:
            known = ", ".join(sorted(self._targets))
            if advice := elsewhere.value(self.kind, name):
                raise ConfigError(f"{name!r} {advice}; known: {known}")
            raise ConfigError(f"no {self.kind} is named {name!r}{did_you_mean(name, self._targets)}; known: {known}")


DEFAULT_TASK = (
    "sequence-classification"  # of a recipe that names none, and of what was written while there was no other
)

TASKS = Registry(
    "task",
    "featherweight.tasks",
    {
        DEFAULT_TASK: "featherweight.tasks.sequence_classification:SequenceClassification",
        "multi-label-classification": "featherweight.tasks.multi_label_classification:MultiLabelClassification",
        "regression": "featherweight.tasks.regression:Regression",
        "token-classification": "featherweight.tasks.token_classification:TokenClassification",
        "causal-lm": "featherweight.tasks.causal_lm:CausalLM",
        "seq2seq-lm": "featherweight.tasks.seq2seq_lm:Seq2SeqLM",
        "preference": "featherweight.tasks.preference:PreferenceLearning",
    },
)

METHODS = Registry(
    "method",
    "featherweight.methods",
    {
        "lora": "featherweight.methods.lora:LoRA",
        "linear-probe": "featherweight.methods.linear_probe:LinearProbe",
        "full": "featherweight.methods.full:Full",
        "adalora": "featherweight.methods.peft.tuners:AdaLoRA",
        "adamss": "featherweight.methods.peft.tuners:AdaMSS",
        "beft": "featherweight.methods.peft.tuners:BEFT",
        "boft": "featherweight.methods.peft.tuners:BOFT",
        "c3a": "featherweight.methods.peft.tuners:C3A",
        "deft": "featherweight.methods.peft.tuners:DEFT",
        "delora": "featherweight.methods.peft.tuners:DeLoRA",
        "fourierft": "featherweight.methods.peft.tuners:FourierFT",
        "frod": "featherweight.methods.peft.tuners:FRoD",
        "glora": "featherweight.methods.peft.tuners:GLoRA",
        "gralora": "featherweight.methods.peft.tuners:GraLoRA",
        "hira": "featherweight.methods.peft.tuners:HiRA",
        "hra": "featherweight.methods.peft.tuners:HRA",
        "ia3": "featherweight.methods.peft.tuners:IA3",
        "ln-tuning": "featherweight.methods.peft.tuners:LNTuning",
        "loha": "featherweight.methods.peft.tuners:LoHa",
        "lokr": "featherweight.methods.peft.tuners:LoKr",
        "miss": "featherweight.methods.peft.tuners:MiSS",
        "oft": "featherweight.methods.peft.tuners:OFT",
        "osf": "featherweight.methods.peft.tuners:OSF",
        "p-tuning": "featherweight.methods.peft.tuners:PTuning",
        "peanut": "featherweight.methods.peft.tuners:PEANuT",
        "prompt-tuning": "featherweight.methods.peft.tuners:PromptTuning",
        "psoft": "featherweight.methods.peft.tuners:PSOFT",
        "pvera": "featherweight.methods.peft.tuners:PVeRA",
        "randlora": "featherweight.methods.peft.tuners:RandLoRA",
        "road": "featherweight.methods.peft.tuners:RoAd",
        "shira": "featherweight.methods.peft.tuners:ShiRA",
        "supertuning": "featherweight.methods.peft.tuners:SuperTuning",
        "tinylora": "featherweight.methods.peft.tuners:TinyLoRA",
        "unilora": "featherweight.methods.peft.tuners:UniLoRA",
        "vblora": "featherweight.methods.peft.tuners:VBLoRA",
        "vera": "featherweight.methods.peft.tuners:VeRA",
        "waveft": "featherweight.methods.peft.tuners:WaveFT",
    },
)

OPTIMIZERS = Registry(
    "optimizer",
    "featherweight.optimizers",
    {
        "adamw_torch": "featherweight.engine.training.optimizers:AdamW",
        "adamw_torch_fused": "featherweight.engine.training.optimizers:AdamW",
        "adafactor": "featherweight.engine.training.optimizers:Adafactor",
        "sgd": "featherweight.engine.training.optimizers:SGD",
    },
)

ANSWERS = Registry(
    "kind of answer",
    "featherweight.answers",
    {
        "label": "featherweight.answers.label:Label",
        "labels": "featherweight.answers.labels:LabelSets",
        "number": "featherweight.answers.number:Number",
        "tags": "featherweight.answers.tags:Tags",
        "plain-tags": "featherweight.answers.tags:PlainTags",
        "text": "featherweight.answers.text:Text",
        "preference": "featherweight.answers.preference:Preference",
    },
)

FORMATS = Registry(
    "data format",
    "featherweight.formats",
    {
        "csv": "featherweight.sources.formats.delimited:Csv",
        "tsv": "featherweight.sources.formats.delimited:Tsv",
        "jsonl": "featherweight.sources.formats.json_lines:JsonLines",
        "json": "featherweight.sources.formats.json_lines:Json",
        "parquet": "featherweight.sources.formats.parquet:Parquet",
        "arrow": "featherweight.sources.formats.arrow:Arrow",
        "xlsx": "featherweight.sources.formats.xlsx:Xlsx",
        "conll": "featherweight.sources.formats.conll:Conll",
    },
)

STATISTICS = Registry("statistic", "featherweight.statistics", {})  # third parties'; a kind of answer has its own

BASELINES = Registry(
    "baseline",
    "featherweight.baselines",
    {
        "majority": "featherweight.evidence.baselines.labels:Majority",
        "tfidf-logistic-regression": "featherweight.evidence.baselines.labels:TfidfLogisticRegression",
        "linear-probe": "featherweight.evidence.baselines.labels:LinearProbe",
        "prototype": "featherweight.evidence.baselines.labels:Prototype",
        "label-shares": "featherweight.evidence.baselines.label_sets:LabelShares",
        "tfidf-one-vs-rest": "featherweight.evidence.baselines.label_sets:TfidfOneVsRest",
        "one-vs-rest-probe": "featherweight.evidence.baselines.label_sets:OneVsRestProbe",
        "mean": "featherweight.evidence.baselines.numbers:Mean",
        "tfidf-ridge": "featherweight.evidence.baselines.numbers:TfidfRidge",
        "ridge-probe": "featherweight.evidence.baselines.numbers:RidgeProbe",
        "cosine": "featherweight.evidence.baselines.numbers:Cosine",
        "commonest-tag": "featherweight.evidence.baselines.tags:CommonestTag",
        "token-probe": "featherweight.evidence.baselines.tags:TokenProbe",
        "unigram": "featherweight.evidence.baselines.texts:Unigram",
        "few-shot": "featherweight.evidence.baselines.texts:FewShot",
        "longer-answer": "featherweight.evidence.baselines.pairs:LongerAnswer",
    },
)

CHECKS = Registry(
    "check of data",
    "featherweight.checks",
    {
        "one-sided": "featherweight.evidence.data.one_sided:OneSided",
        "unknown-labels": "featherweight.evidence.data.unknown_labels:UnknownLabels",
        "twins": "featherweight.evidence.data.twins:Twins",
        "shared-groups": "featherweight.evidence.data.shared_groups:SharedGroups",
        "conflicting-labels": "featherweight.evidence.data.conflicts:ConflictingLabels",
        "unknown-tags": "featherweight.evidence.data.unknown_tags:UnknownTags",
        "conflicting-tags": "featherweight.evidence.data.conflicting_tags:ConflictingTags",
        "conflicting-numbers": "featherweight.evidence.data.conflicting_numbers:ConflictingNumbers",
        "completions": "featherweight.evidence.data.completions:Completions",
        "preferences": "featherweight.evidence.data.preferences:Preferences",
        "giveaways": "featherweight.evidence.data.giveaways:Giveaways",
        "suspected-label-errors": "featherweight.evidence.data.label_issues:SuspectedLabelErrors",
    },
)

EXHIBITS = Registry(
    "exhibit",
    "featherweight.exhibits",
    {
        "calibration": "featherweight.evidence.exhibits.calibration:Calibration",
        "decision-threshold": "featherweight.evidence.exhibits.decision_threshold:DecisionThreshold",
        "confusion": "featherweight.evidence.exhibits.confusion:Confusion",
        "where": "featherweight.evidence.exhibits.where:Where",
        "examples": "featherweight.evidence.exhibits.examples:Examples",
        "each-label": "featherweight.evidence.exhibits.each_label:EachLabel",
        "thresholds": "featherweight.evidence.exhibits.thresholds:Thresholds",
        "co-occurrence": "featherweight.evidence.exhibits.co_occurrence:CoOccurrence",
        "label-set-examples": "featherweight.evidence.exhibits.label_set_examples:LabelSetExamples",
        "residuals": "featherweight.evidence.exhibits.residuals:Residuals",
        "errors": "featherweight.evidence.exhibits.errors:Errors",
        "entity-errors": "featherweight.evidence.exhibits.entity_errors:EntityErrors",
        "marked-examples": "featherweight.evidence.exhibits.marked_examples:MarkedExamples",
        "completion-examples": "featherweight.evidence.exhibits.completion_examples:CompletionExamples",
        "written-answers": "featherweight.evidence.exhibits.written_answers:WrittenAnswers",
        "heeding": "featherweight.evidence.exhibits.heeding:Heeding",
        "forgetting": "featherweight.evidence.exhibits.forgetting:Forgetting",
        "preference-examples": "featherweight.evidence.exhibits.preference_examples:PreferenceExamples",
    },
)

EXPORTS = Registry(
    "export format",
    "featherweight.exports",
    {
        "adapter": "featherweight.export.adapter:Adapter",
        "merged": "featherweight.export.merged:Merged",
        "onnx": "featherweight.export.onnx:Onnx",
        "onnx-int8": "featherweight.export.onnx_int8:OnnxInt8",
    },
)

OBSERVERS = Registry(
    "observer",
    "featherweight.observers",
    {
        "tensorboard": "featherweight.tracking.trackers:TensorBoard",
        "mlflow": "featherweight.tracking.trackers:MLflow",
        "wandb": "featherweight.tracking.trackers:WandB",
        "trackio": "featherweight.tracking.trackers:Trackio",
        "comet_ml": "featherweight.tracking.trackers:Comet",
    },
)
