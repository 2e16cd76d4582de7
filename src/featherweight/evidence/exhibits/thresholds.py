"""What a threshold of each label's own would change on rows that it was not found on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.answers import kind_of
from featherweight.evidence.exhibits import Case
from featherweight.records import parts
from featherweight.records.parts import Brief, Part


class Thresholds:
    title: ClassVar[str] = "Thresholds"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``thresholds``: by model the fitted ``thresholds`` and their ``gain`` over the even one."""
        return {"thresholds": case.fitted}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        tuned = metrics["thresholds"]["tuned"]
        titles = {one.name: one.title for one in kind_of(metrics).statistics}
        gain = [
            parts.row(
                titles[name],
                f"{one['base']:.4f}",
                f"{one['tuned']:.4f}",
                *parts.difference(one),
                f"{one['p_value']:.3g}",
            )
            for name, one in tuned["gain"].items()
        ]
        each = [parts.row(name, f"{one:.3f}") for name, one in tuned["thresholds"].items()]
        return [
            parts.text(
                "A label is answered from a probability of 0.5 on. From the threshold that is best for its F1 on "
                f"{tuned['fitted_rows']:,} validation rows, --calibrated; what that does is measured on "
                f"{tuned['reported_rows']:,} other rows. Labels of fewer than 10 rows share one threshold."
            ),
            parts.table(
                "The tuned model at the fitted thresholds against 0.5, paired",
                ["statistic", "at 0.5", "at the thresholds", "difference", "95 % interval", "p"],
                gain,
            ),
            parts.table("Thresholds of the tuned model", ["label", "from"], each),
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        return []

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        one = metrics["thresholds"]["tuned"]["gain"]["f1_micro"]
        low, high = one["confidence_interval"]
        return (
            "`featherweight.json` has a threshold for each label. Instead of 0.5 they move micro-F1 from "
            f"{one['base']:.4f} to {one['tuned']:.4f} ({low:+.4f} to {high:+.4f}) on rows that they were not fitted on."
        )
