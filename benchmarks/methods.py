"""Tuners, and ways to hold the base model, side by side: ``python benchmarks/methods.py [--model MODEL] [ARM ...]``.

Each tunes one model by the defaults on the same phrases of SST-2, in a process of its own, and is compared on the same
rows with LoRA on a base in fp32: SST-2's validation set, which chose nothing. The runs stay in ``build/methods``, with
a report of them all; figures go to ``methods.json``.
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
BESIDE = "lora"  # what all are compared with: on a base in fp32

LORA: dict[str, Any] = {"name": "lora"}
# What each changes in the recipe.
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "lora": {},
    "dora": {"method": {**LORA, "use_dora": True}},
    "rslora": {"method": {**LORA, "use_rslora": True}},
    "pissa": {"method": {**LORA, "init_lora_weights": "pissa"}},
    "adalora": {"method": {"name": "adalora"}},
    "ia3": {"method": {"name": "ia3"}},
    "vera": {"method": {"name": "vera"}},
    "oft": {"method": {"name": "oft"}},
    "prompt-tuning": {"method": {"name": "prompt-tuning"}},
    "ln-tuning": {"method": {"name": "ln-tuning"}},
    "full": {"method": {"name": "full"}},
    "bf16": {"model": {"dtype": "bfloat16"}},
    "int8": {"model": {"quantization": "int8"}},
    "nf4": {"model": {"quantization": "nf4"}},
}


def folder_of(given: argparse.Namespace) -> Path:
    times = "" if given.epochs is None else f"x{given.epochs}"
    return RUNS / f"{given.model}-{given.rows}{times}{'-bf16' if given.bf16 else ''}"


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """A whole run, as a user has it, and what is to be shown of it."""
    from featherweight import recipe as recipes
    from featherweight import workflow

    name, files = given.one, {f"{split}_file": str(path) for split, path in data(given.rows).items()}
    training = {"bf16": given.bf16} | ({} if given.epochs is None else {"num_train_epochs": given.epochs})
    content: dict[str, Any] = {
        "name": name,
        "model": {"name": study.MODELS[given.model], **ARMS[name].get("model", {})},
        "data": {**files, "allow_leak": True},
        "method": ARMS[name].get("method", LORA),
        "training": training,
        "evidence": {"baselines": []},
    }
    run = folder_of(given) / name
    metrics = workflow.run(recipes.parse(content), run, progress=False, resume=True).metrics
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    tuned, resources = metrics["tuned"], metrics["resources"]
    return {
        "accuracy": tuned["eval_accuracy"],
        "interval": tuned["eval_accuracy_interval"],
        "before": metrics["base"]["eval_accuracy"],
        "trainable": metrics["trainable_parameters"],
        "seconds": resources["train_runtime"],
        "rows_a_second": resources["train_samples_per_second"],
        "evaluated_a_second": tuned["eval_samples_per_second"],
        "peak_memory_bytes": resources["peak_memory_bytes"],
        "batches": environment["execution"]["batches"],
        "steps": metrics["best_step"],
    }


def data(rows: int) -> dict[str, Path]:
    """The rows as files, made once."""
    folder = RUNS / f"data-{rows}"
    paths = {split: folder / f"{split}.jsonl" for split in ("train", "validation", "test")}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for split, sampled in study.sst2_sample(rows)().items():
            lines = [json.dumps({"text": text, "label": label}) for text, label in sampled]
            paths[split].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def beside(folder: Path, name: str) -> dict[str, Any]:
    """An arm's answers against LoRA's, row by row."""
    from featherweight import workflow

    (found,) = workflow.compare([str(folder / BESIDE), str(folder / name)])["comparisons"]
    return {key: found[key] for key in ("difference", "confidence_interval", "p_value", "verdict")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}; all if none is named")
    parser.add_argument("--model", choices=study.MODELS, default="minilm-l6")
    parser.add_argument("--rows", type=int, default=ROWS, help="of train")
    parser.add_argument("--epochs", type=int, help="as many as the defaults choose if not given")
    parser.add_argument("--bf16", action="store_true", help="products in bf16, in every arm")
    parser.add_argument("--one", choices=ARMS, help="one arm, in this process, as a line of JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given)))
        return
    from featherweight import workflow
    from featherweight.engine import hardware

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"models": {}, "measured": {}}
    folder = folder_of(given)
    found = known["models"].setdefault(folder.name, {})
    for name in given.names or ARMS:
        command = [sys.executable, __file__, "--model", given.model, "--rows", str(given.rows), "--one", name]
        command += [] if given.epochs is None else ["--epochs", str(given.epochs)]
        command += ["--bf16"] * given.bf16
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(ended.stdout.splitlines()[-1])
        if name != BESIDE and (folder / BESIDE / "metrics.json").is_file():
            found[name]["beside"] = beside(folder, name)
        known["measured"][folder.name] = {"machine": hardware.describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    runs = [str(folder / name) for name in ARMS if (folder / name / "metrics.json").is_file()]
    workflow.report(runs, output=RUNS / f"{folder.name}.html")


if __name__ == "__main__":
    main()
