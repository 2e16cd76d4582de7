"""Is what was exported the same model? Equal where it computes the same, shown to be no worse where it rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import UnprovenError
from featherweight.statistics.proportions import compare, not_inferior

TOLERANCE = 1e-4  # of a probability, between fp32 and fp32
MARGIN = 0.02
AGREEMENT = 0.99
_TIMED_ALONE = 50

Probabilities = NDArray[np.float32]


def answer_and_time(
    probabilities: Callable[[Iterable[str]], Probabilities], texts: Iterable[str]
) -> tuple[Probabilities, dict[str, float]]:
    """Answers to all texts, and the speed: ``latency_ms``, the median of texts alone, and ``texts_per_second``."""
    every = list(texts)
    probabilities(every[:1])  # what happens once happens before the clock runs
    started = time.perf_counter()
    found = probabilities(every)
    rate = len(every) / (time.perf_counter() - started)
    alone = []
    for text in every[:_TIMED_ALONE]:
        started = time.perf_counter()
        probabilities([text])
        alone.append(time.perf_counter() - started)
    return found, {"latency_ms": 1e3 * median(alone), "texts_per_second": rate}


def measure(
    run: Probabilities, export: Probabilities, labels: NDArray[np.int64], groups: Sequence[str | None] | None
) -> dict[str, Any]:
    """How much the answers differ, and what that does to accuracy.

    Args:
        run: shape (rows, classes), as ``export``.
        labels: shape (rows,).
        groups: what each row belongs to, where rows are not independent.

    Raises:
        UnprovenError: there is something among the answers that is not a number.
    """
    if not (np.isfinite(run).all() and np.isfinite(export).all()):
        raise UnprovenError("export refused: some probabilities are not numbers")
    same = run.argmax(axis=1) == export.argmax(axis=1)
    right = [probabilities.argmax(axis=1) == labels for probabilities in (run, export)]
    differences = np.abs(run - export).max(axis=1)
    return {
        "n": len(labels),
        "agreement": float(same.mean()),
        "max_probability_difference": float(differences.max()),
        "mean_probability_difference": float(differences.mean()),
        "accuracy": {"run": float(right[0].mean()), "export": float(right[1].mean())},
        "comparison": asdict(compare(right[0], right[1], groups)),
    }


def require_equal(evidence: dict[str, Any]) -> None:
    """Raises UnprovenError unless all labels are the same and all probabilities within 1e-4."""
    evidence["tolerance"] = TOLERANCE
    if evidence["agreement"] < 1 or evidence["max_probability_difference"] > TOLERANCE:
        raise UnprovenError(
            f"export refused: on {evidence['n']:,} rows {evidence['agreement']:.2%} of the labels are the run's and "
            f"probabilities differ by up to {evidence['max_probability_difference']:.1e} ({TOLERANCE:g} is allowed); "
            "nothing was published"
        )


def require_not_inferior(evidence: dict[str, Any]) -> None:
    """Raises UnprovenError unless a loss of accuracy by ``margin`` is ruled out and enough labels are the same."""
    low, high = evidence["comparison"]["confidence_interval"]
    if not not_inferior((low, high), evidence["margin"]) or evidence["agreement"] < evidence["min_agreement"]:
        change, same = evidence["comparison"]["difference"], evidence["agreement"]
        raise UnprovenError(
            f"export refused: on {evidence['n']:,} rows accuracy changes by {change:+.4f} (95% interval {low:+.4f} to "
            f"{high:+.4f}, --margin {evidence['margin']:g}) and {same:.2%} of the labels are the run's "
            f"(--min-agreement {evidence['min_agreement']:g}); nothing was published; export onnx, or measure on more "
            "validation rows"
        )
