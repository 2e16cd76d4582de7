"""What models write before and after tuning, for ``docs/evidence.md``, from what ``benchmarks/answers.py`` left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "answers.json"
WHO = {
    "random-reply": "a reply of train, whichever",
    "nearest-prompt": "that to the nearest prompt",
    "few-shot": "few-shot",
    "base": "untuned",
    "tuned": "**tuned**",
}


def table() -> str:
    """Every part that was measured."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    titles = {"identity": "fastchat's identity", "gsm8k": "GSM8K"}
    runs = {name: title for name, title in titles.items() if name in found}
    lines = [
        f"| SmolLM2-135M | {' | '.join(f'{title}: answer right | exact match | chrF' for title in runs.values())} |",
        f"|---|{'---|---|---|' * len(runs)}",
    ]
    for who, said in WHO.items():
        cells = [_cells(found[name]["models"].get(who)) for name in runs]
        if any(cells):
            lines.append(f"| {said} | {' | '.join(cell or ' |  | ' for cell in cells)} |")
    lines += ["", *(line for name, title in runs.items() for line in _said(title, found[name]))]
    if "stock" in found.get("identity", {}):
        one = found["identity"]["stock"]
        lines.append(
            f"Transformers and PEFT alone, prompt by prompt, write what the run's predictor writes in batches to "
            f"{one['same']} of {one['prompts']} prompts (greedy, the published adapter)."
        )
    if "pandalm" in found:
        lines += ["", _pandalm(found["pandalm"])]
    if "shuffled" in found:
        lines += ["", _shuffled(found["shuffled"])]
    last = found[max(found, key=lambda name: str(found[name]["date"]))]
    machine = last["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"`python benchmarks/answers.py`, {machine['cores']} cores of {machine['processor']}, {last['date']}.",
            "",
        ]
    )


def _cells(one: Mapping[str, float] | None) -> str:
    if one is None:
        return ""
    return f"{one['eval_answer_match']:.4f} | {one['eval_exact_match']:.4f} | {one['eval_chrf']:.1f}"


def _said(title: str, found: Mapping[str, Any]) -> list[str]:
    pair, nll = found["comparison"], found["nll_comparison"]
    low, high = nll["confidence_interval"]
    return [
        f"{title}: {found['train_rows']:,} rows of train, one epoch, {found['seconds'] / 60:.0f} minutes in all. NLL "
        f"a token {found['nll']['base']:.4f} before, {found['nll']['tuned']:.4f} after ({nll['difference']:+.4f}, "
        f"{low:+.4f} to {high:+.4f}, {found['rows']:,} rows). Of {found['prompts']} answers {pair['fixed']} were put "
        f"right and {pair['broken']} wrong ({pair['test']} p = {pair['p_value']:.2g}): {pair['verdict']}.",
        "",
    ]


def _pandalm(found: Mapping[str, Any]) -> str:
    right, pair, rival = found["accuracies"], found["comparison"], found["longer-answer"]
    changed = f"{pair['fixed']} fixed, {pair['broken']} broken, {pair['test']} p = {pair['p_value']:.2g}"
    return (
        f"PandaLM's pairs, DPO on SmolLM2-135M: of {found['pairs']} held-out pairs the untuned model prefers the "
        f"better answer in {right['base']:.4f}, the tuned one in {right['tuned']:.4f} ({changed}: {pair['verdict']}). "
        f"The longer answer is the better one in {right['longer-answer']:.4f} (the tuned model beside that: p = "
        f'{rival["p_value"]:.2g}, {rival["verdict"]}). The run says: "{found["headline"]}"'
    )


def _shuffled(found: Mapping[str, Any]) -> str:
    runs, control = found["shuffled"], found["as they are"]
    count, written = len(runs), sum(one["written"] == "no-difference" for one in runs)
    heeds = sum(one["heeding"] == "no-difference" for one in runs)
    return (
        f"Completions that belong to other prompts (stories260K, {count} seeds): no difference in what is written in "
        f"{written} of {count}, and none between a reply behind its own prompt and behind another's in {heeds} of "
        f"{count}; how replies look is learned all the same, so their NLL falls. With its own completions the model "
        f"writes {control['written']} answers, and its heeding is {control['heeding']}."
    )
