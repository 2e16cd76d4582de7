"""Which labels are taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.label import PROBABILITIES, predicted
from featherweight.evidence.exhibits import MODELS, Case
from featherweight.records import parts
from featherweight.records.answers import Answers
from featherweight.records.parts import Brief, Part

_MOST_DENSE = 20  # labels; the table of more has mostly zeros and more cells than anyone reads
_MOST_MISTAKES = 30

Cells = Mapping[str, Sequence[int]]


class Confusion:
    title: ClassVar[str] = "Confusion"

    def find(self, case: Case) -> Mapping[str, Any]:
        """Within ``where``: ``confusion``, or ``confusion_cells`` where there are over 20 labels; each by model."""
        is_small = case.base[PROBABILITIES].shape[1] <= _MOST_DENSE
        kind, count = ("confusion", confusion) if is_small else ("confusion_cells", confusion_cells)
        found = zip(MODELS, case.pair, strict=True)
        return {"where": {kind: {model: count(answers, case.truth) for model, answers in found}}}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        names = list(metrics["label_shares"]["train"])
        if len(names) > _MOST_DENSE:
            wrong = [
                parts.row(label, said, f"{before:,}", f"{after:,}") for label, said, before, after in mistakes(metrics)
            ]
            columns = ["label", "taken for", "rows before", "rows after"]
            return [parts.table("The tuned model's commonest mistakes", columns, wrong)] if wrong else []
        found = metrics["where"]["confusion"]
        return [{"kind": "confusion", "names": names, "tables": [("Before", found["base"]), ("After", found["tuned"])]}]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""


def confusion(answers: Answers, truth: NDArray[np.int64]) -> list[list[int]]:
    """Counts of rows by label (outer) and prediction (inner)."""
    classes = answers[PROBABILITIES].shape[1]
    cells = np.bincount(truth * classes + predicted(answers), minlength=classes**2)
    return [[int(cell) for cell in row] for row in cells.reshape(classes, classes)]


def confusion_cells(answers: Answers, truth: NDArray[np.int64]) -> dict[str, list[int]]:
    """The same without its zeros: class index of ``label`` and ``prediction``, and ``rows``, of each cell."""
    pairs, rows = np.unique(np.stack([truth, predicted(answers)]), axis=1, return_counts=True)
    return {"label": pairs[0].tolist(), "prediction": pairs[1].tolist(), "rows": rows.tolist()}


def mistakes(metrics: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """The commonest mistakes of the tuned model: label, prediction, rows before and after tuning."""
    names = list(metrics["label_shares"]["train"])
    before, after = (_cells(metrics["where"], model) for model in MODELS)
    pairs = zip(before["label"], before["prediction"], strict=True)
    known = dict(zip(pairs, before["rows"], strict=True))
    wrong = [one for one in zip(after["label"], after["prediction"], after["rows"], strict=True) if one[0] != one[1]]
    return [
        (names[label], names[prediction], known.get((label, prediction), 0), rows)
        for label, prediction, rows in sorted(wrong, key=lambda one: -one[2])[:_MOST_MISTAKES]
    ]


def _cells(where: Mapping[str, Any], model: str) -> Cells:
    """The confusion's cells that are not 0, also of a run that kept all of them."""
    if "confusion_cells" in where:
        found: Cells = where["confusion_cells"][model]
        return found
    cells = [
        (label, prediction, rows)
        for label, row in enumerate(where["confusion"][model])
        for prediction, rows in enumerate(row)
        if rows
    ]
    return dict(zip(("label", "prediction", "rows"), zip(*cells, strict=True), strict=True))
