"""Any of several labels, or none: what is kept is a probability for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, Check, Described, class_counts
from featherweight.answers.class_counts import ClassCounts
from featherweight.answers.facts import are_names, is_number
from featherweight.answers.label import PROBABILITIES, lists_of, numbers_in
from featherweight.answers.thresholds import fit_and_report
from featherweight.errors import ConfigError, ModelError
from featherweight.records.answers import Answers, Likeness
from featherweight.records.parts import Brief
from featherweight.records.questions import Question
from featherweight.records.rows import Column, numbers_of
from featherweight.statistics import ranking
from featherweight.statistics.additive import Additive, Floats, Statistic, mean_of, of_columns, ratio

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.recipe.sections import EvidenceSection

EVEN = 0.5  # the probability from which a label is answered, where none was fitted
NONE = "(none)"
_LEAST_IN_STRATUM = 5
_OFTEN_EMPTY = 0.5  # so many more rows without an answer than without a label are worth a word
_TINY = 1e-12

Sets = NDArray[np.bool_]  # shape (rows, labels)


def decided(answers: Answers) -> Sets:
    """Of each row which labels are answered."""
    return np.asarray(answers[PROBABILITIES] >= EVEN)


def right(answers: Answers, truth: Sets) -> NDArray[np.bool_]:
    """Of which rows the answered labels are exactly the true ones; shape (rows,)."""
    return np.asarray((decided(answers) == truth).all(axis=1))


def probability_of_truth(answers: Answers, truth: Sets) -> Floats:
    """Of each row the probability of exactly its labels, were they independent; shape (rows,)."""
    logs = np.log(np.maximum(np.where(truth, answers[PROBABILITIES], 1 - answers[PROBABILITIES]), _TINY))
    return np.asarray(np.exp(logs.sum(axis=1, dtype=np.float64)))


def counts(answers: Answers, truth: Sets) -> ClassCounts:
    """How often each label is true, answered, and both."""
    found = decided(answers)
    return ClassCounts(*(one.sum(axis=0, dtype=np.float64) for one in (truth, found, truth & found)))


def micro_f1(found: Sets, truth: Sets) -> Additive:
    """Of all pairs of a row and a label: twice those answered and true, over those answered and those true."""
    columns = [one.sum(axis=1, dtype=np.float64) for one in (found & truth, found, truth)]
    return of_columns(columns, lambda sums: ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2]))


def macro_f1(found: Sets, truth: Sets) -> Additive:
    """Mean F1 of the labels that are true or answered anywhere."""
    cells = [np.nonzero(one) for one in (truth, found, truth & found)]
    return class_counts.of_cells(class_counts.macro_f1, cells, *truth.shape)


def subset_accuracy(found: Sets, truth: Sets) -> Additive:
    """The share of rows of which every label is right."""
    return mean_of((found == truth).all(axis=1))


def _sample_f1(found: Sets, truth: Sets) -> Additive:
    both, one, other = ((side.sum(axis=1, dtype=np.float64)) for side in (found & truth, found, truth))
    return mean_of(np.where(one + other > 0, ratio(2 * both, one + other), 1.0))


def _of_sets(of: Callable[[Sets, Sets], Additive]) -> Callable[[Answers, Sets], Additive]:
    return lambda answers, truth: of(decided(answers), truth)


def _of_ranks(of: Callable[[Any, NDArray[np.bool_]], Floats]) -> Callable[[Answers, Sets], Additive]:
    """The mean over the labels that some rows have and not all."""

    def make(answers: Answers, truth: Sets) -> Additive:
        some = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
        found = np.zeros(len(truth))
        for label in some:
            found += of(answers[PROBABILITIES][:, label], truth[:, label]) / len(some)
        return mean_of(found)

    return make


def _are_thresholds(value: Any) -> bool:
    return isinstance(value, dict) and all(is_number(one) for one in value.values())


class LabelSets:
    """Answers of a classifier that gives each label a yes or a no.

    Args:
        names: of the labels, in the order of the probabilities.
    """

    name: ClassVar[str] = "labels"
    best: ClassVar[str] = "eval_loss"
    fewest_steps: ClassVar[int] = 300
    baselines: ClassVar[tuple[str, ...]] = ("label-shares", "tfidf-one-vs-rest", "one-vs-rest-probe")
    probe: ClassVar[str] = "one-vs-rest-probe"
    checks: ClassVar[tuple[str, ...]] = ("unknown-labels", "twins", "shared-groups", "conflicting-labels")
    exhibits: ClassVar[tuple[str, ...]] = ("each-label", "thresholds", "co-occurrence", "where", "label-set-examples")
    described: ClassVar[Described] = Described("label_shares", "Rows with each label", "label", "{:.2%}", shares=False)
    known: ClassVar[Mapping[str, Check]] = {
        "labels": (are_names, "a list of names, each once"),
        "thresholds": (_are_thresholds, "a table of a number for each label"),
    }
    unfitted: ClassVar[Mapping[str, Any]] = {"thresholds": {}}
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["labels", "probabilities"],
        "properties": {
            "labels": {"type": "array", "items": {"type": "string"}, "description": "empty where none fits"},
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
    reservation: ClassVar[str] = ""
    knows_nothing: ClassVar[tuple[str, str]] = ("label-shares", "always answering each label's share")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic("f1_micro", "micro-F1", _of_sets(micro_f1), hub="f1"),
        Statistic("f1_macro", "macro-F1", _of_sets(macro_f1), hub="f1", minds_rare=True),
        Statistic("f1_samples", "F1 of a row", _of_sets(_sample_f1), hub="f1"),
        Statistic("subset_accuracy", "subset accuracy", _of_sets(subset_accuracy), hub="accuracy"),
        Statistic(
            "hamming_loss",
            "Hamming loss",
            _of_sets(lambda found, truth: mean_of((found != truth).mean(axis=1))),
            less_is_better=True,
        ),
        Statistic("roc_auc", "ROC AUC", _of_ranks(ranking.roc_auc), in_evaluations=False),
        Statistic("average_precision", "average precision", _of_ranks(ranking.average_precision), in_evaluations=False),
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
        """The logistic function of each logit."""
        halves = numbers_of(outputs).astype(np.float32) / 2
        return Answers({PROBABILITIES: (1 + np.tanh(halves)) / 2})  # which no logit makes overflow

    def options(self, name: str, fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """``thresholds``, of each label, for ``calibrated``.

        Raises:
            ModelError: none were fitted.
            ConfigError: sets of labels have no error rate.
        """
        if asked.get("max_error_rate") is not None:
            raise ConfigError(f"--max-error-rate: {name} answers each label by itself; --calibrated has its threshold")
        if not asked.get("calibrated"):
            return {}
        known = fitted.get("thresholds") or {}
        if set(known) != set(self.names):
            raise ModelError(f"{name}: no thresholds were fitted for it; leave --calibrated out")
        return {"thresholds": [known[one] for one in self.names]}

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """``{"labels": [...], "probabilities": {label: probability}}`` of each row, the surest label first."""
        least = options.get("thresholds") or [EVEN] * len(self.names)
        for row in answers[PROBABILITIES].tolist():
            shares = dict(zip(self.names, row, strict=True))
            found = [name for (name, share), one in zip(shares.items(), least, strict=True) if share >= one]
            yield {"labels": sorted(found, key=lambda name: -shares[name]), PROBABILITIES: shares}

    def line(self, reply: Mapping[str, Any]) -> str:
        """The labels, each with its probability."""
        return ", ".join(f"{name} {reply[PROBABILITIES][name]:.4f}" for name in reply["labels"]) or NONE

    def cells(self, reply: Mapping[str, Any], nests: bool) -> dict[str, Any]:
        """``prediction``, a list, and ``probabilities``; where cells can't nest the list is JSON, as ``data.label``
        takes it, and each label has a column ``probability_<label>``."""
        shares, found = reply[PROBABILITIES], list(reply["labels"])
        if nests:
            return {"prediction": found, PROBABILITIES: shares}
        flat = {f"probability_{name}": share for name, share in shares.items()}
        return {"prediction": json.dumps(found, ensure_ascii=False), **flat}

    def possible_cells(self, nests: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One whole row, with every label."""
        return [self.cells({"labels": self.names, PROBABILITIES: dict.fromkeys(self.names, 1 / 3)}, nests)]

    def fields(self, options: Mapping[str, Any]) -> list[pa.Field]:
        import pyarrow as pa

        shares = pa.struct([(name, pa.float64()) for name in self.names])
        return [pa.field("prediction", pa.list_(pa.string())), pa.field(PROBABILITIES, shares)]

    def table(self, answers: Answers, truth: Sets) -> pa.Table:
        """``label`` and ``prediction``, a list each, and ``probabilities`` of each row; the metadata has the names."""
        import pyarrow as pa

        return pa.table(
            {
                "label": self._names_in(truth),
                "prediction": self._names_in(decided(answers)),
                PROBABILITIES: lists_of(answers[PROBABILITIES]),
            },
            metadata={"labels": json.dumps(list(self.names))},
        )

    def _names_in(self, sets: Sets) -> Any:
        import pyarrow as pa

        rows, labels = np.nonzero(sets)
        ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(sets)))])
        flat = pa.array(self.names).take(pa.array(labels))
        return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), flat).cast(pa.list_(pa.string()))

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Sets]:
        """The same back. Raises KeyError, TypeError or ValueError where it is no such table."""
        kind = cls(json.loads(table.schema.metadata[b"labels"]))
        places = {name: index for index, name in enumerate(kind.names)}
        truth = np.zeros((table.num_rows, len(places)), dtype=bool)
        for row, names in enumerate(table["label"].to_pylist()):
            truth[row, [places[name] for name in names]] = True
        return kind, Answers({PROBABILITIES: numbers_in(table[PROBABILITIES], table.num_rows)}), truth

    def taken_from(self, other: LabelSets, answers: Answers, truth: Sets) -> tuple[Answers, Sets] | None:
        """Answers with names in another order, in this one; None where the names are not the same."""
        if set(self.names) != set(other.names):
            return None
        places = [other.names.index(name) for name in self.names]
        return Answers({PROBABILITIES: answers[PROBABILITIES][:, places]}), truth[:, places]

    def confirm(
        self, verdict: str, pair: tuple[Answers, Answers], truth: Sets, groups: Sequence[str | None] | None, seed: int
    ) -> str:
        return verdict

    def describe(self, truth: Sets) -> dict[str, float]:
        """The share of rows with each label; they add up to the labels of a row."""
        return dict(zip(self.names, truth.mean(axis=0).tolist(), strict=True))

    def said(self, truth: Sets, row: int) -> str:
        return self.named(truth[row])

    def named(self, labels: NDArray[np.bool_]) -> str:
        """A set of labels, in words."""
        return ", ".join(self.names[one] for one in np.flatnonzero(labels)) or NONE

    def strata(self, truth: Sets) -> tuple[NDArray[np.int64], Sequence[str]]:
        """The rows by the rarest of their labels; labels of few rows count with the rows that have none."""
        commonest_first = np.argsort(-truth.sum(axis=0), kind="stable")
        ranked = truth[:, commonest_first]
        last = ranked.shape[1] - np.argmax(ranked[:, ::-1], axis=1)
        codes = np.where(ranked.any(axis=1), last, 0).astype(np.int64)
        rows = np.bincount(codes, minlength=len(self.names) + 1)
        codes[rows[codes] < _LEAST_IN_STRATUM] = 0
        if 0 < (codes == 0).sum() < _LEAST_IN_STRATUM:
            codes[codes == 0] = codes.max()
        return codes, ["rows without labels", *(f"rows with {self.names[one]!r}" for one in commonest_first)]

    def slices(self, truth: Sets) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """The rows by how many labels they have; of those that have none there is no micro-F1."""
        number = truth.sum(axis=1)
        for few in (1, 2):
            if (chosen := number == few).any():
                yield ("labels", str(few)), chosen
        if (many := number > 2).any():
            yield ("labels", "3 or more"), many

    def fit(
        self,
        fitting: tuple[Answers, Sets],
        reporting: tuple[Answers, Sets],
        asked: EvidenceSection | None = None,
    ) -> dict[str, Any]:
        """A threshold of each label, with what they do on the rows that are reported on."""
        measured = {"f1_micro": micro_f1, "f1_macro": macro_f1, "subset_accuracy": subset_accuracy}
        one, other = ((answers[PROBABILITIES], truth) for answers, truth in (fitting, reporting))
        return fit_and_report(self.names, one, other, measured, EVEN)

    def losses(self, outputs: Column, truth: Sets) -> tuple[float, int]:
        """Binary cross-entropy in nats, of each row the mean over the labels."""
        logits = numbers_of(outputs).astype(np.float64)
        each = np.maximum(logits, 0) - logits * truth + np.log1p(np.exp(-np.abs(logits)))
        return float(each.mean(axis=1).sum()), len(truth)

    def uninformed_loss(self, truth: Sets) -> float:
        """Binary cross-entropy of always answering the shares of the labels."""
        shares = np.stack([truth.mean(axis=0), 1 - truth.mean(axis=0)])
        return float(-(shares * np.log(np.maximum(shares, _TINY))).sum(axis=0).mean())

    def cautions(self, split: str, answers: Answers, truth: Sets) -> list[str]:
        """Which labels of the split are never answered, and whether many rows get no answer at all."""
        rows, answered = truth.sum(axis=0), decided(answers).sum(axis=0)
        never = np.flatnonzero((rows > 0) & (answered == 0))
        lines = []
        if len(never):
            shown = class_counts.commonest(self.names, rows, never)
            lines.append(
                f"The tuned model never answers {len(never)} of the {int((rows > 0).sum())} labels of {split} at the "
                f"even threshold: {shown}; --calibrated has a threshold for each, and read macro-F1."
            )
        empty = float((~decided(answers).any(axis=1)).mean()), float((~truth.any(axis=1)).mean())
        if empty[0] - empty[1] > _OFTEN_EMPTY:
            lines.append(
                f"The tuned model answers no label at all for {empty[0]:.1%} of the rows of {split}, of which "
                f"{empty[1]:.1%} have none; --calibrated answers more."
            )
        return lines

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """By the same set of labels, and by how far a probability differs."""
        differences = np.abs(one[PROBABILITIES] - other[PROBABILITIES]).max(axis=1)
        same = float((decided(one) == decided(other)).all(axis=1).mean())
        return Likeness(same, differences, "probability", "label sets", tolerance=1e-4)

    def details(self, answers: Answers, truth: Sets) -> Mapping[str, Any]:
        """``labels``: precision, recall, F1 and support of each."""
        return {"labels": class_counts.by_label(counts(answers, truth), self.names)}

    def briefs(self, details: Mapping[str, Any]) -> list[Brief]:
        return [class_counts.shown(details["labels"], "label", "rows")]

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Labels, any number of which may fit", self.names


if TYPE_CHECKING:
    _is_one: type[Answer] = LabelSets
