"""A number: what is kept is the number itself, in the unit of the data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, Check, Described
from featherweight.answers.facts import is_number
from featherweight.errors import ConfigError, ModelError
from featherweight.records.answers import Answers, Likeness
from featherweight.records.parts import Brief
from featherweight.records.questions import Question
from featherweight.records.rows import Column, numbers_of
from featherweight.statistics.additive import Additive, Floats, Statistic, mean_of, ratio
from featherweight.statistics.proportions import wilson

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.recipe.sections import EvidenceSection

VALUE = "value"
COVERAGE = 0.9  # of the interval that is given with an answer
_COVERAGES = (0.8, COVERAGE, 0.95)
_STRATA, _LEAST_IN_ONE = 10, 20
_QUARTERS = 4
_ALIKE = 0.1  # of a standard deviation: less makes no other answer
_ROUNDING = 1e-12  # of a sum of squares: what is left of it about the mean is no variation
_FLAT = 0.1  # of the truth's standard deviation: answers that vary by less say nearly the same of every row

Numbers = NDArray[np.float64]


def _sums(
    columns: Callable[[Numbers, Numbers], Sequence[Numbers]], value: Callable[[Floats], Floats]
) -> Callable[[Answers, Numbers], Additive]:
    """A statistic from what is summed over rows, besides the rows themselves, which come last."""

    def make(answers: Answers, truth: Numbers) -> Additive:
        def dense() -> Numbers:
            return np.stack([*columns(answers[VALUE], truth), np.ones(len(truth))], axis=1)

        def features() -> Any:
            from scipy import sparse

            return sparse.csr_array(dense())

        return Additive(features, value, len(truth), dense().sum(axis=0))

    return make


def _pearson(sums: Floats) -> Floats:
    """From sums of x, y, x², y², xy and 1; 0 where one of them does not vary."""
    x, y, xx, yy, xy, n = np.moveaxis(sums, -1, 0)
    return ratio(n * xy - x * y, np.sqrt(_spread(x, xx, n)) * np.sqrt(_spread(y, yy, n)))


def _spread(x: Floats, xx: Floats, n: Floats) -> Floats:
    """n² times the variance, from sums of x, x² and 1; 0 where it is no more than rounding."""
    found = n * xx - x**2
    return np.where(found > _ROUNDING * n * xx, found, 0.0)


def _products(x: Numbers, y: Numbers) -> list[Numbers]:
    """What :func:`_pearson` sums, of numbers about their means, so that no digit is lost."""
    x, y = x - x.mean(), y - y.mean()
    return [x, y, x**2, y**2, x * y]


def _of_ranks(values: Numbers, truth: Numbers) -> list[Numbers]:
    from scipy.stats import rankdata

    return _products(rankdata(values), rankdata(truth))


def _r2(sums: Floats) -> Floats:
    """From sums of squared errors, y, y² and 1, as ``sklearn.metrics.r2_score``; 0 where the truth does not vary."""
    errors, y, yy, n = np.moveaxis(sums, -1, 0)
    spread = _spread(y, yy, n) / n
    return np.where(spread > 0, 1 - ratio(errors, spread), 0.0)


def _is_scale(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"mean", "deviation"}
        and all(map(is_number, value.values()))
        and (value["deviation"] > 0)
    )


def _are_intervals(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and is_number(one.get("coverage"))
        and (one.get("half_width") is None or is_number(one["half_width"]))
        for one in value
    )


class Number:
    """Answers of a regression. The model's one output is in standard deviations of train about its mean.

    Args:
        mean, deviation: of the numbers in train.
    """

    name: ClassVar[str] = "number"
    best: ClassVar[str] = "eval_loss"
    fewest_steps: ClassVar[int] = 1200
    baselines: ClassVar[tuple[str, ...]] = ("mean", "tfidf-ridge", "ridge-probe", "cosine")
    probe: ClassVar[str] = "ridge-probe"
    checks: ClassVar[tuple[str, ...]] = ("twins", "shared-groups", "conflicting-numbers")
    exhibits: ClassVar[tuple[str, ...]] = ("residuals", "where", "errors")
    described: ClassVar[Described] = Described("numbers", "Numbers", "figure", "{:.4g}", shares=False)
    known: ClassVar[Mapping[str, Check]] = {
        "scale": (_is_scale, "a table with mean and a deviation above 0"),
        "intervals": (_are_intervals, "a list of tables with coverage and half_width"),
    }
    unfitted: ClassVar[Mapping[str, Any]] = {"intervals": []}
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["value"],
        "properties": {
            "value": {"type": "number"},
            "interval": {
                "type": "array",
                "items": {"type": "number"},
                "description": f"holds the truth of {COVERAGE:.0%} of rows like those that it was fitted on",
            },
        },
    }
    reservation: ClassVar[str] = ""
    knows_nothing: ClassVar[tuple[str, str]] = ("mean", "always answering the mean")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic(
            "rmse",
            "RMSE",
            _sums(lambda one, truth: [(one - truth) ** 2], lambda sums: np.sqrt(sums[..., 0] / sums[..., 1])),
            less_is_better=True,
            hub="rmse",
            aliases=("root_mean_squared_error", "neg_root_mean_squared_error"),
        ),
        Statistic(
            "mae",
            "MAE",
            lambda answers, truth: mean_of(np.abs(answers[VALUE] - truth)),
            less_is_better=True,
            hub="mae",
            aliases=("mean_absolute_error", "neg_mean_absolute_error"),
        ),
        Statistic(
            "r2",
            "R²",
            _sums(lambda one, truth: [(one - truth) ** 2, truth - truth.mean(), (truth - truth.mean()) ** 2], _r2),
            hub="r_squared",
            aliases=("r2_score",),
        ),
        Statistic("pearson", "Pearson", _sums(_products, _pearson), hub="pearsonr", aliases=("pearsonr",)),
        # Resampled with the ranks of all rows, which is exact for the value and nearly so for what is drawn.
        Statistic("spearman", "Spearman", _sums(_of_ranks, _pearson), hub="spearmanr", aliases=("spearmanr",)),
    )

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation

    @classmethod
    def of_truth(cls, truth: Numbers) -> Self:
        """With the scale of some numbers. Raises ValueError where they do not vary."""
        deviation = float(truth.std())
        if deviation == 0:
            raise ValueError("they are all the same")
        return cls(float(truth.mean()), deviation)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        return cls(**facts["scale"])

    def facts(self) -> dict[str, Any]:
        return {"scale": {"mean": self.mean, "deviation": self.deviation}}

    @property
    def width(self) -> int:
        return 1

    @property
    def possible(self) -> tuple[str, ...]:
        return ()

    def standardised(self, values: Numbers) -> Numbers:
        """Numbers as the model gives them."""
        return (values - self.mean) / self.deviation

    def of_outputs(self, outputs: Column, options: Mapping[str, Any]) -> Answers:
        return Answers({VALUE: self.mean + self.deviation * numbers_of(outputs)[:, 0].astype(np.float64)})

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """``half_width`` of the interval, for ``calibrated``.

        Raises:
            ModelError: no interval was fitted.
            ConfigError: numbers have no error rate.
        """
        if asked.get("max_error_rate") is not None:
            raise ConfigError(f"--max-error-rate: {name} answers with numbers; --calibrated gives each its interval")
        if not asked.get("calibrated"):
            return {}
        widths = {one["coverage"]: one["half_width"] for one in fitted.get("intervals", ())}
        if widths.get(COVERAGE) is None:
            raise ModelError(f"{name}: no interval was fitted for it; leave --calibrated out")
        return {"half_width": widths[COVERAGE]}

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """``{"value": ...}`` of each row and, where it is asked for, its ``interval``."""
        half = options.get("half_width")
        for value in answers[VALUE].tolist():
            yield {"value": value} | ({} if half is None else {"interval": [value - half, value + half]})

    def line(self, reply: Mapping[str, Any]) -> str:
        low_high = reply.get("interval")
        return f"{reply['value']:.4g}" + ("  ({:.4g} to {:.4g})".format(*low_high) if low_high else "")

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        """``prediction`` and, where there is an interval, ``prediction_low`` and ``prediction_high``."""
        found = {"prediction": reply["value"]}
        if "interval" in reply:
            found["prediction_low"], found["prediction_high"] = reply["interval"]
        return found

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self.cells(next(self.reply(Answers({VALUE: np.asarray([1 / 3])}), (), options)), nests)]

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        import pyarrow as pa

        return [pa.field(name, pa.float64()) for name in self.possible_cells(True, options)[0]]

    def table(self, answers: Answers, truth: Numbers) -> pa.Table:
        """``label``, the truth, and ``prediction`` of each row; the metadata has the scale."""
        import pyarrow as pa

        columns = {"label": pa.array(truth), "prediction": pa.array(answers[VALUE])}
        return pa.table(columns, metadata={"scale": json.dumps(self.facts()["scale"])})

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Numbers]:
        kind = cls(**json.loads(table.schema.metadata[b"scale"]))
        truth, found = (table[name].to_numpy().astype(np.float64) for name in ("label", "prediction"))
        return kind, Answers({VALUE: found}), truth

    def taken_from(self, other: Number, answers: Answers, truth: Numbers) -> tuple[Answers, Numbers] | None:
        """As they are: the unit is the data's, whatever scale a model computes in."""
        return answers, truth

    def confirm(
        self,
        verdict: str,
        pair: tuple[Answers, Answers],
        truth: Numbers,
        groups: Sequence[str | None] | None,
        seed: int,
    ) -> str:
        return verdict

    def describe(self, truth: Numbers) -> dict[str, float]:
        return {
            "mean": float(truth.mean()),
            "standard deviation": float(truth.std()),
            "least": float(truth.min()),
            "median": float(np.median(truth)),
            "greatest": float(truth.max()),
        }

    def said(self, truth: Numbers, row: int) -> str:
        return f"{truth[row]:.4g}"

    def strata(self, truth: Numbers) -> tuple[NDArray[np.int64], Sequence[str]]:
        """Tenths of the rows by their number, fewer of few rows."""
        bins = max(min(_STRATA, len(truth) // _LEAST_IN_ONE), 1)
        edges = np.unique(np.quantile(truth, np.linspace(0, 1, bins + 1)[1:-1]))
        codes = np.searchsorted(edges, truth)
        _, codes = np.unique(codes, return_inverse=True)
        members = [truth[codes == one] for one in range(int(codes.max()) + 1)]
        if min(map(len, members)) < 2:
            return np.zeros(len(truth), dtype=np.int64), ["the numbers"]
        return codes.astype(np.int64), [f"the numbers from {one.min():.4g} to {one.max():.4g}" for one in members]

    def slices(self, truth: Numbers) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """Quarters of the rows by their number, fewer where many are the same."""
        edges = np.unique(np.quantile(truth, np.linspace(0, 1, _QUARTERS + 1), method="higher"))
        for index, (low, high) in enumerate(pairwise(edges)):
            chosen = (truth >= low if index == 0 else truth > low) & (truth <= high)
            if chosen.any():
                yield ("number", f"{truth[chosen].min():.4g} to {high:.4g}"), chosen

    def fit(
        self,
        fitting: tuple[Answers, Numbers],
        reporting: tuple[Answers, Numbers],
        asked: EvidenceSection | None = None,
    ) -> dict[str, Any]:
        """Half the width of intervals about an answer, by split conformal prediction (Lei et al., "Distribution-free
        predictive inference for regression", 2018): the quantile of absolute errors on rows that it was not tuned on,
        with the share of other rows whose truth is within."""
        errors, others = (np.abs(answers[VALUE] - truth) for answers, truth in (fitting, reporting))
        return {
            "intervals": [_interval(np.sort(errors), others, coverage) for coverage in _COVERAGES],
            "fitted_rows": len(errors),
            "reported_rows": len(others),
        }

    def losses(self, outputs: Column, truth: Numbers) -> tuple[float, int]:
        """Squared error, in squared standard deviations of train."""
        errors = numbers_of(outputs)[:, 0].astype(np.float64) - self.standardised(truth)
        return float((errors**2).sum()), len(truth)

    def uninformed_loss(self, truth: Numbers) -> float:
        """Squared error of always answering the mean."""
        return float(self.standardised(truth).var())

    def cautions(self, split: str, answers: Answers, truth: Numbers) -> list[str]:
        """Whether the answers hardly vary."""
        spread, own = float(answers[VALUE].std()), float(truth.std())
        if spread >= _FLAT * own:
            return []
        return [
            f"The tuned model says nearly the same number of every row of {split} (standard deviation {spread:.3g}, "
            f"where the truth has {own:.3g}): it has hardly learned anything."
        ]

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """By how many standard deviations of train the numbers differ."""
        differences = np.abs(one[VALUE] - other[VALUE]) / self.deviation
        same = float((differences <= _ALIKE).mean())
        return Likeness(same, differences, "number", "numbers", tolerance=1e-4, scale=self.deviation)

    def details(self, answers: Answers, truth: Numbers) -> Mapping[str, Any]:
        return {}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return []

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Numbers", [f"{self.mean:.4g} on average in train", f"standard deviation {self.deviation:.4g}"]


def _interval(errors: Floats, others: Floats, coverage: float) -> dict[str, Any]:
    """``half_width`` is None where there are too few rows to fit it."""
    place = math.ceil((len(errors) + 1) * coverage)
    if not 0 < place <= len(errors):
        return {"coverage": coverage, "half_width": None}
    half = float(errors[place - 1])
    within = int((others <= half).sum())
    return {
        "coverage": coverage,
        "half_width": half,
        "reported_coverage": within / len(others),
        "reported_interval": list(wilson(within, len(others))),
    }


if TYPE_CHECKING:
    _is_one: type[Answer] = Number
