"""Rivals that answer with tags."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.tags import SCORES, TAGS
from featherweight.evidence.baselines import SEED, LayerProbe, Part
from featherweight.evidence.baselines.labels import as_layer, fit_probe
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, Ragged

_STRENGTH = 0.1
_MOST_WORDS = 50_000  # that a probe is fitted on
_MOST_NUMBERS = 20_000_000  # of their features


class CommonestTag:
    """Each word's commonest tag in train, and the commonest of all for a word that train lacks."""

    def fit(self, train: Part, kind: Answer) -> None:
        counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
        truth = _ragged(train.examples.truth)
        for row, question in enumerate(train.examples.questions()):
            for word, tag in zip(question.spelt(), truth.row(row).tolist(), strict=True):
                counts[word][tag] += 1
        every = Counter(truth.values.tolist())
        self.known = {word: _first(tags) for word, tags in counts.items()}
        self.other = _first(every)

    def predict(self, part: Part) -> Answers:
        found = [
            [self.known.get(word, self.other) for word in question.spelt()] for question in part.examples.questions()
        ]
        tags = Ragged.of([[tag for tag, _ in row] for row in found], np.int32)
        scores = np.asarray([score for row in found for _, score in row], dtype=np.float32)
        return Answers({TAGS: tags, SCORES: Ragged(scores, tags.offsets)})


class TokenProbe(LayerProbe):
    """Logistic regression on what the untuned model's head reads of each word."""

    @classmethod
    def layer(
        cls, features: Column, truth: Column, kind: Answer, strength: float = _STRENGTH, intercept: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        read, tags = _ragged(features).values, _ragged(truth).values
        seen = np.flatnonzero(~np.isnan(read[:, 0]))
        most = min(_MOST_WORDS, _MOST_NUMBERS // read.shape[1])
        if len(seen) > most:
            seen = np.sort(np.random.default_rng(SEED).choice(seen, most, replace=False))
        probe: Any = fit_probe(read[seen], tags[seen].astype(np.int64), strength=strength, intercept=intercept)
        return as_layer(probe, read.shape[1], kind.width)


def _first(tags: Counter[int]) -> tuple[int, float]:
    """The commonest tag, the smallest of equals, and its share."""
    tag = min(tags, key=lambda one: (-tags[one], one))
    return tag, tags[tag] / sum(tags.values())


def _ragged(column: Column) -> Ragged:
    assert isinstance(column, Ragged)
    return column
