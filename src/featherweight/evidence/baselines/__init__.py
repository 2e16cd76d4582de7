"""Cheap rivals that tuning has to beat, a file for each kind of answer. A baseline is one class and one line in the
``BASELINES`` table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.evidence.words import LONGEST_TEXT
from featherweight.records.answers import Answers
from featherweight.records.outcome import Scatter
from featherweight.records.rows import Column, Examples, Ragged
from featherweight.registry import BASELINES
from featherweight.statistics.additive import Statistic

_MOST_ROWS = 100_000  # a word model is as good as it gets long before, and its memory grows with the rows,
_MOST_CHARACTERS = 50_000_000  # and with the text
MOST_PROBE_ROWS = 5_000  # each costs a pass through the model
SEED = 0
DRAWS = 10


@dataclass(frozen=True)
class Part:
    """One split as a baseline sees it.

    Attributes:
        features: what the untuned model's head reads of the rows asked for; float32, shape (rows, hidden size), or
            ragged with one for each read. Each call runs the model.
        embeddings: the mean of the untuned model's last hidden states over each row's tokens, of rows such as
            ``examples`` or some of them, or of their texts alone; float32, shape (rows, hidden size). Likewise.
        targets: what the loss is about: the truth, or of texts that are continued the tokens that are learned.
        with_examples: the untuned model's answers with examples of train in the prompt, where rows are dialogues.
    """

    examples: Examples
    features: Callable[[NDArray[np.int64]], Column]
    embeddings: Callable[[Examples], NDArray[np.float32]]
    targets: Column | None = None
    with_examples: Callable[[], Answers] | None = None

    def all_features(self) -> Column:
        return self.features(np.arange(len(self.examples)))


class Baseline(Protocol):
    """Fits on train and answers any split. It may have two things besides: see :func:`applies` and
    :func:`compared_by`."""

    def fit(self, train: Part, kind: Answer) -> None: ...

    def predict(self, part: Part) -> Answers: ...


def applies(name: str, train: Examples, kind: Answer) -> bool:
    """Whether a baseline is a rival on such data, where nobody names the ones that are to be fitted: what its static
    ``applies(train, kind)`` says, and always where it has none."""
    says: Callable[[Examples, Answer], bool] | None = getattr(BASELINES[name], "applies", None)
    return says is None or says(train, kind)


def compared_by(name: str) -> tuple[str, ...]:
    """By which statistics, besides the headline, the tuned model is compared with a baseline: its ``compared_by``."""
    return tuple(getattr(BASELINES[name], "compared_by", ()))


@runtime_checkable
class Redrawn(Protocol):
    """A baseline so cheap that it can say how figures scatter over draws of train."""

    def redrawn(self, draws: int) -> Iterator[Answers]:
        """Its answers to the rows that it was asked last, had it been fitted on other draws of rows like train's."""
        ...


def scatter(baseline: Baseline, statistic: Statistic, truth: Any) -> Scatter | None:
    """How a statistic of a baseline scatters over ten draws of train; None where it can't be had cheaply."""
    if not isinstance(baseline, Redrawn):
        return None
    found = [statistic.of(answers, truth).of_all_rows for answers in baseline.redrawn(DRAWS)]
    return {
        "draws": DRAWS,
        "lowest": min(found),
        "highest": max(found),
        "standard_deviation": float(np.std(found, ddof=1)),
    }


class Probe(Baseline, Protocol):
    """A baseline on what the untuned model's head reads, linear, so that the output layer of a head can begin at it."""

    @staticmethod
    def rows(train: Examples, kind: Answer) -> NDArray[np.int64]:
        """The rows of train that it is fitted on."""
        ...

    @classmethod
    def layer(
        cls, features: Column, truth: Column, kind: Answer, strength: float = ..., intercept: bool = ...
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights, shape (width, hidden size), and biases, (width,), of a linear layer that answers as the fitted probe
        does.

        Args:
            strength: the inverse of how much it is regularised.
            intercept: False for a layer that has no biases.
        """
        ...


def through(features: Column, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Column:
    """What a linear layer gives for features."""
    if isinstance(features, Ragged):
        return Ragged(features.values @ weight.T + bias, features.offsets)
    return np.asarray(features @ weight.T + bias)


class LayerProbe(ABC):
    """A probe that answers through its layer. It costs one pass over train, of which it takes at most 5,000 rows, drawn
    by a fixed seed."""

    def fit(self, train: Part, kind: Answer) -> None:
        self._kind = kind
        rows = self.rows(train.examples, kind)
        self._weight, self._bias = self.layer(train.features(rows), train.examples.truth[rows], kind)

    def predict(self, part: Part) -> Answers:
        return self._kind.of_outputs(through(part.all_features(), self._weight, self._bias), {})

    @staticmethod
    def rows(train: Examples, kind: Answer) -> NDArray[np.int64]:
        return sample(len(train), MOST_PROBE_ROWS)

    @classmethod
    @abstractmethod
    def layer(
        cls, features: Column, truth: Column, kind: Answer, strength: float = ..., intercept: bool = ...
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :class:`Probe`."""


def readable(examples: Examples, most: int = _MOST_ROWS) -> NDArray[np.int64]:
    """The rows that a word model is fitted on: all, or as many as its memory and time allow."""
    rows = sample(len(examples), min(_MOST_ROWS, most))
    characters = sum(min(len(text), LONGEST_TEXT) for text in examples.select(rows).all_texts())
    return rows[sample(len(rows), len(rows) * _MOST_CHARACTERS // max(characters, 1))]


def sample(rows: int, most: int) -> NDArray[np.int64]:
    """So many of the rows, always the same; ascending."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(SEED).choice(rows, most, replace=False))
