"""Rivals that know which of two answers is the better."""

from __future__ import annotations

import numpy as np

from featherweight.answers import Answer
from featherweight.answers.preference import LENGTHS, LOGPS, REWARDS, characters
from featherweight.evidence.baselines import Part
from featherweight.records.answers import Answers


class LongerAnswer:
    """Prefers the answer of more characters: what people who compare answers are known to do, and what a model may
    learn instead of anything else. Its reward is 1 for the longer one; how likely a text is it does not know."""

    def fit(self, train: Part, kind: Answer) -> None:
        """Nothing is."""

    def predict(self, part: Part) -> Answers:
        lengths = characters(part.examples.truth)
        longer = (lengths > lengths[:, ::-1]).astype(np.float64)
        return Answers({REWARDS: longer, LOGPS: np.zeros_like(longer), LENGTHS: np.zeros_like(lengths)})
