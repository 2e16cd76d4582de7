"""Preference: of two answers to a prompt, how likely a model makes each, and which it prefers.

What a model prefers is told by its implicit reward (Rafailov et al., "Direct Preference Optimization", 2023): beta
times by how much an answer became likelier than it was before tuning. The untuned model's reward is 0 whatever the
answer, so pairs of equal rewards are told by which answer is the likelier a token; and what is equal even then is not
preferred.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, Check, Described
from featherweight.answers.facts import is_number
from featherweight.answers.pair_losses import LENGTH, LOG_PROBABILITY, LOSSES, REFERENCE, PairLoss
from featherweight.answers.text import TEXT, Text
from featherweight.records.answers import Answers, Likeness
from featherweight.records.questions import Question
from featherweight.records.rows import Column, Ragged
from featherweight.statistics import resampling
from featherweight.statistics.additive import Additive, Floats, Statistic, mean_of
from featherweight.statistics.proportions import CONFIDENCE, wilson

if TYPE_CHECKING:
    import pyarrow as pa

REWARDS, LOGPS, LENGTHS = "rewards", "logps", "lengths"  # of the chosen and the rejected answer; shape (pairs, 2)
SIDES = ("chosen", "rejected")
_BETWEEN = 0xFF  # a byte that UTF-8 has not
_COIN = 0.5
_ALL_BY_LENGTH, _FEWEST = 0.9, 20  # of pairs: a share of them that only length explains, and how many can tell
_ROUNDING = 1e-4  # nats a token
_UNKNOWN = 30.0  # nats: as of texts, more than any guess costs


def preferred(answers: Answers) -> NDArray[np.bool_]:
    """Of which pairs the model prefers the chosen answer; shape (pairs,)."""
    margin = _margin(answers)
    return np.asarray((margin > 0) | ((margin == 0) & _likelier(answers)))


def _likelier(answers: Answers) -> NDArray[np.bool_]:
    """Of which pairs the chosen answer is the likelier one a token."""
    mean = answers[LOGPS] / np.maximum(answers[LENGTHS], 1)
    return np.asarray(mean[:, 0] > mean[:, 1])


def _margin(answers: Answers) -> Floats:
    return np.asarray(answers[REWARDS][:, 0] - answers[REWARDS][:, 1])


def _of_pairs(value: Callable[[Answers], NDArray[Any]]) -> Callable[[Answers, Any], Additive]:
    return lambda answers, truth: mean_of(value(answers))


def _of_side(column: str, side: int) -> Callable[[Answers, Any], Additive]:
    return lambda answers, truth: mean_of(answers[column][:, side])


class Preference(Text):
    """Answers of a model that writes text, and that was tuned to prefer one text to another.

    Args:
        chat, template: as of :class:`Text`.
        loss: what training lowers, and by which rewards are told.
    """

    name: ClassVar[str] = "preference"
    baselines: ClassVar[tuple[str, ...]] = ("longer-answer",)
    checks: ClassVar[tuple[str, ...]] = ("twins", "shared-groups", "preferences")
    exhibits: ClassVar[tuple[str, ...]] = (
        "written-answers",
        "heeding",
        "forgetting",
        "where",
        "preference-examples",
    )
    described: ClassVar[Described] = Described("pairs", "Pairs", "answers", "{:.4g}", shares=False)
    known: ClassVar[Mapping[str, Check]] = {
        **{key: Text.known[key] for key in ("chat", "chat_template")},
        "loss_type": (lambda value: value in LOSSES, f"one of {', '.join(LOSSES)}"),
        "beta": (lambda value: is_number(value) and value > 0, "a number over 0"),
        "label_smoothing": (lambda value: is_number(value) and 0 <= value < _COIN, "a share below a half"),
    }
    reply_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": [],
        "properties": {
            **{key: Text.reply_schema["properties"][key] for key in ("text", "finish_reason", "prompt_tokens")},
            "tokens": {"type": "integer", "description": "of the text"},
            "preferred": {"type": ["string", "null"], "enum": [*SIDES, None], "description": "of two that were given"},
            **{
                name: {
                    "type": "object",
                    "required": list(SIDES),
                    "properties": {side: {"type": kind} for side in SIDES},
                }
                for name, kind in ((REWARDS, "number"), (LOGPS, "number"), (LENGTHS, "integer"))
            },
        },
    }
    reservation: ClassVar[str] = "is not told apart from tossing a coin"
    knows_nothing: ClassVar[tuple[str, str]] = ("longer-answer", "preferring the longer answer")
    statistics: ClassVar[tuple[Statistic, ...]] = (
        Statistic("rewards/accuracies", "preference accuracy", _of_pairs(preferred), hub="accuracy"),
        Statistic("rewards/margins", "reward margin", _of_pairs(_margin)),
        Statistic("rewards/chosen", "reward of the chosen", _of_side(REWARDS, 0)),
        Statistic("rewards/rejected", "reward of the rejected", _of_side(REWARDS, 1), less_is_better=True),
        Statistic("logps/chosen", "log-probability of the chosen", _of_side(LOGPS, 0)),
        Statistic("logps/rejected", "log-probability of the rejected", _of_side(LOGPS, 1), less_is_better=True),
        Statistic("logps/accuracies", "chosen likelier a token", _of_pairs(_likelier)),
    )

    def __init__(self, chat: bool | None = None, template: str | None = None, loss: PairLoss | None = None) -> None:
        super().__init__(chat, template)
        self.loss = loss or PairLoss()

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        known = {one.name: facts[one.name] for one in fields(PairLoss) if one.name in facts}
        return cls(facts.get("chat"), facts.get("chat_template"), PairLoss(**known))

    def facts(self) -> dict[str, Any]:
        return super().facts() | asdict(self.loss)

    @property
    def width(self) -> int:
        """Of the outputs, of which each answer has one."""
        return 3 if self.loss.refers else 2

    def of_outputs(self, outputs: Column, options: Mapping[str, Any]) -> Answers:
        """From the log-probability of each answer, its tokens, and the reference's log-probability; a pair has two
        entries. Where there is no reference the model is its own."""
        assert isinstance(outputs, Ragged)
        values = outputs.values.astype(np.float64).reshape(len(outputs), 2, outputs.values.shape[1])
        logps, lengths = values[..., LOG_PROBABILITY], values[..., LENGTH]
        reference = values[..., REFERENCE] if values.shape[2] > REFERENCE else logps
        rewards = self.loss.rewards(logps, lengths, reference)
        return Answers({REWARDS: rewards, LOGPS: logps, LENGTHS: np.rint(lengths).astype(np.int64)})

    def reply(
        self, answers: Answers, asked: Sequence[Question], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Of what was written as of :class:`Text`; of pairs ``preferred``, null where neither is, with the ``rewards``,
        ``logps`` and ``lengths`` (in tokens) of both."""
        if TEXT in answers.columns:
            yield from super().reply(answers, asked, options)
            return
        other = Answers({name: answers[name][:, ::-1] for name in answers.columns})
        for row, (first, second) in enumerate(zip(preferred(answers), preferred(other), strict=True)):
            told = SIDES[0] if first else SIDES[1] if second else None
            known = (REWARDS, LOGPS, LENGTHS)
            yield {"preferred": told} | {
                name: dict(zip(SIDES, answers[name][row].tolist(), strict=True)) for name in known
            }

    def line(self, reply: Mapping[str, Any]) -> str:
        if "text" in reply:
            return super().line(reply)
        rewards = ", ".join(f"{side} {reply[REWARDS][side]:+.4f}" for side in SIDES)
        return f"{reply['preferred'] or 'neither'}  (rewards: {rewards})"

    def table(self, answers: Answers, truth: Ragged) -> pa.Table:
        """``chosen`` and ``rejected``, the texts, and what is known of each."""
        import pyarrow as pa

        if TEXT in answers.columns:
            return super().table(answers, truth)
        texts = [both(truth, row) for row in range(len(truth))]
        columns = {side: pa.array([one[place] for one in texts], pa.large_string()) for place, side in enumerate(SIDES)}
        for name in answers.columns:
            columns |= {f"{name}/{side}": pa.array(answers[name][:, place]) for place, side in enumerate(SIDES)}
        return pa.table(columns, metadata={"facts": json.dumps(self.facts())})

    @classmethod
    def of_table(cls, table: pa.Table) -> tuple[Self, Answers, Ragged]:
        if TEXT in table.column_names:
            return super().of_table(table)
        kind = cls.of_facts(json.loads(table.schema.metadata[b"facts"]))
        truth = of_both(zip(*(table[side].to_pylist() for side in SIDES), strict=True))
        found: dict[str, Column] = {
            name: np.stack([table[f"{name}/{side}"].to_numpy() for side in SIDES], axis=1)
            for name in (REWARDS, LOGPS, LENGTHS)
        }
        return kind, Answers(found), truth

    def confirm(
        self,
        verdict: str,
        pair: tuple[Answers, Answers],
        truth: Ragged,
        groups: Sequence[str | None] | None,
        seed: int,
    ) -> str:
        """The verdict, but for a tuned model that is ``better`` and yet not right more often than a coin beyond chance.
        An untuned model's likelihood may be right less often than that, as where people prefer long answers."""
        if verdict != "better":
            return verdict
        right = mean_of(preferred(pair[1]))
        assert right.outcomes is not None
        if groups is None:
            low, _ = wilson(int(right.outcomes.sum()), right.rows, CONFIDENCE)
        else:
            nothing, units = mean_of(np.zeros(right.rows)), resampling.clusters_of(groups, right.rows)
            resamples = resampling.resamples_for(int(units.max()) + 1)
            (drawn,) = resampling.bootstrap([(nothing, right)], units, resamples=resamples, seed=seed)
            low, _ = resampling.interval(drawn, CONFIDENCE)
        return verdict if low > _COIN else "no-difference"

    def describe(self, truth: Ragged) -> dict[str, float]:
        """How long the answers are, in characters, and how often the chosen one is the longer."""
        lengths = characters(truth)
        return {
            "chosen, mean characters": float(lengths[:, 0].mean()),
            "rejected, mean characters": float(lengths[:, 1].mean()),
            "chosen is longer": float((lengths[:, 0] > lengths[:, 1]).mean()),
            "chosen is shorter": float((lengths[:, 0] < lengths[:, 1]).mean()),
        }

    def said(self, truth: Ragged, row: int) -> str:
        """The chosen answer."""
        return both(truth, row)[0]

    def strata(self, truth: Ragged) -> tuple[NDArray[np.int64], Sequence[str]]:
        """All are of one part."""
        return np.zeros(len(truth), dtype=np.int64), ["the pairs"]

    def slices(self, truth: Ragged) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
        """By which answer is the longer one: what only knows length is wrong of nearly all pairs of one of them."""
        lengths = characters(truth)
        for sign, said_of in ((1, "longer"), (-1, "shorter"), (0, "as long as the rejected")):
            chosen = np.sign(lengths[:, 0] - lengths[:, 1]) == sign
            if chosen.any():
                yield ("chosen answer", said_of), chosen

    def losses(self, outputs: Column, truth: Ragged) -> tuple[float, int]:
        assert isinstance(outputs, Ragged)
        values = outputs.values.astype(np.float64)
        if self.loss.refers and values.shape[1] <= REFERENCE:
            values = np.concatenate([values, values[:, : LOG_PROBABILITY + 1]], axis=1)
        return float(self.loss.of(values, np).sum()), len(outputs)

    def uninformed_loss(self, truth: Ragged) -> float:
        """Of the untuned model, whose rewards are all 0; of what is held to no model nobody knows."""
        return float(self.loss.of(np.zeros((2, 3)), np)[0]) if self.loss.refers else _UNKNOWN

    def cautions(self, split: str, answers: Answers, truth: Ragged) -> list[str]:
        """Whether the model tells answers by their length."""
        lengths = characters(truth)
        longer = np.sign(lengths[:, 0] - lengths[:, 1])
        tells = longer != 0
        if tells.sum() < _FEWEST:
            return []
        share = float(((longer > 0) == preferred(answers))[tells].mean())
        if 1 - _ALL_BY_LENGTH < share < _ALL_BY_LENGTH:
            return []
        which, of = ("longer", share) if share > _COIN else ("shorter", 1 - share)
        return [
            f"The tuned model prefers the {which} answer in {of:.1%} of the {split} pairs whose answers differ in "
            "length, so it may have learned nothing but length; see the slices by which answer is the longer one."
        ]

    def likeness(self, one: Answers, other: Answers) -> Likeness:
        """By how many nats a token the answers differ, and which are preferred, where no rounding could turn that; of
        what was written, whether it is the same."""
        if TEXT in one.columns:
            return super().likeness(one, other)
        differences = np.abs(one[LOGPS] - other[LOGPS]) / np.maximum(one[LENGTHS], 1)
        rounding = self.loss.beta * _ROUNDING * (one[LENGTHS].sum(axis=1) if self.loss.refers else 2)
        same = (preferred(one) == preferred(other)) | (np.abs(_margin(one) - _margin(other)) <= rounding)
        largest, what = differences.max(axis=1, initial=0.0), "token's log-probability"
        return Likeness(float(same.mean()), largest, what, "preferences", tolerance=_ROUNDING)

    def introduction(self) -> tuple[str, Sequence[str]]:
        return "Text", ["the assistant's next message" if self.chat else "how a text goes on", "which of two is better"]


def of_both(pairs: Any) -> Ragged:
    """The chosen and the rejected text of each pair, as a truth."""
    encoded = [bytes([_BETWEEN]).join(text.encode() for text in pair) for pair in pairs]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return Ragged(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)


def both(truth: Column, row: int) -> tuple[str, str]:
    """The chosen text of a pair, and the rejected one."""
    assert isinstance(truth, Ragged)
    chosen, _, rejected = truth.row(row).tobytes().partition(bytes([_BETWEEN]))
    return chosen.decode(), rejected.decode()


def characters(truth: Column) -> NDArray[np.int64]:
    """Of each pair's texts; shape (pairs, 2)."""
    assert isinstance(truth, Ragged)
    begun = np.concatenate([[0], np.cumsum(((truth.values & 0xC0) != 0x80) & (truth.values != _BETWEEN))])
    edges = np.stack([truth.offsets[:-1], np.flatnonzero(truth.values == _BETWEEN), truth.offsets[1:]], axis=1)
    return np.asarray(np.diff(begun[edges], axis=1), dtype=np.int64)


if TYPE_CHECKING:
    _is_one: type[Answer] = Preference
