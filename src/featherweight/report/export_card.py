"""The card in an export's folder: what it is, how it was proved, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.answers import headline_of
from featherweight.report.model_card import inline

_USE = {
    "merged": [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
    ]
}
_PREDICTOR = [
    "import featherweight",
    "",
    'predictor = featherweight.load_predictor("path/to/this/folder")',
    'print(predictor.predict("A text to classify."))',
]


def export_card(evidence: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Markdown, from the evidence that ``featherweight.json`` holds."""
    comparison, speed = evidence["comparison"], evidence["speed"]
    low, high = comparison["confidence_interval"]
    first = headline_of(evidence)
    figure = evidence[first.name]
    (difference,) = (key for key in evidence if key.startswith("max_"))
    what = difference.split("_")[1]
    rounded = (
        f"The loss of {first.title} that had to be ruled out is {evidence['margin']:g}; at least "
        f"{evidence['min_agreement']:.0%} of the labels had to be the run's. Temperature and thresholds were fitted "
        "anew."
        if "margin" in evidence
        else f"Every label had to be the run's, and every probability within {evidence['tolerance']:g}."
    )
    return "\n".join([
        f"# {inline(evidence['run'])}, {evidence['format']}",
        "",
        f"Labels: {', '.join(inline(label) for label in labels)}. Before it was published, this export answered the "
        f"run's {evidence['n']:,} validation rows beside the run. {rounded}",
        "",
        "| | run | export |",
        "|---|---|---|",
        f"| {first.title} | {figure['run']:.4f} | {figure['export']:.4f} |",
        f"| a text alone, median | {speed['run']['latency_ms']:.1f} ms | {speed['export']['latency_ms']:.1f} ms |",
        f"| texts a second | {speed['run']['texts_per_second']:.0f} | {speed['export']['texts_per_second']:.0f} |",
        "",
        f"Same label: {evidence['agreement']:.4f}; greatest difference of a {what} "
        f"{evidence[difference]:.1e}. {first.title.capitalize()} changes by {comparison['difference']:+.4f} (95% "
        f"interval {low:+.4f} to {high:+.4f}; {comparison['fixed']} rows fixed, {comparison['broken']} broken). Size "
        f"{evidence['size_bytes'] / 1e6:.1f} MB. Speeds are of the machine that exported it.",
        "",
        *([f"Take care: {dependence}.", ""] if (dependence := evidence.get("batch_dependence")) else []),
        "## Use it",
        "",
        "```python",
        *_USE.get(evidence["format"], _PREDICTOR),
        "```",
        "",
    ])  # fmt: skip
