"""What is compared between two models beside accuracy: each entry of :data:`STATISTICS` makes an additive statistic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.metrics import OF_COUNTS, ClassCounts
from featherweight.evidence.calibration import BINS, brier_scores, confidence_bins, log_losses
from featherweight.statistics.resampling import Additive, Floats

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]


def of_counts(name: str) -> Callable[[Probabilities, Labels], Additive]:
    """A metric that follows from class counts: three indicator columns for each class."""

    def make(probabilities: Probabilities, labels: Labels) -> Additive:
        from scipy import sparse

        rows, classes = probabilities.shape
        predictions = probabilities.argmax(axis=1)
        hit = np.flatnonzero(predictions == labels)
        where = np.concatenate([np.arange(rows), np.arange(rows), hit])
        columns = np.concatenate([labels, classes + predictions, 2 * classes + labels[hit]])
        features = sparse.csr_array((np.ones(len(where)), (where, columns)), shape=(rows, 3 * classes))

        def value(sums: Floats) -> Floats:
            return OF_COUNTS[name](ClassCounts(*np.split(sums, 3, axis=-1)))

        return Additive(features, value)

    return make


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> Additive:
    """One column for each bin of confidence, which adds up correct answers less confidence."""
    from scipy import sparse

    rows = len(labels)
    bins, confidence, correct = confidence_bins(probabilities, labels)
    excess = sparse.csr_array((correct - confidence, (np.arange(rows), bins)), shape=(rows, BINS))
    features = sparse.csr_array(sparse.hstack([excess, np.ones((rows, 1))]))
    return Additive(features, lambda sums: np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1])


def mean_of(scores: Callable[[Probabilities, Labels], Floats]) -> Callable[[Probabilities, Labels], Additive]:
    """A plain mean over rows."""

    def make(probabilities: Probabilities, labels: Labels) -> Additive:
        from scipy import sparse

        columns = np.stack([scores(probabilities, labels), np.ones(len(labels))], axis=1)
        return Additive(sparse.csr_array(columns), lambda sums: sums[..., 0] / sums[..., 1])

    return make


STATISTICS: dict[str, Callable[[Probabilities, Labels], Additive]] = {
    "macro_f1": of_counts("macro_f1"),
    "balanced_accuracy": of_counts("balanced_accuracy"),
    "matthews_correlation": of_counts("matthews_correlation"),
    "negative_log_likelihood": mean_of(log_losses),
    "brier_score": mean_of(brier_scores),
    "expected_calibration_error": expected_calibration_error,
}
LESS_IS_BETTER = frozenset({"negative_log_likelihood", "brier_score", "expected_calibration_error"})
