"""Rivals that answer with a number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.number import VALUE, Number
from featherweight.evidence.baselines import LayerProbe, Part, readable
from featherweight.evidence.words import Words
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, numbers_of

_MOST_WORDS = 2_000_000
_STRENGTH = 0.01  # the inverse of the penalty of the probe's weights


class Mean:
    """Always answers the mean of train."""

    def fit(self, train: Part, kind: Answer) -> None:
        self.mean = float(numbers_of(train.examples.truth).mean())

    def predict(self, part: Part) -> Answers:
        return Answers({VALUE: np.full(len(part.examples), self.mean)})


class TfidfRidge:
    """Words and word pairs, weighted by TF-IDF, under ridge regression: seconds on a laptop."""

    def fit(self, train: Part, kind: Answer) -> None:
        from sklearn.linear_model import Ridge

        self.wordless: Mean | None = None
        chosen = train.examples.select(readable(train.examples))
        self.words = Words()
        try:
            features = self.words.fit(list(chosen.all_texts()), _MOST_WORDS)
        except ValueError:  # no word at all
            self.wordless = Mean()
            self.wordless.fit(train, kind)
            return
        self.model = Ridge(alpha=1.0, solver="lsqr").fit(features, numbers_of(chosen.truth))

    def predict(self, part: Part) -> Answers:
        if self.wordless:
            return self.wordless.predict(part)
        return Answers({VALUE: np.concatenate([*map(self.model.predict, self.words.of(part.examples.all_texts()))])})


class RidgeProbe(LayerProbe):
    """Ridge regression on what the untuned model's head reads: what the pretrained model knows already."""

    @classmethod
    def layer(
        cls, features: Column, truth: Column, kind: Answer, strength: float = _STRENGTH, intercept: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        assert isinstance(kind, Number)
        read, wanted = numbers_of(features), kind.standardised(numbers_of(truth))
        model: Any = make_pipeline(
            StandardScaler(with_mean=intercept), Ridge(alpha=1 / strength, fit_intercept=intercept)
        ).fit(read, wanted)
        width = read.shape[1]
        bias = model.predict(np.zeros((1, width)))  # every step is affine, so what it does to the axes is all
        weight = model.predict(np.eye(width)) - bias
        return weight[None].astype(np.float32), np.asarray(bias, dtype=np.float32).reshape(1)
