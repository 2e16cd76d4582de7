"""Metrics, resampling and calibration against scikit-learn, scipy and torchmetrics, edge cases included."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pairs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import BY_RESAMPLING, STATISTICS, compare

from featherweight.answers import calibration
from featherweight.answers import probabilities as scores
from featherweight.evidence.fitting import halves
from featherweight.statistics import resampling
from featherweight.statistics.proportions import (
    detectable_difference,
    mcnemar_exact,
    not_inferior,
    smallest_significant_difference,
)

ROWS = st.integers(1, 60)


def draw(rows: int, classes: int, seed: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that lean to the label, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += skill
    powers = np.exp(logits)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels


def edge_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    sure = np.eye(2, dtype=np.float32)
    labels = np.asarray([0, 1, 1, 0])
    return [
        (sure[labels], labels),  # everything right
        (sure[1 - labels], labels),  # everything wrong
        (sure[[0, 0, 0, 0]], labels),  # one class predicted
        (sure[labels], np.zeros(4, dtype=np.int64)),  # one class there
        (sure[[0, 0]], np.zeros(2, dtype=np.int64)),  # one class on either side
        (sure[[1]], np.asarray([1])),  # one row
    ]


def sklearns(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from sklearn import metrics as theirs

    predictions = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are predicted and never there
        return {
            "accuracy": theirs.accuracy_score(labels, predictions),
            "macro_f1": theirs.f1_score(labels, predictions, average="macro", zero_division=0),
            "balanced_accuracy": theirs.balanced_accuracy_score(labels, predictions),
            "matthews_correlation": theirs.matthews_corrcoef(labels, predictions),
        }


@given(ROWS, st.integers(2, 5), st.integers(0, 1000))
def test_metrics_are_scikit_learns(rows: int, classes: int, seed: int) -> None:
    probabilities, labels = draw(rows, classes, seed)
    for name, expected in sklearns(probabilities, labels).items():
        statistic = STATISTICS[name](probabilities, labels)
        assert statistic.of_all_rows == pytest.approx(expected, abs=1e-9), name
        summed = statistic.value(np.asarray(statistic.features.sum(axis=0)).reshape(-1))
        assert float(summed) == pytest.approx(expected, abs=1e-9), f"{name} from what is resampled"


@pytest.mark.parametrize("case", range(len(edge_cases())))
def test_metrics_are_scikit_learns_at_the_edges(case: int) -> None:
    probabilities, labels = edge_cases()[case]
    for name, expected in sklearns(probabilities, labels).items():
        assert STATISTICS[name](probabilities, labels).of_all_rows == pytest.approx(expected, abs=1e-9), name
    found = pairs.by_every_statistic(probabilities, probabilities, labels)
    assert {row["difference"] for row in found.values()} == {0.0}
    assert {row["p_value"] for row in found.values()} == {1.0}
    assert {row["verdict"] for row in found.values()} == {"no-difference"}
    calibrated = pairs.calibrate(probabilities, labels, seed=0)
    assert calibrated["reported_rows"] + calibrated["fitted_rows"] == len(labels)


@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 1000))
def test_proper_scores_are_scikit_learns(rows: int, classes: int, seed: int) -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    probabilities, labels = draw(rows, classes, seed)
    named = list(range(classes))
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = calibration.scores(probabilities, labels)
    assert found["negative_log_likelihood"] == pytest.approx(log_loss(labels, probabilities, labels=named), abs=1e-6)
    assert found["brier_score"] == pytest.approx(brier_score_loss(labels, probabilities, labels=named), abs=1e-6)


@given(ROWS, st.integers(2, 5), st.integers(0, 1000))
def test_calibration_error_is_torchmetrics(rows: int, classes: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")

    probabilities, labels = draw(rows, classes, seed)
    expected = functional.multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(labels), classes, n_bins=scores.BINS, norm="l1"
    )
    found = calibration.scores(probabilities, labels)
    assert found["expected_calibration_error"] == pytest.approx(float(expected), abs=1e-5)
    statistic = STATISTICS["expected_calibration_error"](probabilities, labels)
    assert statistic.of_all_rows == pytest.approx(found["expected_calibration_error"], abs=1e-9)
    assert sum(one["rows"] for one in found["bins"]) == rows


def test_adaptive_bins_hold_as_many_rows_each() -> None:
    probabilities, labels = draw(100, 2, 0)
    rows = [one["rows"] for one in calibration.adaptive_bins(probabilities, labels)]
    assert (len(rows), sum(rows)) == (scores.BINS, 100)
    assert max(rows) - min(rows) <= 1


def test_temperature_is_scikit_learns() -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    features = generator.normal(size=(600, 4))
    labels = (features[:, 0] + generator.normal(size=600) > 0).astype(np.int64)
    model = LogisticRegression(C=1e3).fit(features[:20], labels[:20])  # overconfident
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(features, labels)
    ours = scores.fit_temperature(model.predict_proba(features), labels)
    assert ours > 1.2
    expected = theirs.predict_proba(features)
    found = scores.apply_temperature(model.predict_proba(features), ours)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@given(ROWS, st.integers(2, 5), st.integers(0, 1000), st.floats(0.05, 20))
def test_temperature_never_changes_a_label(rows: int, classes: int, seed: int, temperature: float) -> None:
    probabilities, _ = draw(rows, classes, seed)
    after = scores.apply_temperature(probabilities, temperature)
    np.testing.assert_array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(scores.apply_temperature(probabilities, 1.0), probabilities, atol=1e-6)


def test_calibration_reports_on_rows_that_it_was_not_fitted_on() -> None:
    """What the reporting half holds has no say in the temperature; what the fitting half holds has."""
    probabilities, labels = draw(400, 2, 1, skill=2.0)
    fitting, reporting = halves(400, seed=7)
    assert not set(fitting) & set(reporting)
    assert len(fitting) == len(reporting) == 200
    before = pairs.calibrate(probabilities, labels, seed=7)["temperature"]
    for half, same in ((reporting, True), (fitting, False)):
        changed = labels.copy()
        changed[half] = 1 - changed[half]
        assert (pairs.calibrate(probabilities, changed, seed=7)["temperature"] == before) is same


def test_overconfidence_is_mended() -> None:
    probabilities, labels = draw(4000, 3, 2, skill=1.0)
    sharp = scores.apply_temperature(probabilities, 0.3)
    found = pairs.calibrate(sharp, labels, seed=0)
    assert found["temperature"] == pytest.approx(1 / 0.3, rel=0.15)
    for score in ("negative_log_likelihood", "brier_score", "expected_calibration_error"):
        assert found["after"][score] < found["before"][score]


def test_risk_against_coverage_and_thresholds() -> None:
    probabilities, labels = draw(2000, 2, 3, skill=2.0)
    found = pairs.calibrate(probabilities, labels, seed=0)
    curve = found["risk_coverage"]
    wrong = probabilities.argmax(axis=1) != labels
    reported = halves(2000, 0)[1]
    assert curve["points"][-1]["coverage"] == 1
    assert curve["points"][-1]["risk"] == pytest.approx(wrong[reported].mean())
    assert curve["area"] < wrong[reported].mean(), "the confident half is right more often"
    for one in found["thresholds"]:
        low, high = one["error_rate_interval"]
        assert low - 0.01 <= one["wanted_error_rate"] <= high + 0.01
    coverages = [one["coverage"] for one in found["thresholds"]]
    assert coverages == sorted(coverages), "more errors allowed, more answered"


def test_no_threshold_reaches_what_can_t_be_reached() -> None:
    probabilities = np.asarray([[0.1, 0.9]] * 4, dtype=np.float32)
    labels = np.zeros(4, dtype=np.int64)
    assert calibration.threshold(probabilities, labels, probabilities, labels, 0.1)["confidence"] is None


@pytest.mark.parametrize("name", BY_RESAMPLING)
def test_permutation_is_scipys(name: str) -> None:
    """Every one of the 2^9 exchanges against a sample of them."""
    from scipy.stats import permutation_test

    base, labels = draw(9, 2, 5, skill=0.0)
    tuned, _ = draw(9, 2, 5, skill=2.0)
    rows = np.arange(9)

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        both = np.stack([base, tuned])
        sides = [both[(side >= 9).astype(int), rows] for side in (first, second)]
        return STATISTICS[name](sides[1], labels).of_all_rows - STATISTICS[name](sides[0], labels).of_all_rows

    exact = permutation_test(
        (rows, rows + 9), difference, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    pairs = [(STATISTICS[name](base, labels), STATISTICS[name](tuned, labels))]
    two_sided = np.mean(np.abs(exact.null_distribution) >= abs(exact.statistic) - 1e-12)
    (ours,) = resampling.permutation_p_values(pairs, np.arange(9), resamples=20_000, seed=0)
    assert ours == pytest.approx(two_sided, abs=0.015)


@pytest.mark.parametrize("name", BY_RESAMPLING)
def test_bootstrap_is_scipys(name: str) -> None:
    from scipy.stats import bootstrap

    base, labels = draw(80, 3, 6, skill=0.5)
    tuned, _ = draw(80, 3, 6, skill=1.5)

    def difference(rows: np.ndarray) -> float:
        pair = [STATISTICS[name](side[rows], labels[rows]).of_all_rows for side in (base, tuned)]
        return pair[1] - pair[0]

    theirs = bootstrap((np.arange(80),), difference, method="percentile", n_resamples=1000, vectorized=False, rng=0)
    pairs = [(STATISTICS[name](base, labels), STATISTICS[name](tuned, labels))]
    (ours,) = resampling.bootstrap(pairs, np.arange(80), resamples=4000, seed=0)
    spread = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert resampling.interval(ours, 0.95) == pytest.approx(tuple(theirs.confidence_interval), abs=0.12 * spread)


def test_the_same_seed_gives_the_same_figures_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base, labels = draw(50, 2, 8, skill=0.0)
    tuned, _ = draw(50, 2, 8, skill=1.0)
    whole = pairs.by_every_statistic(base, tuned, labels, seed=3)
    assert pairs.by_every_statistic(base, tuned, labels, seed=3) == whole
    other = pairs.by_every_statistic(base, tuned, labels, seed=4)
    assert other["macro_f1"]["confidence_interval"] != whole["macro_f1"]["confidence_interval"]
    monkeypatch.setattr(resampling, "_BLOCK_NUMBERS", 50 * 37)
    blocks = pairs.by_every_statistic(base, tuned, labels, seed=3)
    for name, row in whole.items():
        assert blocks[name]["p_value"] == pytest.approx(row["p_value"], abs=0.02)


def test_holm_is_over_the_whole_family() -> None:
    from statsmodels.stats.multitest import multipletests

    base, labels = draw(200, 2, 9, skill=0.3)
    tuned, _ = draw(200, 2, 9, skill=0.9)
    found = pairs.by_every_statistic(base, tuned, labels)
    expected = multipletests([row["p_value"] for row in found.values()], method="holm")[1]
    assert [row["p_value_holm"] for row in found.values()] == pytest.approx(list(expected))
    assert set(found) == set(STATISTICS)
    assert found["macro_f1"]["verdict"] == found["negative_log_likelihood"]["verdict"] == "better"


def test_groups_widen_the_interval_where_rows_repeat() -> None:
    """20 rows, each copied 25 times: rows pretend to 500 witnesses, groups know of 20."""
    generator = np.random.default_rng(0)
    base = np.repeat(generator.random(20) < 0.5, 25)
    tuned = np.repeat(generator.random(20) < 0.8, 25)
    groups = [str(index // 25) for index in range(500)]
    naive, grouped = compare(base, tuned), compare(base, tuned, groups)
    single = compare(base[::25], tuned[::25], [str(index) for index in range(20)])
    assert naive.difference == grouped.difference == single.difference
    widths = [high - low for low, high in (naive.confidence_interval, grouped.confidence_interval)]
    assert widths[1] > 3 * widths[0]
    assert grouped.p_value > 100 * naive.p_value
    assert grouped.p_value == pytest.approx(single.p_value, abs=0.02)
    assert grouped.confidence_interval == pytest.approx(single.confidence_interval, abs=0.02)
    assert grouped.test == "permutation-by-group"


@pytest.mark.parametrize(
    ("n", "share", "points"),
    [(872, 0.04, 1.5), (872, 0.08, 2.1), (872, 0.12, 2.6), (1066, 0.04, 1.4), (1821, 0.12, 1.7), (7600, 0.08, 0.7),
     (25000, 0.04, 0.3)],
)  # fmt: skip
def test_the_smallest_significant_difference(n: int, share: float, points: float) -> None:
    """Known values; and one pair fewer is not significant, which is what smallest means."""
    discordant = round(n * share)
    found = smallest_significant_difference(discordant, 0, n)
    assert found is not None
    assert 100 * found == pytest.approx(points, abs=0.06)
    net = round(found * n)
    fixed = (discordant + net) // 2
    assert mcnemar_exact(fixed, discordant - fixed) < 0.05
    assert mcnemar_exact(fixed - 1, discordant - fixed + 1) >= 0.05


def test_differences_that_can_t_be_shown() -> None:
    assert smallest_significant_difference(0, 0, 100) == pytest.approx(0.06), "six of six"
    assert smallest_significant_difference(1, 0, 5) is None
    assert smallest_significant_difference(0, 0, 1) is None
    assert detectable_difference(0, 0, 1) is None
    assert detectable_difference(3, 0, 872) is None, "three changed rows show nothing"


def test_the_detectable_difference_is_found_with_its_power() -> None:
    """Simulated: the asymptotic McNemar test that the formula is of finds it in about 80 % of test sets."""
    n, share = 2000, 0.1
    found = detectable_difference(round(n * share), 0, n)
    assert found is not None
    fixed, broken = (share + found) / 2, (share - found) / 2
    counts = np.random.default_rng(0).multinomial(n, [fixed, broken, 1 - share], size=4000)
    z = (counts[:, 0] - counts[:, 1]) / np.sqrt(counts[:, 0] + counts[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.03)


def test_not_inferior_is_a_matter_of_the_lower_end() -> None:
    assert not_inferior((-0.009, 0.02), 0.01)
    assert not not_inferior((-0.011, 0.02), 0.01)
    assert not not_inferior((-0.01, 0.5), 0.01)


def test_bootstrap_enumerated() -> None:
    """Two rows have four equally likely resamples."""
    base = np.asarray([[0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    tuned = np.asarray([[0.9, 0.1], [0.1, 0.9]], dtype=np.float32)
    labels = np.asarray([0, 1])
    make = STATISTICS["macro_f1"]
    (found,) = resampling.bootstrap([(make(base, labels), make(tuned, labels))], np.arange(2), resamples=8000, seed=0)
    possible = {0: 0.0, 1: 1 - 1 / 3, 2: 1.0}  # how often the second row is drawn
    values, counts = np.unique(np.round(found, 6), return_counts=True)
    assert values == pytest.approx(sorted(possible.values()), abs=1e-6)
    expected = [math.comb(2, k) / 4 for k in range(3)]
    assert list(counts / 8000) == pytest.approx(expected, abs=0.02)


# A rare label that is never answered.


def sure(answers: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[answers]


def one_sided(rows: int, classes: int = 2) -> np.ndarray:
    """1 % of the rows for each label but the first."""
    labels = np.zeros(rows, dtype=np.int64)
    for label in range(1, classes):
        labels[label * rows // 100 : (label + 1) * rows // 100] = label
    return labels


@pytest.mark.parametrize("rows", [200, 400, 2000])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_row_100_a_rare_label_never_answered_is_not_better(rows: int, classes: int) -> None:
    """Sets of 99:1 and less even, whose base head answers at random: a hundred draws, and none is called better."""
    labels = one_sided(rows, classes)
    constant = sure(np.zeros(rows, dtype=np.int64), classes)
    all_but_one = sure(np.where(labels == classes - 1, 0, labels), classes)
    for seed in range(100):
        base = sure(np.random.default_rng(seed).integers(0, classes, rows), classes)
        right = labels[base.argmax(axis=1) == labels]
        found = pairs.by_accuracy(base, constant, labels, seed=seed)
        assert (found["verdict"], found["accuracy_verdict"]) == ("no-difference", "better")
        if (right == classes - 1).any():
            assert pairs.by_accuracy(base, all_but_one, labels, seed=seed)["verdict"] == "no-difference"


def test_row_100_a_rare_label_that_is_answered_is_better() -> None:
    """The controls: the same sets with the rare labels answered, and labels that are missed but not rare."""
    for classes in (2, 3, 5):
        labels = one_sided(2000, classes)
        base = sure(np.random.default_rng(0).integers(0, classes, 2000), classes)
        tuned = np.where(np.arange(2000) % 10 == 9, 0, labels)  # most of the rare rows, and no more
        assert pairs.by_accuracy(base, sure(tuned, classes), labels)["verdict"] == "better"
    many = np.arange(300) // 2  # 150 labels, two rows each, and a model that never answers some of them
    tuned = np.where(many % 5 == 0, 0, many)
    base = sure(np.random.default_rng(0).integers(0, 150, 300), 150)
    assert pairs.by_accuracy(base, sure(tuned, 150), many)["verdict"] == "better"


def test_row_100_finding_a_rare_label_is_not_worse() -> None:
    """The mirror: a base that never answers the rare label is not called better for the rows that this costs."""
    labels = one_sided(2000)
    constant = sure(np.zeros(2000, dtype=np.int64), 2)
    finds = labels.copy()
    finds[100:160] = 1
    found = pairs.by_accuracy(constant, sure(finds, 2), labels)
    assert (found["verdict"], found["accuracy_verdict"]) == ("no-difference", "worse")
    even = np.arange(400) % 2
    wrong = np.where(np.arange(400) % 3 == 0, even, 1 - even)
    assert pairs.by_accuracy(sure(np.zeros(400, dtype=np.int64), 2), sure(wrong, 2), even)["verdict"] == "worse"


def test_row_100_by_group_too() -> None:
    labels = one_sided(600)
    base = sure(np.random.default_rng(0).integers(0, 2, 600), 2)
    groups = [str(row // 6) for row in range(600)]
    assert pairs.by_accuracy(base, sure(labels * 0, 2), labels, groups)["verdict"] == "no-difference"
    assert pairs.by_accuracy(base, sure(labels, 2), labels, groups)["verdict"] == "better"
