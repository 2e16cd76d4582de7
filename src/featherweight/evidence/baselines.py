"""Cheap rivals that tuning has to beat. A baseline is one class here and one line in the ``BASELINES`` table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.label import PROBABILITIES
from featherweight.evidence import logistic
from featherweight.evidence.logistic import LONGEST_TEXT, MOST_JOINT_SCORES, MOST_JOINT_WEIGHTS, WordModel
from featherweight.records.answers import Answers
from featherweight.records.rows import Examples

_MOST_ROWS = 100_000  # the word model is as good as it gets long before, and its memory grows with the rows,
_MOST_CHARACTERS = 50_000_000  # with the text,
_MOST_ROW_CLASSES = 100_000_000  # and its time with rows times classes
MOST_PROBE_ROWS = 5_000  # each costs a pass through the model
_SEED = 0


@dataclass(frozen=True)
class Part:
    """One split as a baseline sees it.

    Attributes:
        features: what the untuned model's head reads of the rows asked for; float32, shape (rows, hidden size). Each
            call runs the model.
    """

    examples: Examples
    features: Callable[[NDArray[np.int64]], NDArray[np.float32]]

    def all_features(self) -> NDArray[np.float32]:
        return self.features(np.arange(len(self.examples)))


class Baseline(Protocol):
    """Fits on train and answers any split."""

    def fit(self, train: Part, classes: int) -> None: ...

    def predict(self, part: Part) -> Answers: ...


class Majority:
    """Always answers the commonest label of train, with train's shares as probabilities."""

    def fit(self, train: Part, classes: int) -> None:
        self.shares = np.bincount(train.examples.labels, minlength=classes) / len(train.examples)

    def predict(self, part: Part) -> Answers:
        return Answers({PROBABILITIES: np.tile(self.shares.astype(np.float32), (len(part.examples), 1))})


class TfidfLogisticRegression:
    """Words and word pairs, weighted by TF-IDF, under logistic regression: seconds on a laptop."""

    def fit(self, train: Part, classes: int) -> None:
        self.classes = classes
        self.wordless: Majority | None = None
        chosen = train.examples.select(_readable(train.examples, classes))
        try:
            self.model = WordModel(strength=10.0).fit(list(chosen.all_texts()), chosen.labels)
        except ValueError:  # no word at all
            self.wordless = Majority()
            self.wordless.fit(train, classes)

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

    def fit(self, train: Part, classes: int) -> None:
        self.classes = classes
        rows = probe_rows(len(train.examples), classes)
        self.model = fit_probe(train.features(rows), train.examples.labels[rows])

    def predict(self, part: Part) -> Answers:
        found = self.model.predict_proba(part.all_features())
        return Answers({PROBABILITIES: _spread(found, self.model.classes_, self.classes)})


def probe_rows(rows: int, classes: int) -> NDArray[np.int64]:
    """The rows of train that a probe is fitted on."""
    return _sample(rows, min(MOST_PROBE_ROWS, MOST_JOINT_SCORES // classes))


def fit_probe(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, strength: float = 0.1, intercept: bool = True
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
    narrowing = [PCA(min(most, len(features)), random_state=_SEED)] if intercept and features.shape[1] > most else []
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


def _readable(examples: Examples, classes: int) -> NDArray[np.int64]:
    """The rows that the word model is fitted on: all, or as many as its memory and time allow."""
    rows = _sample(len(examples), min(_MOST_ROWS, max(_MOST_ROW_CLASSES // classes, 1)))
    characters = sum(min(len(text), LONGEST_TEXT) for text in examples.select(rows).all_texts())
    return rows[_sample(len(rows), len(rows) * _MOST_CHARACTERS // max(characters, 1))]


def _sample(rows: int, most: int) -> NDArray[np.int64]:
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))
