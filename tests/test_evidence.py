"""Our statistics against statsmodels', scipy's and scikit-learn's, and against exact enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import compare

from featherweight.answers.label import Label
from featherweight.statistics.proportions import holm, mcnemar_exact, newcombe_paired, wilson

CELLS = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda cells: sum(cells) > 0)


def answers(both: int, fixed: int, broken: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    base = np.repeat([True, False, True, False], [both, fixed, broken, neither])
    tuned = np.repeat([True, True, False, False], [both, fixed, broken, neither])
    return base, tuned


@given(CELLS)
def test_mcnemar_is_statsmodels(cells: tuple[int, int, int, int]) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    both, fixed, broken, neither = cells
    ours = mcnemar_exact(fixed, broken)
    if fixed + broken == 0:
        assert ours == 1.0
    else:
        assert ours == pytest.approx(mcnemar([[both, broken], [fixed, neither]], exact=True).pvalue, abs=1e-12)


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_is_statsmodels(correct: int, n: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    correct = min(correct, n)
    assert wilson(correct, n) == pytest.approx(proportion_confint(correct, n, method="wilson"), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    with mock.patch("gc.collect"):  # which statsmodels calls each time, for half a second where torch is imported
        theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs, abs=1e-12)


@given(CELLS)
def test_comparison_is_consistent(cells: tuple[int, int, int, int]) -> None:
    base, tuned = answers(*cells)
    found = compare(base, tuned)
    swapped = compare(tuned, base)
    low, high = found.confidence_interval
    assert found.n == sum(cells)
    assert (found.fixed, found.broken) == (cells[1], cells[2])
    assert found.difference == pytest.approx(tuned.mean() - base.mean())
    assert -1 - 1e-9 <= low <= found.difference <= high <= 1 + 1e-9
    assert swapped.p_value == found.p_value
    assert swapped.confidence_interval == pytest.approx((-high, -low))
    assert (found.verdict == "no-difference") == (found.p_value >= 0.05)
    opposite = {"better": "worse", "worse": "better", "no-difference": "no-difference"}
    assert swapped.verdict == opposite[found.verdict]


def test_newcombe_gives_the_papers_interval() -> None:
    """Newcombe 1998, method 10, for 36, 12, 2 and 0 of 50 pairs."""
    assert newcombe_paired(both=36, fixed=12, broken=2, n=50) == pytest.approx((0.0569, 0.3404), abs=2e-4)


@pytest.mark.parametrize(("p_fixed", "p_broken"), [(0.1, 0.1), (0.2, 0.05), (0.1, 0.05), (0.3, 0.1)])
def test_the_interval_covers_as_often_as_it_says(p_fixed: float, p_broken: float) -> None:
    """Exact coverage over every outcome of 40 pairs, half of which both models get right on average."""
    n, p_both = 40, 0.5
    covered = total = 0.0
    for fixed, broken in itertools.product(range(n + 1), repeat=2):
        if fixed + broken > n:
            continue
        rest = n - fixed - broken
        for both in range(rest + 1):
            neither = rest - both
            parts = (both, fixed, broken, neither)
            chances = (p_both, p_fixed, p_broken, 1 - p_both - p_fixed - p_broken)
            if any(chance == 0 and part for chance, part in zip(chances, parts, strict=True)):
                continue
            log = math.lgamma(n + 1) + sum(
                part * math.log(chance) - math.lgamma(part + 1)
                for part, chance in zip(parts, chances, strict=True)
                if chance
            )
            if (probability := math.exp(log)) < 1e-7:
                continue
            low, high = newcombe_paired(both, fixed, broken, n)
            total += probability
            covered += probability * (low <= p_fixed - p_broken <= high)
    assert total > 0.99
    assert covered / total > 0.94


def test_nothing_changed_and_one_row() -> None:
    same = np.asarray([True, False, True])
    found = compare(same, same)
    assert (found.p_value, found.fixed, found.broken, found.verdict) == (1.0, 0, 0, "no-difference")
    one = compare(np.asarray([False]), np.asarray([True]))
    assert (one.n, one.fixed, one.p_value) == (1, 1, 1.0)


def test_random_answers_are_seldom_called_better_or_worse() -> None:
    """Under the null hypothesis the exact test claims a difference at most at its nominal rate."""
    draw = np.random.default_rng(0)
    claims = sum(
        compare(draw.random(200) < 0.8, draw.random(200) < 0.8).verdict != "no-difference" for _ in range(1000)
    )
    assert claims / 1000 <= 0.05


def test_the_word_baseline_is_scikit_learns() -> None:
    import pyarrow as pa
    import tiny
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from featherweight.evidence.baselines import Part
    from featherweight.evidence.baselines.labels import Majority, TfidfLogisticRegression
    from featherweight.records.rows import Examples, Rows

    def make(count: int, seed: int) -> Examples:
        rows = tiny.rows(count, seed)
        labels = np.asarray([row["label"] == "pos" for row in rows], dtype=np.int64)
        texts = Rows(pa.table({"text": [row["text"] for row in rows]}))
        return Examples("x", texts, "text", labels, np.arange(count), 0, "x", "x")

    train, validation = make(120, 0), make(31, 1)

    def never(rows: Any) -> np.ndarray:
        raise AssertionError("neither of them runs the model")

    def answers(baseline: Any, names: str) -> np.ndarray:
        baseline.fit(Part(train, never, never), Label(names))
        found: np.ndarray = baseline.predict(Part(validation, never, never))["probabilities"]
        return found

    ours = answers(TfidfLogisticRegression(), "ab")
    stock = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1000)
    )
    stock.fit(list(train.all_texts()), train.truth)
    np.testing.assert_allclose(ours, stock.predict_proba(list(validation.all_texts())), atol=1e-6)
    np.testing.assert_allclose(answers(Majority(), "abc")[0], [0.5, 0.5, 0.0])


def test_row_43_models_of_shuffled_labels_are_called_better_at_most_at_the_nominal_rate() -> None:
    """Twenty word models taught nothing, against the majority; and one taught the truth, which must be seen."""
    import pyarrow as pa
    import tiny

    from featherweight.evidence.baselines import Part
    from featherweight.evidence.baselines.labels import Majority, TfidfLogisticRegression
    from featherweight.records.rows import Examples, Rows

    rows = tiny.rows(300)
    truth = np.asarray([row["label"] == "pos" for row in rows], dtype=np.int64)
    texts = Rows(pa.table({"text": [row["text"] for row in rows]}))

    def verdict(labels: np.ndarray) -> str:
        whole = Examples("x", texts, "text", labels, np.arange(len(rows)), 0, "x", "x")
        halves = (whole.select(part) for part in np.split(np.arange(300), 2))
        train, held_out = (Part(half, lambda rows: np.empty(0), lambda texts: np.empty(0)) for half in halves)
        right = []
        for baseline in (Majority(), TfidfLogisticRegression()):
            baseline.fit(train, Label("ab"))
            right.append(baseline.predict(held_out)["probabilities"].argmax(axis=1) == held_out.examples.truth)
        return compare(*right).verdict

    shuffled = [verdict(np.random.default_rng(seed).permutation(truth)) for seed in range(20)]
    assert shuffled.count("better") <= 3, "more has a chance of 1.6 % where each is wrong 1 time in 20"
    assert verdict(truth) == "better"
