"""Cheap rivals that tuning has to beat. A baseline is one class here and one line in the ``BASELINES`` table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.records import Examples

_MOST_ROWS = 200_000  # the word model is as good as it gets long before, and its memory grows with the rows


class Baseline(Protocol):
    """Fits on train and answers validation."""

    def predict(self, train: Examples, validation: Examples, classes: int) -> NDArray[np.float32]:
        """Probabilities; shape (rows of validation, classes)."""
        ...


class Majority:
    """Always answers the commonest label of train, with train's shares as probabilities."""

    def predict(self, train: Examples, validation: Examples, classes: int) -> NDArray[np.float32]:
        shares = np.bincount(train.labels, minlength=classes) / len(train)
        return np.tile(shares.astype(np.float32), (len(validation), 1))


class TfidfLogisticRegression:
    """Words and word pairs, weighted by TF-IDF, under logistic regression: seconds on a laptop."""

    def predict(self, train: Examples, validation: Examples, classes: int) -> NDArray[np.float32]:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        rows = np.arange(len(train))
        if len(rows) > _MOST_ROWS:
            rows = np.sort(np.random.default_rng(0).choice(rows, _MOST_ROWS, replace=False))
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        try:
            features = vectorizer.fit_transform(_texts(train.texts.select(rows)))
        except ValueError:  # no word at all
            return Majority().predict(train, validation, classes)
        labels = train.labels[rows]
        model = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)
        probabilities = np.zeros((len(validation), classes), dtype=np.float32)
        probabilities[:, model.classes_] = model.predict_proba(vectorizer.transform(_texts(validation.texts)))
        return probabilities


def _texts(rows: Any) -> Iterator[str]:
    for batch in rows.iter(batch_size=1000):
        yield from batch["text"]
