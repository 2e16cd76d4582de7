"""What a threshold of each label's own would change on rows that it was not found on."""

from __future__ import annotations

from collections import Counter
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
        shared, own = _divided(tuned["thresholds"])
        rest = ""
        if shared is not None:
            others = len(tuned["thresholds"]) - len(own)
            rest = f" The other {others:,} labels share {shared:.3f}, for few rows have them."
        return [
            parts.text(
                "A label is answered from a probability of 0.5 on; with --calibrated from its own threshold, the best "
                f"for its F1 on {tuned['fitted_rows']:,} validation rows. What that changes is measured on "
                f"{tuned['reported_rows']:,} other rows.{rest}"
            ),
            parts.table(
                "The tuned model at the fitted thresholds against 0.5, paired",
                ["statistic", "at 0.5", "at the thresholds", "difference", "95 % interval", "p"],
                gain,
            ),
            parts.table(
                "Thresholds of the tuned model",
                ["label", "from"],
                [parts.row(name, f"{one:.3f}") for name, one in own.items()],
            ),
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


def _divided(thresholds: Mapping[str, float]) -> tuple[float | None, Mapping[str, float]]:
    """The threshold that several labels share, None where there is none, and those of the others."""
    value, count = Counter(thresholds.values()).most_common(1)[0]
    if count == 1:
        return None, thresholds
    return value, {name: one for name, one in thresholds.items() if one != value}
