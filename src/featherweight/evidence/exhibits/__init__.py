"""Exhibits: one part of the evidence a file, how it is found and how it is shown. One line each in ``EXHIBITS``.

``find`` puts figures into ``metrics.json``; ``show`` turns what stands there into text, tables and plots as data; the
report, the terminal and the card loop over the exhibits that a kind of answer names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

from featherweight.answers import Answer, figures
from featherweight.answers.text import Text
from featherweight.evidence.fitting import halves
from featherweight.evidence.two_models import by_headline
from featherweight.recipe.sections import EvidenceSection
from featherweight.records.answers import Answers
from featherweight.records.parts import Brief, Part
from featherweight.records.rows import Examples, Ragged
from featherweight.registry import EXHIBITS

MODELS = ("base", "tuned")


@dataclass(frozen=True)
class Held:
    """Rows of another split than the reported one: both models' answers, and the truth."""

    base: Answers
    tuned: Answers
    truth: Any


@dataclass(frozen=True)
class Writing:
    """What was written to the prompts of some rows.

    Attributes:
        examples: the rows.
        truth: the replies that they have themselves.
        answers: by who wrote: the models and their rivals, the cheapest first.
        statistics: which of ``answers.written.QUALITY`` measure it, the headline first.
        pattern: takes the answer out of a text; None where none is asked for.
        in_train: by who wrote, and of ``truth``, which share of the texts stands in train to the word.
    """

    examples: Examples
    truth: Ragged
    answers: Mapping[str, Answers]
    statistics: Sequence[str]
    pattern: str | None
    in_train: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """What the evidence on one run's tuned model is found in.

    Attributes:
        kind: of the answers.
        examples: the rows that were measured.
        base: the untuned model's answers; ``tuned`` the tuned model's.
        fitting: rows of another split to fit on; a half of these rows if None.
        slice_columns: of ``examples``.
        keywords: words, each a slice of the rows that hold it.
        group_column: rows with the same value are not independent.
        asked: what the recipe asks of what is fitted.
        writing: what was written, where that was asked for.
        beside: texts beside what the model was tuned for, as both models continue them.
        swapped: replies behind another row's prompt and behind their own, both as the tuned model gives them.
    """

    kind: Answer
    examples: Examples
    base: Answers
    tuned: Answers
    seed: int
    fitting: Held | None = None
    slice_columns: Sequence[str] = ()
    keywords: Sequence[str] = ()
    group_column: str | None = None
    asked: EvidenceSection | None = None
    writing: Writing | None = None
    beside: Held | None = None
    swapped: Held | None = None

    @property
    def truth(self) -> Any:
        return self.examples.truth

    @property
    def pair(self) -> tuple[Answers, Answers]:
        return self.base, self.tuned

    @cached_property
    def groups(self) -> list[str | None] | None:
        return self.examples.groups(self.group_column)

    @cached_property
    def fitted(self) -> dict[str, dict[str, Any]]:
        """What the kind fits to each model's answers on rows that it is not reported on."""
        if self.fitting is None:
            half = self.truth, self.seed, self.groups, self.asked
            return {model: fit_on_half(self.kind, one, *half) for model, one in zip(MODELS, self.pair, strict=True)}
        held = self.fitting
        return {
            model: self.kind.fit((known, held.truth), (one, self.truth), self.asked)
            for model, known, one in zip(MODELS, (held.base, held.tuned), self.pair, strict=True)
        }


def of_texts(held: Held, names: tuple[str, str], seed: int) -> dict[str, Any]:
    """How likely texts are in two ways, whatever the model was tuned for: the figures of each by its name, and
    ``comparison``, the two in pairs."""
    kind, pair = Text(), (held.base, held.tuned)
    found = {name: figures(kind, one, held.truth) for name, one in zip(names, pair, strict=True)}
    return {**found, "comparison": by_headline(kind, pair, held.truth, seed=seed)}


def fit_on_half(
    kind: Answer,
    answers: Answers,
    truth: Any,
    seed: int,
    groups: Sequence[str | None] | None = None,
    asked: EvidenceSection | None = None,
) -> dict[str, Any]:
    """Fit on a seeded half of the rows and report on the other. One row or one group can't be divided: the first half
    is empty then."""
    first, second = halves(len(answers), seed, groups)
    return kind.fit((answers.select(first), truth[first]), (answers.select(second), truth[second]), asked)


def exhibits_of(kind: Answer | type[Answer]) -> list[Exhibit]:
    """A kind's own exhibits, and those that third parties registered for it."""
    return [EXHIBITS[name]() for name in EXHIBITS.for_kind(kind.exhibits, kind.name)]


class Exhibit(Protocol):
    """One part of the evidence.

    Attributes:
        title: over its section of the report.
    """

    title: ClassVar[str]

    def find(self, case: Case) -> Mapping[str, Any]:
        """Keys of ``metrics.json``; a table under a key is laid over what other exhibits have there."""
        ...

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        """The section of the report; none where it is empty."""
        ...

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        """What the terminal has of it after a run."""
        ...

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        """What the model card says of it; empty for nothing."""
        ...
