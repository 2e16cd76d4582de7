"""Rivals that answer with a number."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.number import VALUE, Number
from featherweight.errors import DataError
from featherweight.evidence.baselines import LayerProbe, Part, readable, sample
from featherweight.evidence.words import Words
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, Examples, numbers_of

_MOST_WORDS = 2_000_000
_MOST_PAIRS = 1_000  # plenty for the two numbers of a line
_NOTHING = 1e-12  # the length of a vector that has no direction
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


class Cosine:
    """The cosine of the untuned model's embeddings of the two texts of a pair, each alone (Reimers and Gurevych,
    "Sentence-BERT", 2019), on a least-squares line through train: the ranks are those of the cosine itself, or all
    reversed, and the unit is the data's.

    It costs two passes over single texts; of train at most 1,000 rows, drawn by a fixed seed.
    """

    compared_by: ClassVar[tuple[str, ...]] = ("spearman",)  # what such models are published with

    @staticmethod
    def applies(train: Examples, kind: Answer) -> bool:
        return train.are_pairs

    def fit(self, train: Part, kind: Answer) -> None:
        chosen = train.examples.select(sample(len(train.examples), _MOST_PAIRS))
        cosines = _cosines(train, chosen)
        through = np.stack([cosines, np.ones(len(cosines))], axis=1)
        (self.slope, self.start), *_ = np.linalg.lstsq(through, numbers_of(chosen.truth))

    def predict(self, part: Part) -> Answers:
        return Answers({VALUE: self.start + self.slope * _cosines(part, part.examples)})


def _cosines(part: Part, pairs: Examples) -> NDArray[np.float64]:
    """Shape (rows,). Raises DataError where rows are no pairs."""
    if not pairs.are_pairs:
        raise DataError("a row is one text; name two columns in data.text, or leave cosine out of evidence.baselines")
    one, other = (part.embeddings(texts).astype(np.float64) for texts in pairs.alone())
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(lengths, _NOTHING))
