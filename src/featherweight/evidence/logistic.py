"""Logistic regression, on words or on any features, in bounded memory whatever the number of classes and rows.

The solver that is best in small, L-BFGS on the joint loss, holds some 30 numbers for each weight, and there are as many
weights as classes times features. Where that is too much, each class is fitted against the rest by stochastic gradient
descent, which holds one number a weight, on the features that most rows have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.evidence.words import WORDS, Words

MOST_JOINT_WEIGHTS = 2_000_000  # half a gigabyte for L-BFGS
MOST_JOINT_SCORES = 10_000_000  # rows times classes, of which L-BFGS holds several copies
_MOST_WEIGHTS = 16_000_000
_SEED = 0


def fit(features: Any, labels: NDArray[np.int64], strength: float, intercept: bool = True) -> Any:
    """A fitted model with ``predict_proba`` and ``classes_``.

    Args:
        features: dense or sparse; shape (rows, features).
        labels: shape (rows,).
        strength: ``C`` of scikit-learn's ``LogisticRegression``; the smaller, the more it is regularised.
        intercept: whether there is one.
    """
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    classes = len(np.unique(labels))
    outputs = classes if classes > 2 else 1
    if outputs * features.shape[1] <= MOST_JOINT_WEIGHTS and outputs * len(labels) <= MOST_JOINT_SCORES:
        return LogisticRegression(C=strength, max_iter=2000, fit_intercept=intercept).fit(features, labels)
    alpha = 1 / (strength * len(labels))  # the same regularisation, for each class
    model = SGDClassifier(loss="log_loss", alpha=alpha, random_state=_SEED, fit_intercept=intercept)
    return model.fit(features, labels)


class WordModel:
    """Logistic regression on words, or words and word pairs, weighted by TF-IDF.

    Args:
        strength: as :func:`fit` takes it.
        pattern: what a word is.
        pairs: whether word pairs count too.
    """

    def __init__(self, strength: float, pattern: str = WORDS, pairs: bool = True) -> None:
        self._strength = strength
        self._words = Words(pattern, pairs)

    def fit(self, texts: Sequence[str], labels: NDArray[np.int64]) -> WordModel:
        """Raises ValueError where no text has a word."""
        features = self._words.fit(texts, _MOST_WEIGHTS // len(np.unique(labels)))
        self._model = fit(features, labels, self._strength)
        self.classes = self._model.classes_
        return self

    def probabilities(self, texts: Iterable[str]) -> Iterator[NDArray[np.float64]]:
        """Blocks of shape (rows of the block, ``classes``)."""
        return map(self._model.predict_proba, self._words.of(texts))
