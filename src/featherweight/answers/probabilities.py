"""Probabilities of classes: what they score, row by row, and the temperature that makes them mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.statistics.additive import Additive, Floats

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]

BINS = 15
_COOLEST, _HOTTEST = 0.05, 20.0


def confidence_bins(probabilities: Probabilities, labels: Labels) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Bin of equal width in [0, 1], confidence, and whether the answer is right, of each row; shape (rows,) each."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.clip(np.digitize(confidence, np.linspace(0, 1, BINS + 1)) - 1, 0, BINS - 1)
    return bins, confidence, (probabilities.argmax(axis=1) == labels).astype(np.float64)


def log_losses(probabilities: Probabilities, labels: Labels) -> Floats:
    """Negative log likelihood of each row's label, in nats; shape (rows,)."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(chosen, np.finfo(np.float32).tiny))


def brier_scores(probabilities: Probabilities, labels: Labels) -> Floats:
    """Squared error of each row's probabilities; shape (rows,).

    Halved where there are two classes, so that it is Brier's score of one of them, as ``sklearn.metrics`` has it.
    """
    errors = probabilities.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return np.asarray((errors**2).sum(axis=1) / (2 if probabilities.shape[1] == 2 else 1))


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Softmax of the logits divided by the temperature, from the softmax of the logits; order is unchanged."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature with the least negative log likelihood (Guo et al. 2017), between 0.05 and 20."""
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(axis=1)) - chosen).mean())

    found = minimize_scalar(loss, bounds=(np.log(_COOLEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> Additive:
    """Mean gap between confidence and accuracy of bins of equal width, weighted by rows (Naeini et al. 2015).

    One column for each bin of confidence adds up correct answers less confidence.
    """

    def features() -> Any:
        from scipy import sparse

        rows = len(labels)
        bins, confidence, correct = confidence_bins(probabilities, labels)
        excess = sparse.csr_array((correct - confidence, (np.arange(rows), bins)), shape=(rows, BINS))
        return sparse.csr_array(sparse.hstack([excess, np.ones((rows, 1))]))

    return Additive(features, lambda sums: np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1], len(labels))
