"""The first sentence: what the run showed, and no more than that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rivals(metrics: Mapping[str, Any]) -> list[str]:
    """The cheaper rungs that the tuned model is not shown to beat, the best of them first.

    Each rung is compared with the tuned model on the same rows at the stated confidence. To claim that tuning beats
    every one of them each test has to reject, so no adjustment for their number is due (an intersection-union test,
    Berger 1982).
    """
    rungs = metrics.get("rungs", {})
    unbeaten = [name for name, one in rungs.items() if one["verdict"] != "better"]
    return sorted(unbeaten, key=lambda name: -metrics["baselines"][name]["eval_accuracy"])


def headline(metrics: Mapping[str, Any]) -> str:
    """One sentence from the content of ``metrics.json``."""
    comparison = metrics["comparison"]
    before, after = metrics["base"]["eval_accuracy"], metrics["tuned"]["eval_accuracy"]
    figures = f"accuracy {before:.4f} before, {after:.4f} after"
    if unbeaten := rivals(metrics):
        name = unbeaten[0]
        other = metrics["baselines"][name]["eval_accuracy"]
        return (
            f"Tuning does not pay here: {name}, which is cheaper, is not shown to be worse than the tuned model "
            f"(accuracy {other:.4f} against {after:.4f})."
        )
    return {
        "better": f"The tuned model is better than the base model ({figures}).",
        "worse": f"The tuned model is worse than the base model ({figures}).",
        "no-difference": f"No difference could be shown between the tuned model and the base model ({figures}).",
    }[comparison["verdict"]]
