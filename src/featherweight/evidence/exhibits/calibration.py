"""Do probabilities mean what they say, before and after a temperature, and what would abstaining buy?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.evidence.exhibits import Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Lines, Part, Series

_SCORES = {
    "negative_log_likelihood": "negative log likelihood",
    "brier_score": "Brier score",
    "expected_calibration_error": "expected calibration error",
    "adaptive_calibration_error": "the same, bins of equal count",
}


_ELSEWHERE = {"decision", "decision_threshold"}  # shown by an exhibit of their own


class Calibration:
    title: ClassVar[str] = "Calibration"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``calibration``: for each model the fitted temperature, scores before and after, thresholds."""
        models = case.fitted.items()
        return {
            "calibration": {model: {key: one[key] for key in one if key not in _ELSEWHERE} for model, one in models}
        }

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        tuned = metrics["calibration"]["tuned"]
        scores = [metrics["calibration"]["base"]["before"], tuned["before"], tuned["after"]]
        rows = [parts.row(title, *(f"{one[name]:.4f}" for one in scores)) for name, title in _SCORES.items()]
        return [
            parts.text(
                f"A temperature of {tuned['temperature']:.3f} was fitted on {tuned['fitted_rows']:,} validation rows "
                f"and is reported on {_reported(metrics)}. It changes no label; --calibrated applies it."
            ),
            parts.table("Smaller is better", ["score", "base", "tuned", "tuned, at temperature"], rows),
            parts.plots(_reliability(tuned), _risk(tuned)),
            *_thresholds(tuned),
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        tuned = metrics["calibration"]["tuned"]
        return (
            f"Dividing the logits by the temperature {tuned['temperature']:.3f} takes the expected calibration error "
            f"from {tuned['before']['expected_calibration_error']:.4f} to "
            f"{tuned['after']['expected_calibration_error']:.4f} on rows that it was not fitted on."
        )


def _reliability(tuned: Mapping[str, Any]) -> Lines:
    before, after = tuned["before"], tuned["after"]
    return Lines(
        "Reliability of the tuned model",
        f"Accuracy against confidence; calibration error {before['expected_calibration_error']:.3f} as it is, "
        f"{after['expected_calibration_error']:.3f} at the fitted temperature. The diagonal is perfect.",
        [
            Series(name, [(bin_["confidence"], bin_["accuracy"]) for bin_ in one["bins"]], kind, True)
            for kind, (name, one) in enumerate({"as it is": before, "at temperature": after}.items(), 1)
        ],
        "confidence",
        "accuracy",
        unit=True,
        diagonal=True,
    )


def _risk(tuned: Mapping[str, Any]) -> Lines:
    curve = [(one["coverage"], one["risk"]) for one in tuned["risk_coverage"]["points"]]
    return Lines(
        "Errors when only the surest are answered",
        f"Error rate from {curve[0][1]:.3f} at coverage {curve[0][0]:.2f} to {curve[-1][1]:.3f} at 1.",
        [Series("tuned model", curve, 1)],
        "share of rows answered",
        "error rate",
    )


def _thresholds(tuned: Mapping[str, Any]) -> list[Part]:
    rows = [
        parts.row(
            f"{one['wanted_error_rate']:.0%}",
            f"{one['confidence']:.4f}",
            f"{one['coverage']:.1%}",
            parts.percent(one["error_rate"]),
            " to ".join(f"{end:.1%}" for end in one["error_rate_interval"] or []),
        )
        if one["confidence"] is not None
        else parts.row(f"{one['wanted_error_rate']:.0%}", "not reached", "", "", "")
        for one in tuned["thresholds"]
    ]
    caption = "Answer only when sure: threshold from the fitting rows, outcome on the others"
    columns = ["wanted error rate", "confidence at least", "answered", "error rate", "95 % interval"]
    return [parts.table(caption, columns, rows)] if rows else []


def _reported(metrics: Mapping[str, Any]) -> str:
    rows = f"{metrics['calibration']['tuned']['reported_rows']:,}"
    return (
        f"the other {rows}" if metrics["selection"]["is_evaluated"] else f"the {rows} {metrics['evaluated_split']} rows"
    )
