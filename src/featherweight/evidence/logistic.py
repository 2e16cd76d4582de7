"""Logistic regression, on words or on any features, in bounded memory whatever the number of classes and rows.

The solver that is best in small, L-BFGS on the joint loss, holds some 30 numbers for each weight, and there are as many
weights as classes times features. Where that is too much, each class is fitted against the rest by stochastic gradient
descent, which holds one number a weight, on the features that most rows have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = r"(?u)\b\w\w+\b"
LONGEST_TEXT = 10_000  # characters of a text that are read: more than most models see of it
MOST_JOINT_WEIGHTS = 2_000_000  # half a gigabyte for L-BFGS
MOST_JOINT_SCORES = 10_000_000  # rows times classes, of which L-BFGS holds several copies
_MOST_WEIGHTS = 16_000_000
_MOST_NAMED_CHARACTERS = 3_000_000  # the words of longer collections are told apart by their hash
_BUCKETS = 2**18
_BLOCK_ROWS = 1_000
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
        self._most_named = _MOST_NAMED_CHARACTERS * (1 if pairs else 10)  # there are fewer words than pairs of them
        self._counting = {"token_pattern": pattern, "ngram_range": (1, 2 if pairs else 1), "dtype": np.float64}

    def fit(self, texts: Sequence[str], labels: NDArray[np.int64]) -> WordModel:
        """Raises ValueError where no text has a word."""
        from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer

        read = [text[:LONGEST_TEXT] for text in texts]
        if sum(map(len, read)) <= self._most_named:
            self._vectorizer = CountVectorizer(**self._counting)
        else:
            self._vectorizer = HashingVectorizer(**self._counting, n_features=_BUCKETS, norm=None, alternate_sign=False)
        counts = self._vectorizer.fit_transform(read)
        self._kept = _commonest(counts, _MOST_WEIGHTS // len(np.unique(labels)))
        self._weighting = TfidfTransformer(sublinear_tf=True)
        self._model = fit(self._weighting.fit_transform(counts[:, self._kept]), labels, self._strength)
        self.classes = self._model.classes_
        return self

    def probabilities(self, texts: Iterable[str]) -> Iterator[NDArray[np.float64]]:
        """Blocks of shape (rows of the block, ``classes``)."""
        iterator = iter(texts)
        while block := [text[:LONGEST_TEXT] for text in islice(iterator, _BLOCK_ROWS)]:
            counts = self._vectorizer.transform(block)[:, self._kept]
            yield self._model.predict_proba(self._weighting.transform(counts))


def _commonest(counts: Any, most: int) -> Any:
    """The columns that most rows have, ascending; all of them where they are few enough."""
    if counts.shape[1] <= most:
        return slice(None)
    return np.sort(np.argsort(-counts.getnnz(axis=0), kind="stable")[:most])
