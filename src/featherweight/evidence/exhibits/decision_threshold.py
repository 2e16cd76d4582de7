"""What a chosen decision threshold changes on rows that did not choose it; where a recipe asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.evidence.exhibits import Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Column, Part

_KEY = "decision"
_TITLES = {"precision": "precision", "recall": "recall", "f1": "F1", "accuracy": "accuracy", "cost": "cost of a row"}
_CHOSEN_BY = {
    "f1": "the best F1",
    "precision": "the most that are found at a precision of {wanted}",
    "recall": "the best precision at a recall of {wanted}",
    "cost": "the least cost, {wanted[false_positive]:g} for a false positive and {wanted[false_negative]:g} for a "
    "false negative",
}


class DecisionThreshold:
    title: ClassVar[str] = "Decision threshold"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``decision``, by model: what the threshold was chosen by, and what it changes; nothing where none is asked
        for."""
        found = {model: one[_KEY] for model, one in case.fitted.items() if _KEY in one}
        return {_KEY: found} if found else {}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        if _KEY not in metrics:
            return []
        tuned = metrics[_KEY]["tuned"]
        if tuned["threshold"] is None:
            return [parts.text(_not_reached(tuned))]
        rows = [
            parts.row(
                _TITLES[name],
                f"{one['base']:.4f}",
                f"{one['tuned']:.4f}",
                "{:.4f} to {:.4f}".format(*one["interval"]),
                *parts.difference(one),
                f"{one['p_value']:.3g}",
            )
            for name, one in tuned["figures"].items()
        ]
        return [
            parts.text(
                f"{tuned['pos_label']!r} is answered from a probability of {tuned['threshold']:.4f} on, at the fitted "
                f"temperature, with --calibrated. It is the threshold with {_chosen_by(tuned)} on "
                f"{tuned['fitted_rows']:,} validation rows; what it does is measured on {tuned['reported_rows']:,} "
                "other rows."
            ),
            parts.table(
                "The tuned model at that threshold against 0.5, paired",
                ["statistic", "at 0.5", "at the threshold", "95 % interval", "difference", "95 % interval", "p"],
                rows,
            ),
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        if _KEY not in metrics or metrics[_KEY]["tuned"]["threshold"] is None:
            return []
        tuned = metrics[_KEY]["tuned"]
        columns = [
            Column("", words=True), Column("at 0.5"), Column("at the threshold"), Column("difference"),
            Column("95 % interval", 1),
        ]  # fmt: skip
        rows = [
            [_TITLES[name], f"{one['base']:.4f}", f"{one['tuned']:.4f}", *parts.difference(one)]
            for name, one in tuned["figures"].items()
        ]
        return [Brief(f"{tuned['pos_label']} from {tuned['threshold']:.4f} on, by other rows", columns, rows)]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        if _KEY not in metrics:
            return ""
        tuned = metrics[_KEY]["tuned"]
        if tuned["threshold"] is None:
            return _not_reached(tuned)
        moved = (
            "{} from {base:.4f} to {tuned:.4f} ({interval[0]:.4f} to {interval[1]:.4f})".format(_TITLES[name], **one)
            for name, one in tuned["figures"].items()
        )
        return (
            f"At the temperature and from a probability of {tuned['threshold']:.4f} on, instead of 0.5, "
            f"{tuned['pos_label']!r} is answered with {_chosen_by(tuned)}: on rows that did not choose the threshold "
            f"it moves {', '.join(moved)}."
        )


def _chosen_by(tuned: Mapping[str, Any]) -> str:
    return _CHOSEN_BY[tuned["chosen_by"]].format(wanted=tuned["wanted"])


def _not_reached(tuned: Mapping[str, Any]) -> str:
    return (
        f"No decision threshold for {tuned['pos_label']!r} gives {_chosen_by(tuned)} on the {tuned['fitted_rows']:,} "
        "validation rows that were to choose it, so none is set: the more probable label is answered."
    )
