"""The evidence on made-up probabilities of classes, for tests: arrays in, what the kind of answer makes of them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from featherweight.answers.label import PROBABILITIES, Label
from featherweight.evidence import two_models
from featherweight.evidence.exhibits import fit_on_half
from featherweight.records.answers import Answers, Comparison
from featherweight.statistics import paired
from featherweight.statistics.additive import Additive, mean_of

Groups = Sequence[str | None] | None


def answers(probabilities: np.ndarray) -> Answers:
    return Answers({PROBABILITIES: probabilities})


def kind(probabilities: np.ndarray) -> Label:
    return Label([f"label {one}" for one in range(probabilities.shape[1])])


def _of(name: str) -> Callable[[np.ndarray, np.ndarray], Additive]:
    (statistic,) = (one for one in Label.statistics if one.name == name)
    return lambda probabilities, labels: statistic.of(answers(probabilities), labels)


STATISTICS = {one.name: _of(one.name) for one in Label.statistics}
BY_RESAMPLING = [name for name in STATISTICS if name != "accuracy"]


def by_accuracy(
    base: np.ndarray, tuned: np.ndarray, labels: np.ndarray, groups: Groups = None, seed: int = 0
) -> dict[str, Any]:
    return two_models.by_headline(kind(base), (answers(base), answers(tuned)), labels, groups, seed)


def by_every_statistic(
    base: np.ndarray, tuned: np.ndarray, labels: np.ndarray, groups: Groups = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    return two_models.by_every_statistic(kind(base), (answers(base), answers(tuned)), labels, groups, seed)


def compare(base: np.ndarray, tuned: np.ndarray, groups: Groups = None) -> Comparison:
    """Which rows each got right."""
    return paired.compare("accuracy", (mean_of(base), mean_of(tuned)), groups)


def calibrate(probabilities: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    return fit_on_half(kind(probabilities), answers(probabilities), labels, seed)
