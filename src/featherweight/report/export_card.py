"""The card in an export's folder: what it is, how it was proved, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featherweight.answers import headline_of
from featherweight.report.model_card import inline, introduction, whole_model
from featherweight.tasks import Task

_TRANSFORMERS = {"merged"}  # formats that transformers loads
_PREDICTOR = [
    "import featherweight",
    "",
    'predictor = featherweight.load_predictor("path/to/this/folder")',
    'print(predictor.predict("A text."))',
]


def export_card(evidence: Mapping[str, Any], task: Task) -> str:
    """Markdown, from the evidence that ``featherweight.json`` holds."""
    comparison, speed = evidence["comparison"], evidence["speed"]
    low, high = comparison["confidence_interval"]
    first = headline_of(evidence)
    figure = evidence[first.name]
    what, decisions = evidence["of"], evidence["decisions"]
    difference = evidence[f"max_{what}_difference"]
    fixed, broken = comparison["fixed"], comparison["broken"]
    changed = "" if fixed is None else f"; {fixed} rows fixed, {broken} broken"
    rounded = (
        f"The loss of {first.title} that had to be ruled out is {evidence['margin']:g}; at least "
        f"{evidence['min_agreement']:.0%} of the {decisions} had to be the run's. What is fitted to answers was fitted "
        "anew."
        if "margin" in evidence
        else f"All {decisions} had to be the run's, and every {what} within {evidence['tolerance']:g}."
    )
    return "\n".join([
        f"# {inline(evidence['run'])}, {evidence['format']}",
        "",
        f"{introduction(task.answer)} Before it was published, this export answered the run's {evidence['n']:,} "
        f"validation rows beside the run. {rounded}",
        "",
        "| | run | export |",
        "|---|---|---|",
        f"| {first.title} | {figure['run']:.4f} | {figure['export']:.4f} |",
        f"| a text alone, median | {speed['run']['latency_ms']:.1f} ms | {speed['export']['latency_ms']:.1f} ms |",
        f"| texts a second | {speed['run']['texts_per_second']:.0f} | {speed['export']['texts_per_second']:.0f} |",
        "",
        f"Share of the {decisions} that are the run's: {evidence['agreement']:.4f}; greatest difference of a {what} "
        f"{difference:.1e}. {first.heading} changes by {comparison['difference']:+.4f} (95% "
        f"interval {low:+.4f} to {high:+.4f}{changed}). Size "
        f"{evidence['size_bytes'] / 1e6:.1f} MB. Speeds are of the machine that exported it.",
        "",
        *([f"Take care: {dependence}.", ""] if (dependence := evidence.get("batch_dependence")) else []),
        "## Use it",
        "",
        "```python",
        *(whole_model(task.loading()) if evidence["format"] in _TRANSFORMERS else _PREDICTOR),
        "```",
        "",
    ])  # fmt: skip
