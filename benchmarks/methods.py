"""Tuners side by side: ``python benchmarks/methods.py [--model MODEL] [METHOD ...]``.

Each tunes one model by the defaults on the same 16,000 phrases of SST-2, in a process of its own, and is compared with
LoRA on the same rows, SST-2's validation set, which chose nothing. The runs stay in ``build/methods``, with a report of
them all; figures go to ``methods.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

sys.path.insert(0, str(Path(__file__).parent))
import recipes as study

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "build" / "methods"
RESULTS = Path(__file__).parent / "methods.json"
ROWS = 16_000
BESIDE = "lora"  # what all are compared with

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora"},
    "dora": {"name": "lora", "use_dora": True},
    "rslora": {"name": "lora", "use_rslora": True},
    "pissa": {"name": "lora", "init_lora_weights": "pissa"},
    "adalora": {"name": "adalora"},
    "ia3": {"name": "ia3"},
    "vera": {"name": "vera"},
    "oft": {"name": "oft"},
    "prompt-tuning": {"name": "prompt-tuning"},
    "ln-tuning": {"name": "ln-tuning"},
    "full": {"name": "full"},
}


def run_of(model: str, name: str) -> Path:
    return RUNS / model / name


def measure(model: str, name: str) -> dict[str, Any]:
    """A whole run, as a user has it, and what is to be shown of it."""
    from featherweight import recipe as recipes
    from featherweight import workflow

    content = {
        "name": name,
        "model": {"name": study.MODELS[model]},
        "data": {**{f"{split}_file": str(path) for split, path in data().items()}, "allow_leak": True},
        "method": METHODS[name],
        "evidence": {"baselines": []},
    }
    metrics = workflow.run(recipes.parse(content), run_of(model, name), progress=False, resume=True).metrics
    environment = json.loads((run_of(model, name) / "environment.json").read_text(encoding="utf-8"))
    tuned, resources = metrics["tuned"], metrics["resources"]
    return {
        "accuracy": tuned["eval_accuracy"],
        "interval": tuned["eval_accuracy_interval"],
        "before": metrics["base"]["eval_accuracy"],
        "trainable": metrics["trainable_parameters"],
        "seconds": resources["train_runtime"],
        "peak_memory_bytes": resources["peak_memory_bytes"],
        "batches": environment["execution"]["batches"],
        "steps": metrics["best_step"],
    }


def data() -> dict[str, Path]:
    """The rows as files, made once."""
    folder = RUNS / "data"
    paths = {split: folder / f"{split}.jsonl" for split in ("train", "validation", "test")}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in study.sst2_sample(ROWS)().items():
            lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
            paths[split].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def beside(model: str, name: str) -> dict[str, Any]:
    """A method's answers against LoRA's, row by row."""
    from featherweight import workflow

    (found,) = workflow.compare([str(run_of(model, BESIDE)), str(run_of(model, name))])["comparisons"]
    return {key: found[key] for key in ("difference", "confidence_interval", "p_value", "verdict")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all if none is named")
    parser.add_argument("--model", choices=study.MODELS, default="minilm-l6")
    parser.add_argument("--one", choices=METHODS, help="one method, in this process, as a line of JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.model, given.one)))
        return
    from featherweight import workflow
    from featherweight.engine import hardware

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"models": {}}
    found = known["models"].setdefault(given.model, {})
    for name in given.names or METHODS:
        command = [sys.executable, __file__, "--model", given.model, "--one", name]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(ended.stdout.splitlines()[-1])
        if name != BESIDE and (run_of(given.model, BESIDE) / "metrics.json").is_file():
            found[name]["beside"] = beside(given.model, name)
        known |= {"machine": hardware.describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "rows": ROWS}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    runs = [
        str(run_of(given.model, name)) for name in METHODS if (run_of(given.model, name) / "metrics.json").is_file()
    ]
    workflow.report(runs, output=RUNS / f"{given.model}.html")


if __name__ == "__main__":
    main()
