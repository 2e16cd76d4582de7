"""Is what was exported the same model? Equal where it computes the same, shown to be no worse where it rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from featherweight.answers import Answer, headline, headline_of
from featherweight.errors import UnprovenError
from featherweight.records.answers import Answers, Likeness
from featherweight.records.questions import Question
from featherweight.statistics.paired import compare
from featherweight.statistics.proportions import not_inferior

MARGIN = 0.02
AGREEMENT = 0.99
_TIMED_ALONE = 50


def answer_and_time(
    answers: Callable[[Iterable[Any]], Answers], asked: Iterable[Question]
) -> tuple[Answers, dict[str, float]]:
    """Answers to all questions, and the speed: ``latency_ms``, the median of texts alone, and ``texts_per_second``."""
    every = list(asked)
    answers(every[:1])  # what happens once happens before the clock runs
    started = time.perf_counter()
    found = answers(every)
    rate = len(every) / (time.perf_counter() - started)
    alone = []
    for text in every[:_TIMED_ALONE]:
        started = time.perf_counter()
        answers([text])
        alone.append(time.perf_counter() - started)
    return found, {"latency_ms": 1e3 * median(alone), "texts_per_second": rate}


def measure(
    kind: Answer,
    run: Answers,
    export: Answers,
    truth: Any,
    likeness: Likeness,
    groups: Sequence[str | None] | None,
) -> dict[str, Any]:
    """How much the answers differ, and what that does to the headline.

    Args:
        likeness: of the two, as the kind has it.
        groups: what each row belongs to, where rows are not independent.

    Raises:
        UnprovenError: there is something among the answers that is not a number.
    """
    first = headline(kind)
    if not np.isfinite(likeness.differences).all():
        raise UnprovenError("export refused: some answers are not numbers")
    pair = first.of(run, truth), first.of(export, truth)
    return {
        "n": len(run),
        "answer": kind.name,
        "of": likeness.of,
        "decisions": likeness.decisions,
        "agreement": likeness.agreement,
        f"max_{likeness.of}_difference": likeness.largest_difference,
        f"mean_{likeness.of}_difference": float(likeness.differences.mean()),
        first.name: {"run": pair[0].of_all_rows, "export": pair[1].of_all_rows},
        "comparison": asdict(compare(first.name, pair, groups, less_is_better=first.less_is_better)),
    }


def require_equal(evidence: dict[str, Any], likeness: Likeness) -> None:
    """Raises UnprovenError unless every decision is the same and every difference within what rounding explains."""
    evidence["tolerance"] = likeness.tolerance
    if likeness.agreement < 1 or likeness.largest_difference > likeness.tolerance:
        raise UnprovenError(
            f"export refused: on {evidence['n']:,} rows {likeness.agreement:.2%} of the {likeness.decisions} are the "
            f"run's and a {likeness.of} differs by up to {likeness.largest_difference:.1e} ({likeness.tolerance:g} is "
            "allowed); nothing was published"
        )


def is_no_worse(evidence: dict[str, Any], likeness: Likeness) -> bool:
    """Whether a loss by ``margin`` is ruled out and enough decisions are the same."""
    low, high = evidence["comparison"]["confidence_interval"]
    gain = (-high, -low) if headline_of(evidence).less_is_better else (low, high)
    return not_inferior(gain, evidence["margin"] * likeness.scale) and likeness.agreement >= evidence["min_agreement"]


def in_words(evidence: dict[str, Any], likeness: Likeness, option: str = "") -> str:
    """What :func:`is_no_worse` goes by; ``option`` stands before the names of what was asked for."""
    low, high = evidence["comparison"]["confidence_interval"]
    by, metric = evidence["comparison"]["difference"], headline_of(evidence).title
    return (
        f"on {evidence['n']:,} rows {metric} changes by {by:+.4f} (95% interval {low:+.4f} to {high:+.4f}, "
        f"{option}margin {evidence['margin']:g}) and {likeness.agreement:.2%} of the {likeness.decisions} are the same "
        f"({option}min-agreement {evidence['min_agreement']:g})"
    )


def require_no_worse(evidence: dict[str, Any], likeness: Likeness) -> None:
    """Raises UnprovenError unless :func:`is_no_worse`."""
    if not is_no_worse(evidence, likeness):
        raise UnprovenError(
            f"export refused: {in_words(evidence, likeness, '--')}; nothing was published; export onnx, or measure on "
            "more validation rows"
        )
