"""A finished run, and what its figures are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any


def rungs(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``metrics.json`` has of every rung of the ladder, by the name that readers see, the cheapest first."""
    return {**metrics["baselines"], untuned(metrics): metrics["base"], "tuned model": metrics["tuned"]}


def untuned(metrics: Mapping[str, Any]) -> str:
    """What readers call the model that a run began with."""
    return "adapter at the start" if metrics.get("started_from") else "untuned model"


@dataclass(frozen=True)
class RunRecord:
    """A finished run: where it is and what ``metrics.json`` says. A notebook shows its figures."""

    path: str
    metrics: dict[str, Any]

    def __repr__(self) -> str:
        """Five lines; the whole is in ``metrics``."""
        found, split = self.metrics, self.metrics["evaluated_split"]
        metric = found["comparison"]["metric"]
        lines = [
            f"RunRecord({self.path!r})",
            found.get("headline", found["comparison"]["verdict"]),
            f"{metric.replace('_', ' ')} on {split}: {found['base'][f'eval_{metric}']:.4f} before, "
            f"{found['tuned'][f'eval_{metric}']:.4f} after ({found['comparison']['n']:,} rows)",
            f"{found['trainable_parameters']:,} of {found['total_parameters']:,} parameters trained, best after step "
            f"{found['best_step']:,}, in {found['resources']['train_runtime']:,.1f} s",
            f"{self.path}/report.html has the evidence, .metrics all figures",
        ]
        return "\n  ".join(" ".join(line.split()) for line in lines)

    def _repr_html_(self) -> str:
        metric = self.metrics["comparison"]["metric"]
        title = metric.replace("_", " ")
        rows = "".join(
            f"<tr><th scope='row'>{escape(name)}</th><td>{one[f'eval_{metric}']:.4f}</td></tr>"
            for name, one in rungs(self.metrics).items()
        )
        return (
            f"<p><strong>{escape(self.metrics.get('headline', ''))}</strong></p><table><thead><tr>"
            f"<th scope='col'>model</th><th scope='col'>{escape(title)}</th></tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{escape(self.path)}/report.html</p>"
        )
