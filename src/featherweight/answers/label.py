"""One label out of several: what is kept is a probability for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, Check, Described, class_counts, decisions, probabilities
from featherweight.answers.calibration import fit_and_report
from featherweight.answers.class_counts import ClassCounts
from featherweight.answers.facts import are_names, is_number
from featherweight.answers.probabilities import apply_temperature
from featherweight.errors import ConfigError, ModelError
from featherweight.records.answers import Answers, Likeness
from featherweight.records.parts import Brief
from featherweight.records.questions import Question
from featherweight.records.rows import Column, numbers_of
from featherweight.statistics import resampling
from featherweight.statistics.additive import Additive, Floats, Statistic, mean_of
from featherweight.statistics.paired import verdict as verdict_of

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.recipe.sections import EvidenceSection

PROBABILITIES = "probabilities"


Labels = NDArray[np.int64]


def predicted(answers: Answers) -> Labels:
    """The most probable class of each row; int64, shape (rows,)."""
    return np.asarray(answers[PROBABILITIES].argmax(axis=1), dtype=np.int64)


def right(answers: Answers, truth: Labels) -> NDArray[np.bool_]:
    """Of which rows the most probable class is the label; shape (rows,)."""
    return np.asarray(predicted(answers) == truth)


def _are_thresholds(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and is_number(one.get("wanted_error_rate"))
        and (one.get("confidence") is None or is_number(one["confidence"]))
        for one in value
    )


def counts(answers: Answers, truth: Labels) -> ClassCounts:
    return class_counts.count(predicted(answers), truth, answers[PROBABILITIES].shape[1])


def _of_counts(of: Callable[[ClassCounts], Floats]) -> Callable[[Answers, Labels], Additive]:
    def make(answers: Answers, truth: Labels) -> Additive:
        return class_counts.additive(of, predicted(answers), truth, answers[PROBABILITIES].shape[1])

    return make


def _of_rows(of: Callable[[Any, Labels], Floats]) -> Callable[[Answers, Labels], Additive]:
    return lambda answers, truth: mean_of(of(answers[PROBABILITIES], truth))


class Label:
    """Answers of a classifier.

    Args:
        names: of the classes, in the order of the probabilities.
    """

    name: ClassVar[str] = "label"
    best: ClassVar[str] = "eval_loss"
    fewest_steps: ClassVar[int] = 300
    baselines: ClassVar[tuple[str, ...]] = ("majority", "tfidf-logistic-regression", "prototype", "linear-probe")
    probe: ClassVar[str] = "linear-probe"
    checks: ClassVar[tuple[str, ...]] = (
        "one-sided", "unknown-labels", "twins", "shared-groups", "conflicting-labels", "giveaways",
        "suspected-label-errors",
    )  # fmt: skip
    exhibits: ClassVar[tuple[str, ...]] = ("calibration", "decision-threshold", "confusion", "where", "examples")
    described: ClassVar[Described] = Described("label_shares", "Label shares", "label", "{:.2%}")
    known: ClassVar[Mapping[str, Check]] = {
        "labels": (are_names, "a list of names, each once"),
        "temperature": (lambda value: value is None or (is_number(value) and value > 0), "a number above 0"),
        "thresholds": (_are_thresholds, "a list of tables with wanted_error_rate and confidence"),
        "decision_threshold": (decisions.is_decision, "a table with pos_label and threshold"),
    }
    unfitted: ClassVar[Mapping[str, Any]] = {"temperature": None, "thresholds": []}
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["label", "probabilities"],
        "properties": {
            "label": {"type": ["string", "null"], "description": "null where the model abstains"},
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
    reservation: ClassVar[str] = "never answers some labels"
    knows_nothing: ClassVar[tuple[str, str]] = ("majority", "always answering the commonest label")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic(
            "accuracy",
            "accuracy",
            lambda answers, truth: mean_of(right(answers, truth)),
            hub="accuracy",
            aliases=("accuracy_score",),
        ),
        Statistic(
            "macro_f1", "macro-F1", _of_counts(class_counts.macro_f1), hub="f1", aliases=("f1_macro",), minds_rare=True
        ),
        Statistic(
            "balanced_accuracy",
            "balanced accuracy",
            _of_counts(class_counts.balanced_accuracy),
            aliases=("balanced_accuracy_score",),
        ),
        Statistic(
            "matthews_correlation",
            "Matthews",
            _of_counts(class_counts.matthews_correlation),
            hub="matthews_correlation",
            aliases=("matthews_corrcoef",),
        ),
        Statistic(
            "negative_log_likelihood",
            "negative log likelihood",
            _of_rows(probabilities.log_losses),
            less_is_better=True,
            in_evaluations=False,
            aliases=("log_loss", "neg_log_loss"),
        ),
        Statistic(
            "brier_score",
            "Brier score",
            _of_rows(probabilities.brier_scores),
            less_is_better=True,
            in_evaluations=False,
            aliases=("brier_score_loss", "neg_brier_score"),
        ),
        Statistic(
            "expected_calibration_error",
            "expected calibration error",
            lambda answers, truth: probabilities.expected_calibration_error(answers[PROBABILITIES], truth),
            less_is_better=True,
            in_evaluations=False,
        ),
    )

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        return cls(facts["labels"])

    def facts(self) -> dict[str, Any]:
        return {"labels": list(self.names)}

    @property
    def width(self) -> int:
        return len(self.names)

    @property
    def possible(self) -> tuple[str, ...]:
        return self.names

    def of_outputs(self, outputs: Column, options: Mapping[str, Any]) -> Answers:
        """Softmax of the logits, divided by the option ``temperature``."""
        return Answers({PROBABILITIES: softmax(numbers_of(outputs) / options.get("temperature", 1.0))})

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """``temperature`` and ``confidence``, for ``calibrated`` and ``max_error_rate``; with a decision threshold
        ``decision``, the place of the label that it is for and the threshold.

        Raises:
            ModelError: no temperature was fitted.
            ConfigError: no threshold was found for this rate, or a decision threshold answers otherwise.
        """
        rate = asked.get("max_error_rate")
        if rate is None and not asked.get("calibrated"):
            return {}
        if fitted.get("temperature") is None:
            raise ModelError(f"{name}: no temperature was fitted for it; leave --calibrated and --max-error-rate out")
        decision = fitted.get("decision_threshold")
        if decision and rate is not None:
            raise ConfigError(
                f"--max-error-rate: {name} answers from a decision threshold on, which its error rates are not of; "
                "give --calibrated alone"
            )
        confidence = 0.0 if rate is None else _confidence(name, fitted.get("thresholds", ()), rate)
        found = {"temperature": fitted["temperature"], "confidence": confidence}
        return found | ({"decision": self._decision(name, decision)} if decision else {})

    def _decision(self, name: str, decision: Mapping[str, Any]) -> tuple[int, float]:
        if len(self.names) != 2 or decision["pos_label"] not in self.names:
            raise ModelError(f"{name}: its decision_threshold is for none of two labels; leave --calibrated out")
        return self.names.index(decision["pos_label"]), float(decision["threshold"])

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """``{"label": ..., "probabilities": {label: probability}}`` of each row; the label is None where its
        probability is below the option ``confidence``. With the option ``decision`` the label is its own from that
        probability on, and else the other."""
        positive, least = options.get("decision", (0, None))
        for row in answers[PROBABILITIES].tolist():
            best = max(range(len(row)), key=row.__getitem__)
            if least is not None:
                best = positive if row[positive] >= least else 1 - positive
            label = self.names[best] if row[best] >= options.get("confidence", 0.0) else None
            yield {"label": label, PROBABILITIES: dict(zip(self.names, row, strict=True))}

    def line(self, reply: Mapping[str, Any]) -> str:
        """The label and its probability."""
        shares = reply[PROBABILITIES]
        return f"{reply['label'] or 'abstain'}  {shares.get(reply['label'], max(shares.values())):.4f}"

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        """``prediction`` and ``probabilities``, or a column ``probability_<label>`` each where cells can't nest."""
        shares = reply[PROBABILITIES]
        flat = {f"probability_{name}": share for name, share in shares.items()}
        return {"prediction": reply["label"], **({PROBABILITIES: shares} if nests else flat)}

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One whole row, and every other label that may stand in one."""
        first = {"label": self.names[0], PROBABILITIES: dict.fromkeys(self.names, 1 / 3)}
        return [self.cells(first, nests), *({"prediction": name} for name in self.names[1:])]

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        """The columns of :meth:`cells`, nested, as Arrow has them."""
        import pyarrow as pa

        shares = pa.struct([(name, pa.float64()) for name in self.names])
        return [pa.field("prediction", pa.string()), pa.field(PROBABILITIES, shares)]

    def table(self, answers: Answers, truth: Labels) -> pa.Table:
        """``label``, ``prediction`` and ``probabilities`` of each row; the metadata has the names."""
        import pyarrow as pa

        names = pa.array(self.names)
        return pa.table(
            {
                "label": names.take(pa.array(truth)),
                "prediction": names.take(pa.array(predicted(answers))),
                PROBABILITIES: lists_of(answers[PROBABILITIES]),
            },
            metadata={"labels": json.dumps(list(self.names))},
        )

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Labels]:
        """The same back. Raises KeyError, TypeError or ValueError where it is no such table."""
        kind = cls(json.loads(table.schema.metadata[b"labels"]))
        places = {name: index for index, name in enumerate(kind.names)}
        truth = np.asarray([places[label] for label in table["label"].to_pylist()], dtype=np.int64)
        return kind, Answers({PROBABILITIES: numbers_in(table[PROBABILITIES], table.num_rows)}), truth

    def taken_from(self, other: Label, answers: Answers, truth: Labels) -> tuple[Answers, Labels] | None:
        """Answers with names in another order, in this one; None where the names are not the same."""
        if set(self.names) != set(other.names):
            return None
        places = [other.names.index(name) for name in self.names]
        return Answers({PROBABILITIES: answers[PROBABILITIES][:, places]}), np.argsort(places)[truth]

    def confirm(
        self, verdict: str, pair: tuple[Answers, Answers], truth: Labels, groups: Sequence[str | None] | None, seed: int
    ) -> str:
        """The verdict on accuracy, or ``no-difference`` where it rests on labels that the winner never answers.

        Accuracy weighs a label by its rows, so giving up a rare one costs nothing. Where the model that is more often
        right never answers some label that the rows hold, balanced accuracy, in which each label weighs the same, has
        to differ beyond chance in the same direction. Besides, the tuned model is not ``better`` if it answers every
        row alike, or if it never answers a rare label (less than half an even share of the rows) of which the base gets
        a row right.
        """
        if verdict == "no-difference":
            return verdict
        base, tuned = pair
        answered = predicted(tuned if verdict == "better" else base)
        unanswered = np.setdiff1d(truth, answered)
        if len(unanswered) == 0:
            return verdict
        if verdict == "better":
            rows = np.bincount(truth)
            rare = rows[unanswered] < len(truth) / np.count_nonzero(rows) / 2
            known = np.isin(unanswered, truth[right(base, truth)])
            if len(np.unique(answered)) == 1 or (rare & known).any():
                return "no-difference"
        balanced = next(one for one in self.statistics if one.name == "balanced_accuracy")
        one, other = (balanced.of(side, truth) for side in pair)
        units = resampling.clusters_of(groups, len(truth))
        resamples = resampling.resamples_for(int(units.max()) + 1)
        (p_value,) = resampling.permutation_p_values([(one, other)], units, resamples=resamples, seed=seed)
        found = verdict_of(other.of_all_rows - one.of_all_rows, p_value, balanced.less_is_better)
        return verdict if found == verdict else "no-difference"

    def describe(self, truth: Labels) -> dict[str, float]:
        """The share of each label."""
        counts = np.bincount(truth, minlength=len(self.names))
        return {name: float(count / len(truth)) for name, count in zip(self.names, counts, strict=True)}

    def said(self, truth: Labels, row: int) -> str:
        return self.names[int(truth[row])]

    def strata(self, truth: Labels) -> tuple[Labels, Sequence[str]]:
        """The classes."""
        return truth, [f"the class {name!r}" for name in self.names]

    def slices(self, truth: Labels) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """The rows of each label."""
        return ((("label", self.names[one]), truth == one) for one in np.unique(truth))

    def fit(
        self,
        fitting: tuple[Answers, Labels],
        reporting: tuple[Answers, Labels],
        asked: EvidenceSection | None = None,
    ) -> dict[str, Any]:
        """A temperature and thresholds for wanted error rates, with what they do on the rows that are reported on;
        where it is asked for, a decision threshold too."""
        found = fit_and_report(fitting[0][PROBABILITIES], fitting[1], reporting[0][PROBABILITIES], reporting[1])
        aim = None if asked is None else decisions.aim_of(asked)
        if asked is None or aim is None:
            return found
        positive = self.names.index(str(asked.pos_label))
        fit, others = (
            (apply_temperature(one[PROBABILITIES], found["temperature"])[:, positive], truth == positive)
            for one, truth in (fitting, reporting)
        )
        threshold = decisions.find(aim, *fit)
        even = predicted(reporting[0]) == positive
        return {
            **found,
            "decision_threshold": threshold and {"pos_label": asked.pos_label, "threshold": threshold},
            "decision": {"pos_label": asked.pos_label}
            | decisions.report(aim, threshold, found["fitted_rows"], even, others),
        }

    def losses(self, outputs: Column, truth: Labels) -> tuple[float, int]:
        """Cross-entropy in nats."""
        return float(probabilities.log_losses(softmax(numbers_of(outputs)), truth).sum()), len(truth)

    def uninformed_loss(self, truth: Labels) -> float:
        """Cross-entropy of always answering the shares of the labels."""
        shares = np.bincount(truth)[np.bincount(truth) > 0] / len(truth)
        return float(-(shares * np.log(shares)).sum())

    def cautions(self, split: str, answers: Answers, truth: Labels) -> list[str]:
        """Which labels of the split are never answered."""
        rows, answered = (np.bincount(one, minlength=len(self.names)) for one in (truth, predicted(answers)))
        never = np.flatnonzero((rows > 0) & (answered == 0))
        if not len(never):
            return []
        shown = class_counts.commonest(self.names, rows, never)
        return [
            f"The tuned model never answers {len(never)} of the {int((rows > 0).sum())} labels of {split}, which "
            f"{int(rows[never].sum()):,} of its {len(truth):,} rows have: {shown}; read macro-F1."
        ]

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """By the same label, and by how far a probability differs."""
        differences = np.abs(one[PROBABILITIES] - other[PROBABILITIES]).max(axis=1)
        same = float((predicted(one) == predicted(other)).mean())
        return Likeness(same, differences, "probability", "labels", tolerance=1e-4)

    def details(self, answers: Answers, truth: Labels) -> Mapping[str, Any]:
        """``labels``: precision, recall, F1 and support of each."""
        return {"labels": class_counts.by_label(counts(answers, truth), self.names)}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return [class_counts.shown(details["labels"], "label", "rows")]

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Labels", self.names


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def _confidence(name: str, thresholds: Sequence[Mapping[str, Any]], rate: float) -> float:
    """The least confidence to answer at, from the thresholds that the run found."""
    known = {one["wanted_error_rate"]: one.get("confidence") for one in thresholds}
    if rate not in known:
        rates = ", ".join(f"{one:g}" for one in known) or "none"
        raise ConfigError(f"--max-error-rate {rate:g}: {name} has thresholds for: {rates}")
    confidence = known[rate]
    if confidence is None:
        raise ConfigError(f"--max-error-rate {rate:g}: on {name}'s held-out rows no threshold reaches it; allow more")
    return float(confidence)


def lists_of(numbers: NDArray[np.float32]) -> Any:
    """Arrow's list of a row's numbers for each row, without a Python object for each number."""
    import pyarrow as pa

    rows, classes = numbers.shape
    ends = pa.array(np.arange(rows + 1, dtype=np.int64) * classes, pa.int64())
    flat = pa.array(np.ascontiguousarray(numbers).ravel(), pa.float32())
    return pa.LargeListArray.from_arrays(ends, flat).cast(pa.list_(pa.float32()))


def numbers_in(lists: Any, rows: int) -> NDArray[np.float32]:
    """The same back; shape (rows, classes). Raises ValueError where the lists are not of one length."""
    flat = np.concatenate([np.empty(0, dtype=np.float32), *(chunk.flatten().to_numpy() for chunk in lists.chunks)])
    return np.asarray(flat, dtype=np.float32).reshape(rows, -1)


if TYPE_CHECKING:
    _is_one: type[Answer] = Label
