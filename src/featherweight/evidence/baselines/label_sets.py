"""Rivals that answer with any number of labels: one of two for each label, by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.label import PROBABILITIES
from featherweight.evidence import logistic
from featherweight.evidence.baselines import LayerProbe, Part, readable
from featherweight.evidence.logistic import MOST_JOINT_SCORES, MOST_JOINT_WEIGHTS
from featherweight.evidence.words import Words
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, numbers_of

_STRENGTH = 0.1


class LabelShares:
    """Always answers with each label's share of train."""

    def fit(self, train: Part, kind: Answer) -> None:
        self.shares = numbers_of(train.examples.truth).mean(axis=0).astype(np.float32)

    def predict(self, part: Part) -> Answers:
        return Answers({PROBABILITIES: np.tile(self.shares, (len(part.examples), 1))})


class TfidfOneVsRest:
    """Words and word pairs, weighted by TF-IDF, under a logistic regression for each label."""

    def fit(self, train: Part, kind: Answer) -> None:
        self.kind = kind
        self.wordless: LabelShares | None = None
        chosen = train.examples.select(readable(train.examples, max(MOST_JOINT_SCORES // kind.width, 1)))
        self.words = Words()
        try:
            features = self.words.fit(list(chosen.all_texts()), MOST_JOINT_WEIGHTS // kind.width)
        except ValueError:  # no word at all
            self.wordless = LabelShares()
            self.wordless.fit(train, kind)
            return
        self.weights, self.biases = logistic.fit_each(features, numbers_of(chosen.truth), strength=10.0)

    def predict(self, part: Part) -> Answers:
        if self.wordless:
            return self.wordless.predict(part)
        blocks = [one @ self.weights.T + self.biases for one in self.words.of(part.examples.all_texts())]
        return self.kind.of_outputs(np.concatenate(blocks), {})


class OneVsRestProbe(LayerProbe):
    """A logistic regression for each label on what the untuned model's head reads: what the pretrained model knows."""

    @classmethod
    def layer(
        cls, features: Column, truth: Column, kind: Answer, strength: float = _STRENGTH, intercept: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        from sklearn.preprocessing import StandardScaler

        read = numbers_of(features)
        scaler: Any = StandardScaler(with_mean=intercept).fit(read)
        found, biases = logistic.fit_each(scaler.transform(read), numbers_of(truth), strength, intercept)
        weights = found / scaler.scale_
        if intercept:
            biases = biases - weights @ scaler.mean_
        return weights.astype(np.float32), biases.astype(np.float32)
