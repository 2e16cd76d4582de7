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
_MOST_STEPS, _FLAT = 1000, 1e-5  # of the descent, which ends where no slope is larger
_SURE = float(np.log(0.9999 / 0.0001))


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


def fit_each(
    features: Any, holds: NDArray[np.bool_], strength: float, intercept: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A logistic regression for each column of ``holds`` by itself, as scikit-learn's ``LogisticRegression`` has it, in
    one descent for all of them, where one matrix product serves every column.

    Args:
        features: dense or sparse; shape (rows, features).
        holds: shape (rows, columns).
        strength: as :func:`fit` takes it.

    Returns:
        Weights, shape (columns, features), and biases, shape (columns,). Where all rows are alike the weights are 0 and
        the bias says so with a probability of 0.9999.
    """
    from scipy.optimize import minimize

    rows, width = features.shape
    wanted = np.flatnonzero(holds.any(axis=0) & ~holds.all(axis=0))
    truth = holds[:, wanted].astype(np.float64)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(width + 1, len(wanted))
        weights, scores = table[:-1], features @ table[:-1] + (table[-1] if intercept else 0)
        each = np.logaddexp(0, scores) - truth * scores
        residual = (0.5 + 0.5 * np.tanh(scores / 2) - truth) / rows
        penalty = 1 / (strength * rows)
        slope = features.T @ residual + penalty * weights
        by_bias = residual.sum(axis=0) if intercept else np.zeros(len(wanted))
        value = each.sum() / rows + penalty / 2 * (weights**2).sum()
        return float(value), np.concatenate([slope, by_bias[None]]).ravel()

    found = minimize(
        loss,
        np.zeros((width + 1) * len(wanted)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MOST_STEPS, "gtol": _FLAT, "ftol": 0.0},
    ).x.reshape(width + 1, len(wanted))
    weights, biases = np.zeros((holds.shape[1], width)), np.where(holds.any(axis=0), 1.0, -1.0) * _SURE
    weights[wanted], biases[wanted] = found[:-1].T, found[-1]
    return weights, biases


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
