"""What a third party writes: a task with a kind of answer of its own, ranks, and further parts for labels.

The model says for each rank but the last how probable it is that the text stands above it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from featherweight.answers import Described
from featherweight.answers.label import PROBABILITIES
from featherweight.errors import ConfigError, DataError
from featherweight.evidence.baselines import Part, sample
from featherweight.evidence.exhibits import MODELS, Case
from featherweight.recipe import DataSection
from featherweight.records import parts
from featherweight.records.answers import Answers, Likeness
from featherweight.records.parts import Brief
from featherweight.records.rows import numbers_of
from featherweight.statistics.additive import Additive, Statistic, mean_of
from featherweight.tasks import heads, losses
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.loading import Loading
from featherweight.tasks.reading import encoding, numbers, tokens
from featherweight.tasks.reading.questions import whole_text
from featherweight.tasks.reading.splits import complete, require_labelled, require_train
from featherweight.tasks.reading.splits import sample as sampled
from featherweight.tasks.reading.texts import all_of, examples_of

if TYPE_CHECKING:
    import torch

    from featherweight.answers import Answer
    from featherweight.evidence.baselines import Baseline, Probe
    from featherweight.evidence.data.checks import Check, Look
    from featherweight.evidence.exhibits import Exhibit
    from featherweight.tasks import Task
    from featherweight.tracking import Observer

ABOVE = "above"


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def losses_of(logits: Any, truth: Any) -> Any:
    """The cross-entropy of every "is it above this rank", summed over the ranks; shape (rows,)."""
    is_above = np.arange(logits.shape[1]) < truth[:, None]
    return np.logaddexp(0, np.where(is_above, -logits, logits).astype(np.float64)).sum(axis=1)


# The kind of answer --------------------------------------------------------------------------------------------------


class Ordinal:
    """Ranks from 1; the truth counts from 0. What is kept is how probable it is that a row is above each rank.

    Args:
        ranks: how many there are.
    """

    name: ClassVar[str] = "ordinal"
    best: ClassVar[str] = "eval_loss"
    fewest_steps: ClassVar[int] = 300
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic(
            "mean_rank_error",
            "mean rank error",
            lambda answers, truth: mean_of(np.abs(Ordinal.ranked(answers) - truth)),
            less_is_better=True,
        ),
    )
    baselines: ClassVar[tuple[str, ...]] = ("middle-rank", "rank-probe")
    probe: ClassVar[str] = "rank-probe"
    checks: ClassVar[tuple[str, ...]] = ("unused-ranks", "twins", "shared-groups")
    exhibits: ClassVar[tuple[str, ...]] = ("rank-errors", "where")
    described: ClassVar[Described] = Described("rank_shares", "Rank shares", "rank", "{:.1%}")
    known: ClassVar[Mapping[str, Any]] = {
        "ranks": (lambda value: type(value) is int and value >= 2, "a whole number from 2"),
        "within_one": (lambda value: value is None or 0 <= value <= 1, "a share"),
    }
    unfitted: ClassVar[Mapping[str, Any]] = {"within_one": None}
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["rank", "expected"],
        "properties": {"rank": {"type": "integer", "minimum": 1}, "expected": {"type": "number"}},
    }
    reservation: ClassVar[str] = ""
    knows_nothing: ClassVar[tuple[str, str]] = ("middle-rank", "always answering the middle rank")

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Ordinal:
        return cls(facts["ranks"])

    def facts(self) -> dict[str, Any]:
        return {"ranks": self.ranks}

    @property
    def width(self) -> int:
        return self.ranks - 1

    @property
    def possible(self) -> tuple[str, ...]:
        return ()

    @staticmethod
    def ranked(answers: Answers) -> Any:
        return (answers[ABOVE] > 0.5).sum(axis=1)

    def of_outputs(self, outputs: Any, options: Mapping[str, Any]) -> Answers:
        return Answers({ABOVE: sigmoid(outputs)})

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        if asked.get("calibrated") or asked.get("max_error_rate") is not None:
            raise ConfigError(f"{name} answers with ranks, which have no --calibrated and no --max-error-rate")
        return {}

    def reply(self, answers: Answers, asked: Sequence[Any], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        expected = 1 + answers[ABOVE].sum(axis=1, dtype=np.float64)
        for rank, mean in zip(self.ranked(answers).tolist(), expected.tolist(), strict=True):
            yield {"rank": rank + 1, "expected": mean}

    def line(self, reply: Mapping[str, Any]) -> str:
        return f"{reply['rank']}  ({reply['expected']:.2f})"

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        return {"prediction": reply["rank"], "expected": reply["expected"]}

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"prediction": 1, "expected": 1 / 3}]

    def fields(self, options: Mapping[str, Any]) -> list[Any]:
        import pyarrow as pa

        return [pa.field("prediction", pa.int64()), pa.field("expected", pa.float64())]

    def table(self, answers: Answers, truth: Any) -> Any:
        import pyarrow as pa

        columns = {"label": truth + 1, "prediction": self.ranked(answers) + 1, ABOVE: answers[ABOVE].tolist()}
        schema = pa.schema({"label": pa.int64(), "prediction": pa.int64(), ABOVE: pa.list_(pa.float32())})
        return pa.table(columns, schema=schema.with_metadata({"ranks": json.dumps(self.ranks)}))

    @classmethod
    def of_table(cls, table: Any) -> tuple[Ordinal, Answers, Any]:
        kind = cls(json.loads(table.schema.metadata[b"ranks"]))
        above = np.asarray(table[ABOVE].to_pylist(), dtype=np.float32).reshape(table.num_rows, kind.width)
        return kind, Answers({ABOVE: above}), table["label"].to_numpy() - 1

    def taken_from(self, other: Ordinal, answers: Answers, truth: Any) -> tuple[Answers, Any] | None:
        return (answers, truth) if self.ranks == other.ranks else None

    def confirm(self, verdict: str, pair: Any, truth: Any, groups: Any, seed: int) -> str:
        return verdict

    def describe(self, truth: Any) -> dict[str, float]:
        counts = np.bincount(truth, minlength=self.ranks)
        return {str(rank): float(count / len(truth)) for rank, count in enumerate(counts, 1)}

    def said(self, truth: Any, row: int) -> str:
        return str(truth[row] + 1)

    def strata(self, truth: Any) -> tuple[Any, Sequence[str]]:
        return truth, [f"the rank {rank + 1}" for rank in range(self.ranks)]

    def slices(self, truth: Any) -> Iterator[tuple[tuple[str, str], Any]]:
        return ((("rank", str(one + 1)), truth == one) for one in np.unique(truth))

    def fit(self, fitting: tuple[Answers, Any], reporting: tuple[Answers, Any], asked: Any = None) -> dict[str, Any]:
        answers, truth = fitting
        near = np.abs(self.ranked(answers) - truth) <= 1
        return {"within_one": float(near.mean()) if len(near) else None}

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        differences = np.abs(one[ABOVE] - other[ABOVE]).max(axis=1)
        same = float((self.ranked(one) == self.ranked(other)).mean())
        return Likeness(same, differences, "probability", "ranks", tolerance=1e-4)

    def losses(self, outputs: Any, truth: Any) -> tuple[float, int]:
        return float(losses_of(outputs, truth).sum()), len(truth)

    def uninformed_loss(self, truth: Any) -> float:
        shares = np.clip((truth[:, None] > np.arange(self.width)).mean(axis=0), 1e-9, 1 - 1e-9)
        return float(losses_of(np.tile(np.log(shares / (1 - shares)), (len(truth), 1)), truth).mean())

    def cautions(self, split: str, answers: Answers, truth: Any) -> list[str]:
        return []

    def details(self, answers: Answers, truth: Any) -> Mapping[str, Any]:
        return {}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return []

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Ranks", [f"1 to {self.ranks}"]


# The task ------------------------------------------------------------------------------------------------------------


class RankColumns(DataSection):
    """Texts with a rank each."""

    label: str = Field("label", description="column that holds the rank")
    ranks: int = Field(5, description="how many ranks there are", ge=2)


class OrdinalRegression:
    """One rank for one text."""

    name: ClassVar[str] = "ordinal-regression"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    hub_tag: ClassVar[str] = "text-classification"
    reads_tokens: ClassVar[bool] = False
    scores_tokens: ClassVar[bool] = False
    Columns: ClassVar[type[DataSection]] = RankColumns

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @classmethod
    def prepare(cls, splits: Mapping[str, Any], section: Any, seed: int) -> tuple[OrdinalRegression, Mapping[str, Any]]:
        require_train(splits)
        columns = {name: _ranks(split, section) for name, split in splits.items()}
        require_labelled(splits, [name for name, column in columns.items() if column is None], section)
        task = cls(Ordinal(section.ranks))
        examples = {
            name: examples_of(splits[name], section, column, None)
            for name, column in columns.items()
            if column is not None
        }
        return task, complete(examples, task.answer, section, seed)

    @classmethod
    def of_answer(cls, answer: Any) -> OrdinalRegression:
        return cls(answer)

    @classmethod
    def of_split(cls, split: Any, section: Any) -> OrdinalRegression:
        return cls(Ordinal(section.ranks))

    @classmethod
    def of_model(cls, config: Any) -> None:
        """No configuration says that a head answers with ranks."""

    def named_by(self, section: DataSection, model: str) -> OrdinalRegression:
        return self

    @classmethod
    def going_on(cls, section: Any, known: Mapping[str, Any], adapter: str) -> Any:
        return section.model_copy(update={"ranks": known.get("ranks", section.ranks)})

    def read(self, split: Any, section: Any) -> Any:
        column = _ranks(split, section)
        if column is None:
            raise DataError(f"{split.origin}: unlabelled (no row has a rank in {section.label!r})")
        return sampled(examples_of(split, section, column, None), section.max_eval_samples, section.split_seed)

    @classmethod
    def glance(cls, splits: Mapping[str, Any], section: Any) -> tuple[OrdinalRegression, Mapping[str, Any]]:
        columns = {name: _ranks(split, section) for name, split in splits.items()}
        examples = {name: all_of(splits[name], section, one) for name, one in columns.items() if one is not None}
        return cls(Ordinal(section.ranks)), examples

    def settled(self, section: DataSection) -> DataSection:
        return section

    def questions(self, given: Sequence[Any]) -> list[Any]:
        return list(map(whole_text, given))

    def tokenise(self, asked: Any, tokenizer: Any, cutting: Any) -> Any:
        return tokens.encode(asked, tokenizer, cutting)

    def encode(self, examples: Any, tokenizer: Any, cutting: Any) -> Any:
        return encoding.of_rows(examples, tokenizer, cutting)

    def head(self) -> HeadPlan:
        return HeadPlan(heads.SEQUENCE, None, self.answer.width, "multi_label_classification")

    def loss(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = outputs.values.float()
        is_above = (torch.arange(logits.shape[1], device=logits.device) < targets[:, None]).float()
        return binary_cross_entropy_with_logits(logits, is_above, reduction="sum")

    def objective(self, training: Any, train: Any) -> Any:
        return losses.own(self.loss, training)

    def loading(self) -> Loading:
        return Loading(
            self.head().auto_class,
            options=f"num_labels={self.answer.width}",
            after=["def rank(logits):\n    return 1 + (logits > 0).sum(-1)"],
        )


def _ranks(split: Any, section: Any) -> Any:
    """The rank of each row, counted from 0; int64. None where no row has one."""
    found = numbers.read(split, section.label)
    if found is None:
        return None
    wrong = np.flatnonzero((found != np.round(found)) | (found < 1) | (found > section.ranks))
    if len(wrong):
        raise DataError(
            f"{split.origin}: row {wrong[0] + 1}: {found[wrong[0]]:g} in the column {section.label!r} is no rank from "
            f"1 to {section.ranks}; mend the row, or set data.ranks"
        )
    return found.astype(np.int64) - 1


# Its baselines, its exhibit and its check ----------------------------------------------------------------------------


class MiddleRank:
    """Always answers the middle rank of train."""

    def fit(self, train: Part, kind: Any) -> None:
        self.above = np.arange(kind.width) < np.median(numbers_of(train.examples.truth))

    def predict(self, part: Part) -> Answers:
        return Answers({ABOVE: np.tile(self.above.astype(np.float32), (len(part.examples), 1))})


class RankProbe:
    """Ridge regression of every "is it above this rank" on what the untuned model's head reads."""

    def fit(self, train: Part, kind: Any) -> None:
        rows = self.rows(train.examples, kind)
        self.weight, self.bias = self.layer(train.features(rows), train.examples.truth[rows], kind)

    def predict(self, part: Part) -> Answers:
        logits = numbers_of(part.all_features()) @ self.weight.T + self.bias
        return Answers({ABOVE: sigmoid(logits.astype(np.float32))})

    @staticmethod
    def rows(train: Any, kind: Any) -> Any:
        return sample(len(train), 5_000)

    @classmethod
    def layer(
        cls, features: Any, truth: Any, kind: Any, strength: float = 0.1, intercept: bool = True
    ) -> tuple[Any, Any]:
        from sklearn.linear_model import Ridge

        is_above = np.where(np.arange(kind.width) < truth[:, None], 2.0, -2.0)
        model = Ridge(alpha=1 / strength, fit_intercept=intercept).fit(features, is_above)
        bias = np.broadcast_to(model.intercept_, kind.width)
        return np.atleast_2d(model.coef_).astype(np.float32), bias.astype(np.float32)


class RankErrors:
    title: ClassVar[str] = "Ranks off"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``rank_errors``: of each model how many rows are so many ranks off."""
        off = {model: np.abs(Ordinal.ranked(one) - case.truth) for model, one in zip(MODELS, case.pair, strict=True)}
        return {"rank_errors": {model: np.bincount(one).tolist() for model, one in off.items()}}

    def show(self, metrics: Mapping[str, Any]) -> list[parts.Part]:
        found = metrics["rank_errors"]
        most = max(map(len, found.values()))
        rows = [
            parts.row(f"{model} model", *(f"{one:,}" for one in [*counts, *[0] * (most - len(counts))]))
            for model, counts in found.items()
        ]
        return [parts.table("Rows by how many ranks they are off", ["model", *map(str, range(most))], rows)]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        counts = metrics["rank_errors"]["tuned"]
        return f"{sum(counts[:2]) / sum(counts):.1%} of the rows are at most one rank off."


class UnusedRanks:
    def find(self, look: Look) -> Mapping[str, Any]:
        shares = look.kind.describe(look.first.truth)
        return {"unused_ranks": [rank for rank, share in shares.items() if share == 0]}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        unused = found["unused_ranks"]
        return [f"No row of train has one of the ranks {', '.join(unused)}."] if unused else []

    def show(self, found: Mapping[str, Any]) -> list[parts.Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []


# Further parts for a kind of answer that is there already --------------------------------------------------------------


def _geometric_mean(answers: Answers, truth: Any) -> Additive:
    """Of the probabilities of the labels: a function of sums over the rows, so it has intervals and tests."""
    chosen = np.maximum(answers[PROBABILITIES][np.arange(len(truth)), truth].astype(np.float64), 1e-30)
    logs = mean_of(np.log(chosen))
    return Additive(lambda: logs.features, lambda sums: np.exp(logs.value(sums)), len(truth), logs.total)


GEOMETRIC_MEAN = Statistic(
    "geometric_mean_probability", "geometric mean probability", _geometric_mean, answers=("label",)
)


class FirstWord:
    """Answers with the labels that texts with the same first word have in train."""

    answers = ("label",)

    def fit(self, train: Part, kind: Any) -> None:
        self.shares: dict[str, Any] = {}
        for text, label in zip(train.examples.all_texts(), numbers_of(train.examples.truth), strict=True):
            self.shares.setdefault(text.split()[0], np.ones(kind.width, dtype=np.float32))[label] += 1
        self.none = np.ones(kind.width, dtype=np.float32)

    def predict(self, part: Part) -> Answers:
        found = np.stack([self.shares.get(text.split()[0], self.none) for text in part.examples.all_texts()])
        return Answers({PROBABILITIES: found / found.sum(axis=1, keepdims=True)})


class Certainty:
    answers = ("label",)
    title: ClassVar[str] = "Certainty"

    def find(self, case: Case) -> Mapping[str, Any]:
        both = zip(MODELS, case.pair, strict=True)
        return {"certainty": {model: float(one[PROBABILITIES].max(axis=1).mean()) for model, one in both}}

    def show(self, metrics: Mapping[str, Any]) -> list[parts.Part]:
        rows = [parts.row(f"{model} model", f"{one:.3f}") for model, one in metrics["certainty"].items()]
        return [parts.table("Mean probability of the answer", ["model", "probability"], rows)]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return f"The mean probability of its answers is {metrics['certainty']['tuned']:.3f}."


class Shouting:
    answers = ("label",)

    def find(self, look: Look) -> Mapping[str, Any]:
        return {"shouting": sum(text.isupper() for _, one in look.splits.items() for text in one.all_texts())}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [f"{found['shouting']:,} texts are in capitals."] if found["shouting"] else []

    def show(self, found: Mapping[str, Any]) -> list[parts.Part]:
        return [parts.text(f"Texts in capitals: {found['shouting']:,}.")] if found["shouting"] else []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []


class Diary:
    """What happened when, in a file of the run's folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / "diary.txt"
        self.name = name

    def observe(self, event: Mapping[str, Any]) -> None:
        lines = {
            "started": lambda: f"{self.name}: on from step {event['step']}, seed {event['recipe']['training']['seed']}",
            "evaluation": lambda: f"step {event['step']}: validation loss {event['metrics']['eval_loss']:.4f}",
            "finished": lambda: event["metrics"]["headline"],
            "failed": lambda: f"it ended: {event['error']}",
        }
        if write := lines.get(event["event"]):
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(write() + "\n")


if TYPE_CHECKING:
    _kind: type[Answer] = Ordinal
    _task: type[Task] = OrdinalRegression
    _baselines: tuple[type[Baseline], ...] = (MiddleRank, RankProbe, FirstWord)
    _probe: type[Probe] = RankProbe
    _exhibits: tuple[type[Exhibit], ...] = (RankErrors, Certainty)
    _checks: tuple[type[Check], ...] = (UnusedRanks, Shouting)
    _observer: type[Observer] = Diary
