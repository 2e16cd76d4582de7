"""Do probabilities mean what they say? Scores, reliability, a temperature, and what abstaining would buy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.probabilities import (
    BINS,
    Labels,
    Probabilities,
    apply_temperature,
    brier_scores,
    confidence_bins,
    fit_temperature,
    log_losses,
)
from featherweight.statistics.additive import Floats
from featherweight.statistics.proportions import wilson

WANTED_ERROR_RATES = (0.01, 0.02, 0.05, 0.1)
_CURVE_POINTS = 50


def reliability(probabilities: Probabilities, labels: Labels) -> list[dict[str, float]]:
    """The bins that hold rows: how many, their mean confidence and their accuracy."""
    bins, confidence, correct = confidence_bins(probabilities, labels)
    return _describe(bins, confidence, correct)


def adaptive_bins(probabilities: Probabilities, labels: Labels) -> list[dict[str, float]]:
    """The same with as many rows in each bin, or one fewer (Nguyen and O'Connor 2015)."""
    _, confidence, correct = confidence_bins(probabilities, labels)
    order = np.argsort(confidence, kind="stable")
    bins = np.empty(len(labels), dtype=np.int64)
    for index, members in enumerate(np.array_split(order, min(BINS, len(labels)))):
        bins[members] = index
    return _describe(bins, confidence, correct)


def calibration_error(bins: list[dict[str, float]]) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, weighted by rows (Naeini et al. 2015)."""
    rows = sum(one["rows"] for one in bins)
    return sum(one["rows"] * abs(one["confidence"] - one["accuracy"]) for one in bins) / rows


def scores(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """NLL, Brier, expected calibration error by equal width and by equal count, and the bins for a plot."""
    bins = reliability(probabilities, labels)
    return {
        "negative_log_likelihood": float(log_losses(probabilities, labels).mean()),
        "brier_score": float(brier_scores(probabilities, labels).mean()),
        "expected_calibration_error": calibration_error(bins),
        "adaptive_calibration_error": calibration_error(adaptive_bins(probabilities, labels)),
        "bins": bins,
    }


def fit_and_report(
    fitting: Probabilities, fitting_labels: Labels, reported: Probabilities, reported_labels: Labels
) -> dict[str, Any]:
    """Fit a temperature and thresholds on some rows and report on others, before and after."""
    temperature = fit_temperature(fitting, fitting_labels) if len(fitting) else 1.0
    fit, after = apply_temperature(fitting, temperature), apply_temperature(reported, temperature)
    return {
        "temperature": temperature,
        "fitted_rows": len(fitting),
        "reported_rows": len(reported),
        "before": scores(reported, reported_labels),
        "after": scores(after, reported_labels),
        "risk_coverage": risk_coverage(after, reported_labels),
        "thresholds": [threshold(fit, fitting_labels, after, reported_labels, rate) for rate in WANTED_ERROR_RATES]
        if len(fitting)
        else [],
    }


def risk_coverage(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Error rate among the most confident share of rows, for every share (El-Yaniv and Wiener 2010).

    Returns:
        ``area`` under the curve over all rows, and up to 50 ``points`` of coverage, risk and the confidence there.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])
    risks = wrong / np.arange(1, len(labels) + 1)
    shown = np.unique(np.linspace(0, len(labels) - 1, min(_CURVE_POINTS, len(labels))).astype(int))
    return {
        "area": float(risks.mean()),
        "points": [
            {
                "coverage": float((index + 1) / len(labels)),
                "risk": float(risks[index]),
                "confidence": float(confidence[order[index]]),
            }
            for index in shown
        ],
    }


def threshold(
    fit: Probabilities, fit_labels: Labels, held_out: Probabilities, held_out_labels: Labels, error_rate: float
) -> dict[str, Any]:
    """The least confidence to answer at so that at most ``error_rate`` of the answers are wrong.

    Chosen on one set of rows; coverage and error rate, with Wilson's interval, are of the other.

    Returns:
        ``confidence`` is None where no threshold reaches the rate.
    """
    confidence = fit.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(fit.argmax(axis=1)[order] != fit_labels[order])
    sorted_confidence = confidence[order]
    last = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)  # ties are answered together
    good = np.flatnonzero((wrong <= error_rate * np.arange(1, len(order) + 1)) & last)
    if len(good) == 0:
        return {"wanted_error_rate": error_rate, "confidence": None}
    chosen = float(sorted_confidence[good[-1]])
    answered = held_out.max(axis=1) >= chosen
    errors = int((held_out.argmax(axis=1)[answered] != held_out_labels[answered]).sum())
    rows = int(answered.sum())
    return {
        "wanted_error_rate": error_rate,
        "confidence": chosen,
        "coverage": float(answered.mean()),
        "error_rate": errors / rows if rows else None,
        "error_rate_interval": list(wilson(errors, rows)) if rows else None,
    }


def _describe(bins: NDArray[np.int64], confidence: Floats, correct: Floats) -> list[dict[str, float]]:
    rows = np.bincount(bins)
    sums = np.bincount(bins, weights=confidence), np.bincount(bins, weights=correct)
    return [
        {
            "rows": int(rows[one]),
            "confidence": float(sums[0][one] / rows[one]),
            "accuracy": float(sums[1][one] / rows[one]),
        }
        for one in np.flatnonzero(rows)
    ]
