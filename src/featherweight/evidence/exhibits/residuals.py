"""How far numbers are off: by what was answered, and what an interval about an answer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from featherweight.answers.number import VALUE
from featherweight.evidence.exhibits import MODELS, Case
from featherweight.records import parts
from featherweight.records.answers import Answers
from featherweight.records.parts import Brief, Lines, Part, Series

_BINS = 10
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Residuals:
    title: ClassVar[str] = "Residuals"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``residuals``: of each model ``bins`` of the rows by what it answers (``rows``, mean ``answer``, mean
        ``truth``), ``quantiles`` of answer minus truth, and what was fitted to its answers (``intervals``)."""
        return {
            "residuals": {
                model: {**_of(answers, case.truth), **case.fitted[model]}
                for model, answers in zip(MODELS, case.pair, strict=True)
            }
        }

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        found = metrics["residuals"]
        lines = [
            Series(f"{model} model", [(one["answer"], one["truth"]) for one in found[model]["bins"]], kind, True)
            for kind, model in enumerate(MODELS, 1)
        ]
        ends = [end for series in lines for point in series.points for end in point]
        lines.append(Series("perfect", [(min(ends), min(ends)), (max(ends), max(ends))], 3))
        plot = Lines(
            "Truth by answer",
            "Mean truth of the rows with about the same answer, against that answer; on the straight line answers are "
            "neither too high nor too low on average.",
            lines,
            "answer",
            "mean truth",
        )
        rows = [parts.row(f"{model} model", *(f"{one:+.4g}" for one in found[model]["quantiles"])) for model in MODELS]
        columns = ["answer minus truth", *(f"{share:.0%}" for share in _QUANTILES)]
        return [
            parts.plots(plot),
            parts.table("Quantiles of the residuals", columns, rows),
            *_intervals(found["tuned"]),
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        said = [
            f"An interval of ±{one['half_width']:.4g} about an answer held the truth of {one['reported_coverage']:.1%} "
            f"of rows that it was not fitted on, where {one['coverage']:.0%} was asked for."
            for one in metrics["residuals"]["tuned"]["intervals"]
            if one["half_width"] is not None and one["coverage"] == 0.9
        ]
        return "".join(said)


def _of(answers: Answers, truth: Any) -> dict[str, Any]:
    order = np.argsort(answers[VALUE], kind="stable")
    bins = [
        {
            "rows": len(members),
            "answer": float(answers[VALUE][members].mean()),
            "truth": float(truth[members].mean()),
        }
        for members in np.array_split(order, min(_BINS, len(order)))
    ]
    return {"bins": bins, "quantiles": np.quantile(answers[VALUE] - truth, _QUANTILES).tolist()}


def _intervals(tuned: Mapping[str, Any]) -> list[Part]:
    rows = [
        parts.row(
            f"{one['coverage']:.0%}",
            f"± {one['half_width']:.4g}",
            f"{one['reported_coverage']:.1%}",
            "{:.1%} to {:.1%}".format(*one["reported_interval"]),
        )
        for one in tuned["intervals"]
        if one["half_width"] is not None
    ]
    caption = (
        f"Intervals about the tuned model's answers: fitted on {tuned['fitted_rows']:,} rows, and what they hold of "
        f"{tuned['reported_rows']:,} others"
    )
    return [parts.table(caption, ["asked for", "interval", "held", "95 % interval"], rows)] if rows else []
