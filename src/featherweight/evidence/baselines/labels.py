"""Rivals that answer with a label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.label import PROBABILITIES, softmax
from featherweight.answers.probabilities import apply_temperature, fit_temperature
from featherweight.evidence import logistic
from featherweight.evidence.baselines import MOST_PROBE_ROWS, SEED, Part, readable, sample
from featherweight.evidence.logistic import MOST_JOINT_SCORES, MOST_JOINT_WEIGHTS, WordModel
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, Examples, numbers_of
from featherweight.statistics.additive import Floats

_MOST_ROW_CLASSES = 100_000_000  # the word model's time grows with rows times classes
_STRENGTH = 0.1
_FEW = 50  # rows a class, on average
_SHARP = 40.0  # times a cosine, before the temperature; more would make probabilities of 0
_NOTHING = 1e-12
_BLOCK_NUMBERS = 4_000_000


class Majority:
    """Always answers the commonest label of train, with train's shares as probabilities."""

    def fit(self, train: Part, kind: Answer) -> None:
        self.shares = np.bincount(numbers_of(train.examples.truth), minlength=kind.width) / len(train.examples)

    def predict(self, part: Part) -> Answers:
        return Answers({PROBABILITIES: np.tile(self.shares.astype(np.float32), (len(part.examples), 1))})


class TfidfLogisticRegression:
    """Words and word pairs, weighted by TF-IDF, under logistic regression: seconds on a laptop."""

    def fit(self, train: Part, kind: Answer) -> None:
        self.classes = kind.width
        self.wordless: Majority | None = None
        chosen = train.examples.select(readable(train.examples, max(_MOST_ROW_CLASSES // kind.width, 1)))
        try:
            self.model = WordModel(strength=10.0).fit(list(chosen.all_texts()), numbers_of(chosen.truth))
        except ValueError:  # no word at all
            self.wordless = Majority()
            self.wordless.fit(train, kind)

    def predict(self, part: Part) -> Answers:
        if self.wordless:
            return self.wordless.predict(part)
        blocks = self.model.probabilities(part.examples.all_texts())
        spread = np.concatenate([_spread(block, self.model.classes, self.classes) for block in blocks])
        return Answers({PROBABILITIES: spread})


class LinearProbe:
    """Logistic regression on what the untuned model's head reads (Alain and Bengio, "Understanding intermediate
    layers using linear classifier probes", 2016): what the pretrained model knows already.

    It costs one pass over train, of which it takes at most 5,000 rows, drawn by a fixed seed.
    """

    def fit(self, train: Part, kind: Answer) -> None:
        self.classes = kind.width
        rows = self.rows(train.examples, kind)
        self.model = fit_probe(numbers_of(train.features(rows)), numbers_of(train.examples.truth)[rows])

    def predict(self, part: Part) -> Answers:
        found = self.model.predict_proba(numbers_of(part.all_features()))
        return Answers({PROBABILITIES: _spread(found, self.model.classes_, self.classes)})

    @staticmethod
    def rows(train: Examples, kind: Answer) -> NDArray[np.int64]:
        return sample(len(train), min(MOST_PROBE_ROWS, MOST_JOINT_SCORES // kind.width))

    @classmethod
    def layer(
        cls, features: Column, truth: Column, kind: Answer, strength: float = _STRENGTH, intercept: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        read = numbers_of(features)
        probe = fit_probe(read, numbers_of(truth), strength=strength, intercept=intercept)
        return as_layer(probe, read.shape[1], kind.width)


class Prototype:
    """The class whose mean is nearest, by the cosine of the untuned model's embeddings, whose softmax at a temperature
    gives probabilities (Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", 2017). A mean needs
    few rows, where each weight of a logistic regression needs some.

    It costs one pass over train, of which it takes at most 5,000 rows, drawn by a fixed seed.
    """

    @staticmethod
    def applies(train: Examples, kind: Answer) -> bool:
        return len(train) < _FEW * kind.width

    def fit(self, train: Part, kind: Answer) -> None:
        self.width = kind.width
        chosen = train.examples.select(LinearProbe.rows(train.examples, kind))
        directions = _unit(train.embeddings(chosen))
        self.classes, codes = np.unique(numbers_of(chosen.truth), return_inverse=True)
        sums = np.zeros((len(self.classes), directions.shape[1]))
        np.add.at(sums, codes, directions)
        self.means = _unit(sums)
        self.temperature = self._temperature(directions, codes, sums)
        self.learned = directions, codes

    def predict(self, part: Part) -> Answers:
        self.asked = _unit(part.embeddings(part.examples))
        return self._answers(self.means)

    def redrawn(self, draws: int) -> Iterator[Answers]:
        """To the rows that were asked last, as many times: each from as many rows of each class, drawn again from those
        that it was fitted on (the bootstrap, within classes)."""
        directions, codes = self.learned
        draw = np.random.default_rng(SEED)
        of_class = [np.flatnonzero(codes == one) for one in range(len(self.classes))]
        for _ in range(draws):
            chosen = [directions[draw.choice(members, len(members))].sum(axis=0) for members in of_class]
            yield self._answers(_unit(np.stack(chosen)))

    def _answers(self, means: Floats) -> Answers:
        rows = max(_BLOCK_NUMBERS // self.width, 1)
        blocks = [
            _spread(
                apply_temperature(_of_cosines(self.asked[start : start + rows] @ means.T), self.temperature),
                self.classes,
                self.width,
            )
            for start in range(0, len(self.asked), rows)
        ]
        return Answers({PROBABILITIES: np.concatenate(blocks)})

    def _temperature(self, directions: Floats, codes: NDArray[np.int64], sums: Floats) -> float:
        """With the least negative log likelihood of rows that have no part in their own class's mean; of classes of one
        row there is none."""
        tried = np.flatnonzero(np.bincount(codes)[codes] > 1)
        if not len(tried):
            return 1.0
        codes, directions = codes[tried], directions[tried]
        cosines = directions @ self.means.T
        cosines[np.arange(len(tried)), codes] = (directions * _unit(sums[codes] - directions)).sum(axis=1)
        return fit_temperature(_of_cosines(cosines), codes)


def _of_cosines(cosines: Floats) -> NDArray[np.float32]:
    return softmax((_SHARP * cosines).astype(np.float32))


def _unit(vectors: NDArray[np.floating[Any]]) -> Floats:
    """Each row at length 1, but for one without direction."""
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _NOTHING))


def fit_probe(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, strength: float = _STRENGTH, intercept: bool = True
) -> Any:
    """Logistic regression on standardised features, on as many of their principal components as memory allows.

    Args:
        features: shape (rows, features).
        labels: shape (rows,).
        strength: as :func:`featherweight.evidence.logistic.fit` takes it.
        intercept: False for one that goes through the features' own origin, as a layer without bias does.
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    most = MOST_JOINT_WEIGHTS // len(np.unique(labels))
    narrowing = [PCA(min(most, len(features)), random_state=SEED)] if intercept and features.shape[1] > most else []
    prepared = make_pipeline(StandardScaler(with_mean=intercept), *narrowing)
    return make_pipeline(prepared, logistic.fit(prepared.fit_transform(features), labels, strength, intercept))


def as_layer(probe: Any, width: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A fitted probe as the weights and biases of one linear layer whose softmax gives the probe's probabilities.

    Returns:
        Shape (classes, width) and (classes,). A class that train lacks begins below the rarest.
    """
    prepared, model = probe[0], probe[-1]
    # Every step before the model is affine, so what they do to the axes and to the origin is all that they do.
    origin = prepared.transform(np.zeros((1, width)))
    axes = prepared.transform(np.eye(width)) - origin
    weight, bias = model.coef_ @ axes.T, model.intercept_ + (model.coef_ @ origin.T)[:, 0]
    if len(weight) == 1:  # two classes: one score, which is their difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights = np.zeros((classes, width), dtype=np.float32)
    all_biases = np.full(classes, bias.min() - 1, dtype=np.float32)
    all_weights[model.classes_], all_biases[model.classes_] = weight, bias
    return all_weights, all_biases


def _spread(probabilities: Any, classes: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """A column for each class, 0 for those that did not occur in train."""
    spread = np.zeros((len(probabilities), count), dtype=np.float32)
    spread[:, classes] = probabilities
    return spread
