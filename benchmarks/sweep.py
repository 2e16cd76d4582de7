"""What a sweep saves, finds and claims: ``python benchmarks/sweep.py sharing | defaults | noise``.

- ``sharing``: twelve trials as one sweep that prunes nothing, beside twelve runs of the same settings, each a process
  of its own as people start it. Wall clock and processor time of both, for other work on the machine moves the first.
- ``defaults``: ``sweep --defaults`` on Rotten Tomatoes with MiniLM, as the command line has it.
- ``noise``: ten sweeps over labels that are shuffled, with a tiny model: how many claim something.

Each part writes its own key of ``sweep.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.simplefilter("ignore")

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "sweep.json"
DEMO = ROOT / "recipes" / "demo.toml"
TRIALS = 12
SEEDS = 10


def command(*arguments: str) -> dict[str, float]:
    """Run the command line in a process of its own; seconds on the clock and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "featherweight", *arguments], check=True, stdout=subprocess.DEVNULL)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "processor_seconds": spent}


def sharing(folder: Path, rows: int) -> dict[str, Any]:
    sets = [f"data.max_train_samples={rows}", "data.test_fraction=0.1"]
    sets += ["sweep.parameters.training.learning_rate={ low = 1e-4, high = 2e-3, log = true }"]
    sets += ["sweep.parameters.method.r=[4, 8, 16, 32]", "sweep.prune=false"]
    given = [one for value in sets for one in ("--set", value)]
    together = command("sweep", str(DEMO), *given, "--trials", str(TRIALS), "--output-dir", str(folder / "sweep"))
    found = json.loads((folder / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    alone = [
        command("run", str(folder / "sweep" / "trials" / f"{number:03d}" / "recipe.toml"),
                "--output-dir", str(folder / f"run-{number}"))
        for number in range(TRIALS)
    ]  # fmt: skip
    trained = 0.0
    for number, trial in enumerate(found["trials"]):
        metrics = json.loads((folder / f"run-{number}" / "metrics.json").read_text(encoding="utf-8"))
        values = [one["eval_accuracy"] for one in metrics["epochs"]]
        assert values == [one["value"] for one in trial["evaluations"]], number
        trained += metrics["resources"]["train_runtime"]
    runs = {key: sum(one[key] for one in alone) for key in together}
    return {"trials": TRIALS, "train_rows": rows, "sweep": together, "runs": runs, "training_seconds": trained,
            "times": {key: runs[key] / together[key] for key in together}}  # fmt: skip


def defaults(folder: Path, limit: str, rows: int) -> dict[str, Any]:
    given = ["--set", "data.test_fraction=0.2", *(["--set", f"data.max_train_samples={rows}"] if rows else [])]
    spent = command("sweep", str(DEMO), "--defaults", "--time-limit", limit, *given, "--output-dir", str(folder / "s"))
    found = json.loads((folder / "s" / "sweep.json").read_text(encoding="utf-8"))
    states = [one["state"] for one in found["trials"]]
    return {"time_limit": limit, "train_rows": rows or None, **spent, "states": states,
            **{key: found[key] for key in ("headline", "comparison", "selection", "winner", "importance")}}  # fmt: skip


def noise(folder: Path) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny  # type: ignore[import-not-found]
    import torch

    from featherweight import recipe as recipes
    from featherweight import workflow

    torch.set_num_threads(1)
    model = tiny.save_model(folder / "bert", "bert", dropout=0.1)
    shown = []
    for seed in range(SEEDS):
        rows = tiny.rows(600, seed=seed)
        labels = [row["label"] for row in rows]
        random.Random(seed).shuffle(labels)
        train = tiny.save_csv(
            folder / f"{seed}.csv", [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
        )
        asked = {"training.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True}, "method.r": [2, 4, 8]}
        content = tiny.recipe(model, train, data={"allow_leak": True}, training={"seed": seed})
        found = workflow.sweep(
            recipes.parse(content | {"sweep": {"trials": 6, "parameters": asked}}), folder / f"sweep-{seed}"
        )
        compared = found["comparison"]
        shown.append(
            {
                "seed": seed,
                "winner": found["winner"]["trial"],
                "verdict": "the recipe itself" if compared is None else compared["verdict"],
                "p_value": None if compared is None else compared["p_value"],
                **{key: found["selection"][key] for key in ("chosen_on", "untouched", "optimism_at_most")},
            }
        )
        print(shown[-1], flush=True)
    claims = sum(one["verdict"] in {"better", "worse"} for one in shown)
    return {"sweeps": shown, "trials": 6, "claims": claims}


def main(arguments: Sequence[str]) -> None:
    from featherweight.engine.hardware import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("sharing", "defaults", "noise"))
    parser.add_argument("--rows", type=int, default=1000, help="of train; 0 for all")
    parser.add_argument("--time-limit", default="15 min")
    asked = parser.parse_args(arguments)
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "sharing": lambda folder: sharing(folder, asked.rows),
        "defaults": lambda folder: defaults(folder, asked.time_limit, asked.rows),
        "noise": noise,
    }
    with tempfile.TemporaryDirectory() as folder:
        found = parts[asked.part](Path(folder))
    found |= {"machine": describe(), "load": os.getloadavg()[0], "date": datetime.now(UTC).date().isoformat()}
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(results | {asked.part: found}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
