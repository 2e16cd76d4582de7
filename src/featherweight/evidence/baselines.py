"""Cheap rivals that tuning has to beat. A baseline is one class here and one line in the ``BASELINES`` table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.records import Examples

_MOST_ROWS = 200_000  # the word model is as good as it gets long before, and its memory grows with the rows
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

    def predict(self, part: Part) -> NDArray[np.float32]:
        """Probabilities; shape (rows, classes)."""
        ...


class Majority:
    """Always answers the commonest label of train, with train's shares as probabilities."""

    def fit(self, train: Part, classes: int) -> None:
        self.shares = np.bincount(train.examples.labels, minlength=classes) / len(train.examples)

    def predict(self, part: Part) -> NDArray[np.float32]:
        return np.tile(self.shares.astype(np.float32), (len(part.examples), 1))


class TfidfLogisticRegression:
    """Words and word pairs, weighted by TF-IDF, under logistic regression: seconds on a laptop."""

    def fit(self, train: Part, classes: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self.classes = classes
        self.wordless: Majority | None = None
        rows = _sample(len(train.examples), _MOST_ROWS)
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        try:
            counts = self.vectorizer.fit_transform(train.examples.select(rows).all_texts())
        except ValueError:  # no word at all
            self.wordless = Majority()
            self.wordless.fit(train, classes)
            return
        self.model = LogisticRegression(C=10.0, max_iter=1000).fit(counts, train.examples.labels[rows])

    def predict(self, part: Part) -> NDArray[np.float32]:
        if self.wordless:
            return self.wordless.predict(part)
        counts = self.vectorizer.transform(part.examples.all_texts())
        return _spread(self.model.predict_proba(counts), self.model.classes_, self.classes)


class LinearProbe:
    """Logistic regression on what the untuned model's head reads (Alain and Bengio, "Understanding intermediate
    layers using linear classifier probes", 2016): what the pretrained model knows already.

    It costs one pass over train, of which it takes at most 5,000 rows, drawn by a fixed seed.
    """

    def fit(self, train: Part, classes: int) -> None:
        self.classes = classes
        rows = _sample(len(train.examples), MOST_PROBE_ROWS)
        self.model = probe().fit(train.features(rows), train.examples.labels[rows])

    def predict(self, part: Part) -> NDArray[np.float32]:
        return _spread(self.model.predict_proba(part.all_features()), self.model.classes_, self.classes)


def probe() -> Any:
    """Logistic regression on standardised features, not fitted yet."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))


def _spread(probabilities: Any, classes: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """A column for each class, 0 for those that did not occur in train."""
    spread = np.zeros((len(probabilities), count), dtype=np.float32)
    spread[:, classes] = probabilities
    return spread


def _sample(rows: int, most: int) -> NDArray[np.int64]:
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))
