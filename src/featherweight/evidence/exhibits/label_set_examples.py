"""Which rows only one of the two models gets wholly right, where a row has any number of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featherweight.answers.labels import LabelSets, decided, probability_of_truth, right
from featherweight.evidence.exhibits import Case
from featherweight.evidence.exhibits.examples import Examples, chosen
from featherweight.records.parts import Part


class LabelSetExamples(Examples):
    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``, as of single labels: a row is right where every label is. ``base`` and ``tuned`` are the
        probabilities of exactly the true labels; ``mistakes`` begin with the least."""
        assert isinstance(case.kind, LabelSets)
        kind, said = case.kind, decided(case.tuned)
        is_right = [right(side, case.truth) for side in case.pair]
        probability = [probability_of_truth(side, case.truth) for side in case.pair]
        return {"examples": chosen(case, is_right, probability, probability[1], lambda row: kind.named(said[row]))}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        caption = "Up to 100 of each kind; base and tuned are the probabilities of exactly the true labels"
        return [{**part, "caption": caption} for part in super().show(metrics)]
