"""Rivals that foretell the tokens of a completion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.text import WIDTH
from featherweight.evidence.baselines import Part
from featherweight.records.answers import Answers
from featherweight.records.rows import Ragged


class Unigram:
    """Expects each token as often as train's completions have it, wherever it stands (Laplace's rule of succession).

    Tokens that train lacks share the room of one, so that the rival is rather flattered than slighted.
    """

    def fit(self, train: Part, kind: Answer) -> None:
        self.kind = kind
        self.known, counts = np.unique(_targets(train).values, return_counts=True)
        self.log_probabilities = np.log(np.append(counts + 1, 1) / (counts.sum() + len(counts) + 1))
        self.commonest = int(self.known[counts.argmax()]) if len(counts) else -1

    def predict(self, part: Part) -> Answers:
        targets = _targets(part)
        values = np.empty((len(targets.values), WIDTH), dtype=np.float32)
        values[:, 0] = self.log_probabilities[self._places(targets.values)]
        values[:, 1] = targets.values == self.commonest
        return self.kind.of_outputs(Ragged(values, targets.offsets), {})

    def _places(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        places = np.searchsorted(self.known, ids)
        is_known = np.append(self.known, -1)[places] == ids
        return np.where(is_known, places, len(self.known))


def _targets(part: Part) -> Ragged:
    assert isinstance(part.targets, Ragged)
    return part.targets
