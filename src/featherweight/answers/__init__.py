"""Kinds of answer. One file a kind, one line in the ``ANSWERS`` table; numpy alone at import.

A kind says what is kept of a row, which statistics measure it, how it is written down and read back, and what is fitted
on held-out rows and travels with a model. Whatever stands above the engine asks the kind, and never the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from featherweight.records.answers import Answers, Evaluation, Likeness
from featherweight.registry import ANSWERS, STATISTICS
from featherweight.statistics.additive import Statistic
from featherweight.statistics.proportions import CONFIDENCE, wilson

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from featherweight.recipe.sections import EvidenceSection
    from featherweight.records.parts import Brief
    from featherweight.records.questions import Question
    from featherweight.records.rows import Column

FIRST = "label"  # of files that were written while there was no other kind


@dataclass(frozen=True)
class Described:
    """How the truth of a split is described: a few figures, by name.

    Attributes:
        key: of ``metrics.json`` and of each split's checks.
        title: over the table of all splits.
        column: what a name is.
        form: how a figure is written.
        shares: whether the figures are shares of the whole, so that the rare ones can be added up.
    """

    key: str
    title: str
    column: str
    form: str
    shares: bool = True

    @property
    def names(self) -> str:
        """What they all are."""
        return self.column if self.column.endswith("s") else f"{self.column}s"


Check = tuple[Callable[[Any], bool], str]  # what a value must be, and how that is said


class Answer(Protocol):
    """A kind of answer, with what it has learned of the data (the names of its labels, ...).

    Attributes:
        name: in ``ANSWERS``.
        best: the metric of an evaluation that chooses the checkpoint.
        fewest_steps: under which training is longer where a recipe leaves its length open (``docs/defaults.md``).
        statistics: the first is the headline.
        baselines: names in ``BASELINES``, the cheapest first.
        probe: the one among them whose fit is the output layer of a fresh head; empty where no head is ever fresh.
        checks: names in ``CHECKS``, in the order in which a reader hears of what they find.
        exhibits: names in ``EXHIBITS``, in the order of the report.
        described: how the truth of a split is described.
        known: each key of ``featherweight.json`` that is the kind's own, with what it must be.
        unfitted: what an artefact has of what is fitted, before it is.
        reply_schema: JSON Schema of a reply.
        reservation: what a model does whose verdict is not confirmed.
        knows_nothing: the baseline that looks at no text, and what it does.
    """

    name: ClassVar[str]
    best: ClassVar[str]
    fewest_steps: ClassVar[int]
    statistics: ClassVar[tuple[Statistic, ...]]
    baselines: ClassVar[tuple[str, ...]]
    probe: ClassVar[str]
    checks: ClassVar[tuple[str, ...]]
    exhibits: ClassVar[tuple[str, ...]]
    described: ClassVar[Described]
    known: ClassVar[Mapping[str, Check]]
    unfitted: ClassVar[Mapping[str, Any]]
    reply_schema: ClassVar[Mapping[str, Any]]
    reservation: ClassVar[str]
    knows_nothing: ClassVar[tuple[str, str]]

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        """The kind as ``featherweight.json`` has it. Raises KeyError where it does not say."""
        ...

    def facts(self) -> dict[str, Any]:
        """What ``featherweight.json`` has to say, for :meth:`of_facts`."""
        ...

    @property
    def width(self) -> int:
        """Of the model's outputs."""
        ...

    @property
    def possible(self) -> tuple[str, ...]:
        """What the answers may be, where that is a list of names."""
        ...

    def of_outputs(self, outputs: Column, options: Mapping[str, Any]) -> Answers:
        """Answers from what the head gives for each row, shape (rows, width), or ragged with one for each read; NaN
        where it had nothing to read."""
        ...

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """How to answer, from what a person asks for and what was fitted. Raises ModelError or ConfigError where it is
        not to be had of ``name``."""
        ...

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """What predictor and server give for each row."""
        ...

    def line(self, reply: Mapping[str, Any]) -> str:
        """A reply in the terminal, before its text."""
        ...

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        """What a reply adds to a row of a file; ``nests`` where a cell can hold a table."""
        ...

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Cells that between them hold whatever may be added, to try whether a file can hold it. The first is whole."""
        ...

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        """The columns that nested cells make up, as Arrow has them."""
        ...

    def table(self, answers: Answers, truth: Any) -> pa.Table:
        """What ``predictions/*.parquet`` has beside the ids."""
        ...

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Any]:
        """The kind, answers and truth back. Raises KeyError, TypeError or ValueError where it is no such table."""
        ...

    def taken_from(self, other: Self, answers: Answers, truth: Any) -> tuple[Answers, Any] | None:
        """Answers and truth of another run's kind as this one writes them; None where they can't be compared."""
        ...

    def confirm(
        self, verdict: str, pair: tuple[Answers, Answers], truth: Any, groups: Sequence[str | None] | None, seed: int
    ) -> str:
        """The headline's verdict, or ``no-difference`` where something that it can't see speaks against it."""
        ...

    def describe(self, truth: Any) -> dict[str, float]:
        """What a split's truth is like, as ``described`` says."""
        ...

    def said(self, truth: Any, row: int) -> str:
        """The truth of a row, in words."""
        ...

    def strata(self, truth: Any) -> tuple[NDArray[np.int64], Sequence[str]]:
        """Of which part of the data each row is, for rows to be held out of each part alike, shape (rows,); and what
        messages call the parts."""
        ...

    def slices(self, truth: Any) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """Slices of the rows by their truth: what by and which value, and which rows; few or none."""
        ...

    def fit(
        self,
        fitting: tuple[Answers, Any],
        reporting: tuple[Answers, Any],
        asked: EvidenceSection | None = None,
    ) -> dict[str, Any]:
        """What is fitted to answers and truth of some rows, none among them, and what it does on others. The keys that
        are ``known`` travel with the model.

        Args:
            asked: what a recipe asks for besides.
        """
        ...

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """How alike two models answer."""
        ...

    def losses(self, outputs: Column, truth: Any) -> tuple[float, int]:
        """Training's loss summed over the items of some rows, from what the head gives, and how many items."""
        ...

    def uninformed_loss(self, truth: Any) -> float:
        """The loss of knowing nothing but these rows' truth, in the unit of training's."""
        ...

    def cautions(self, split: str, answers: Answers, truth: Any) -> list[str]:
        """What of a tuned model's answers a reader must know before any figure."""
        ...

    def details(self, answers: Answers, truth: Any) -> Mapping[str, Any]:
        """What ``evaluate`` says of one model beside its statistics."""
        ...

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        """The same for the terminal."""
        ...

    def introduction(self) -> tuple[str, Sequence[str]]:
        """What is answered, for a model card: how that is called, and what there is of it."""
        ...


def travels(kind: Answer, fitted: Mapping[str, Any]) -> dict[str, Any]:
    """What of all that was fitted ``featherweight.json`` has."""
    return {key: fitted[key] for key in kind.known if key in fitted}


def statistics_of(kind: Answer | type[Answer]) -> tuple[Statistic, ...]:
    """A kind's own statistics, and those that third parties registered for it."""
    return (*kind.statistics, *(STATISTICS[name] for name in STATISTICS.for_kind((), kind.name)))


def statistic_named(kind: Answer | type[Answer], name: str) -> Statistic | None:
    """By its name or by one that it has elsewhere."""
    return next((one for one in statistics_of(kind) if name == one.name or name in one.aliases), None)


def kind_of(metrics: Mapping[str, Any]) -> type[Answer]:
    """The kind of a run's answers, by its ``metrics.json``, which did not say so while there was one kind."""
    kind: type[Answer] = ANSWERS[metrics.get("answer", FIRST)]
    return kind


def headline_of(metrics: Mapping[str, Any]) -> Statistic:
    return headline(kind_of(metrics))


def headline(kind: Answer | type[Answer]) -> Statistic:
    return kind.statistics[0]


def evaluation_of(
    kind: Answer, answers: Answers, truth: Any, loss: float, seconds: float, batch_size: int, also: str | None = None
) -> Evaluation:
    """An evaluation under the Trainer's names.

    Args:
        loss: mean over the rows.
        batch_size: what ``eval_steps_per_second`` counts in.
        also: a statistic to measure though evaluations leave it out, by its name with or without ``eval_``.
    """
    rows = len(answers)
    timing = {
        "eval_runtime": seconds,
        "eval_samples_per_second": rows / seconds,
        "eval_steps_per_second": math.ceil(rows / batch_size) / seconds,
    }
    return Evaluation({"eval_loss": loss, **figures(kind, answers, truth, also), **timing}, answers)


def figures(kind: Answer, answers: Answers, truth: Any, also: str | None = None) -> dict[str, float]:
    """The statistics that each evaluation has, and ``also``, as ``eval_<name>``."""
    asked = (one for one in statistics_of(kind) if one.in_evaluations or also in (one.name, f"eval_{one.name}"))
    return {f"eval_{one.name}": one.of(answers, truth).of_all_rows for one in asked}


def standard_error(kind: Answer, answers: Answers, truth: Any) -> float:
    """Of the headline: the binomial's of a share, else the bootstrap's."""
    from featherweight.statistics import resampling

    statistic = headline(kind).of(answers, truth)
    if statistic.outcomes is not None:
        share = statistic.of_all_rows
        return math.sqrt(share * (1 - share) / statistic.rows)
    return float(resampling.values(statistic).std(ddof=1))


def interval(kind: Answer, answers: Answers, truth: Any) -> dict[str, list[float]]:
    """The headline's 95 % interval, as ``eval_<name>_interval``: Wilson's of a share, else the bootstrap's."""
    from featherweight.statistics import resampling

    first = headline(kind)
    statistic = first.of(answers, truth)
    if statistic.outcomes is not None:
        found = wilson(int(statistic.outcomes.sum()), statistic.rows, CONFIDENCE)
    else:
        found = resampling.interval(resampling.values(statistic), CONFIDENCE)
    return {f"eval_{first.name}_interval": list(found)}
