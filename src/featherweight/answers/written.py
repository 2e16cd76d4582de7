"""What measures texts that a model wrote against references: the statistics of generated answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from featherweight.answers.text import STOPPED, TEXT, TOKENS, Text, all_said
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, Ragged
from featherweight.records.words import normal_form
from featherweight.statistics import overlap
from featherweight.statistics.additive import Additive, Floats, Statistic, mean_of, of_columns

ANSWER, EXACT = "answer_match", "exact_match"
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
CHRF, BLEU, REPEATED = "chrf", "bleu", "repeated"


def _mean(column: str) -> Callable[[Answers, Any], Additive]:
    return lambda answers, truth: mean_of(answers[column])


def _of_counts(column: str, value: Callable[[Floats], Floats]) -> Callable[[Answers, Any], Additive]:
    return lambda answers, truth: of_columns([*answers[column].T], value)


# In the order of tables: quality first. Names are those of ``evaluate`` and of the example scripts.
QUALITY: Mapping[str, Statistic] = {
    one.name: one
    for one in (
        Statistic(ANSWER, "answer match", _mean(ANSWER)),
        Statistic(EXACT, "exact match", _mean(EXACT), hub="exact_match"),
        Statistic("rouge1", "ROUGE-1", _mean("rouge1"), hub="rouge"),
        Statistic("rouge2", "ROUGE-2", _mean("rouge2"), hub="rouge"),
        Statistic("rougeL", "ROUGE-L", _mean("rougeL"), hub="rouge"),
        Statistic("rougeLsum", "ROUGE-Lsum", _mean("rougeLsum"), hub="rouge"),
        Statistic(BLEU, "BLEU", _of_counts(BLEU, overlap.bleu), hub="bleu"),
        Statistic(CHRF, "chrF", _of_counts(CHRF, overlap.chrf), hub="chrf"),
    )
}
# What texts are like, which is neither good nor bad.
MANNER: tuple[Statistic, ...] = (
    Statistic("gen_len", "tokens", _mean(TOKENS)),
    Statistic("stopped", "ended by itself", _mean(STOPPED)),
    Statistic(REPEATED, "repeated 4-grams", _mean(REPEATED)),
)


def measured(answers: Answers, references: Ragged, pattern: str | None = None) -> Answers:
    """What was written, with a column for each thing that the statistics are about.

    Args:
        references: UTF-8, one a row.
        pattern: a regular expression that takes the answer out of text and reference.
    """
    texts, wanted = all_said(answers[TEXT]), all_said(references)
    found: dict[str, Column] = {
        EXACT: overlap.matches(texts, wanted),
        **overlap.rouge(texts, wanted),
        CHRF: overlap.chrf_counts(texts, wanted),
        BLEU: overlap.bleu_counts(texts, wanted),
        REPEATED: overlap.repeated(texts),
    }
    if pattern is not None:
        found[ANSWER] = overlap.answers_match(texts, wanted, re.compile(pattern))
    return Answers({**answers.columns, **found})


def in_train(train: Iterable[str], texts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """By name, which share of some texts stands in train to the word, but for case, white space and punctuation.

    Args:
        train: read once, and kept nowhere.
    """
    plain = {name: [normal_form(text) for text in some] for name, some in texts.items()}
    wanted = {text for some in plain.values() for text in some if text}
    found = {text for text in map(normal_form, train) if text in wanted}
    return {name: sum(text in found for text in some) / max(len(some), 1) for name, some in plain.items()}


class Written(Text):
    """Answers that were written, as a kind of their own: its statistics are of texts and not of likelihoods.

    Args:
        names: which of :data:`QUALITY` measure them, the headline first.
    """

    name: ClassVar[str] = "written-text"

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.statistics = tuple(QUALITY[name] for name in names)  # type: ignore[misc]
