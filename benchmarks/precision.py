"""Whether bf16 costs accuracy: ``python benchmarks/precision.py [--model MODEL] [--rows N] [--seeds N]``.

Every seed tunes the model by the defaults twice, in fp32 and with the frozen weights and the products in bf16, each a
process of its own; no split chooses anything. A row counts with the mean of its seeds, right or wrong in bf16 less
right or wrong in fp32, and the mean over rows is given with its interval. Figures go to ``precision.json``; what bf16
gains is ``run.py``'s to say.
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
import methods

import recipes as study

RUNS = Path(__file__).parent.parent / "build" / "precision"
RESULTS = Path(__file__).parent / "precision.json"
MARGIN = 0.005  # of accuracy, by which bf16 may be worse at most
SPLITS = ("validation", "test")
PRECISIONS: dict[str, dict[str, dict[str, Any]]] = {
    "fp32": {},
    "bf16": {"model": {"dtype": "bfloat16"}, "training": {"bf16": True}},
}


def folder_of(model: str, rows: int, seed: int, precision: str) -> Path:
    return RUNS / f"{model}-{rows}" / f"{precision}-{seed}"


def measure(model: str, rows: int, seed: int, precision: str, epochs: int | None) -> dict[str, Any]:
    """A whole run, as a user has it."""
    from featherweight import recipe as recipes
    from featherweight import workflow

    files = {f"{split}_file": str(path) for split, path in methods.data(rows).items()}
    training = {"seed": seed, "load_best_model_at_end": False, **PRECISIONS[precision].get("training", {})}
    content: dict[str, Any] = {
        "model": {"name": study.MODELS[model], **PRECISIONS[precision].get("model", {})},
        "data": {**files, "allow_leak": True},
        "training": training if epochs is None else training | {"num_train_epochs": epochs},
        "evidence": {"baselines": []},
    }
    run = folder_of(model, rows, seed, precision)
    metrics = workflow.run(recipes.parse(content), run, progress=False, resume=True).metrics
    return {
        "accuracy": metrics["tuned"]["eval_accuracy"],
        "peak_memory_bytes": metrics["resources"]["peak_memory_bytes"],
    }


def right(folder: Path) -> Any:
    """Whether each row of all splits is answered rightly; boolean, shape (rows,)."""
    import numpy as np
    from pyarrow import parquet

    found = [parquet.read_table(folder / "predictions" / f"tuned-{split}.parquet") for split in SPLITS]
    return np.concatenate([np.asarray(one["label"]) == np.asarray(one["prediction"]) for one in found])


def verdict(model: str, rows: int, seeds: int) -> dict[str, Any]:
    """The mean difference, and whether its interval lies above the margin."""
    import numpy as np
    from scipy.stats import norm

    pairs = [[right(folder_of(model, rows, seed, one)) for one in ("bf16", "fp32")] for seed in range(seeds)]
    each = np.mean([one.astype(float) - other for one, other in pairs], axis=0)
    half = norm.ppf(0.975) * each.std(ddof=1) / len(each) ** 0.5
    interval = [float(each.mean() - half), float(each.mean() + half)]
    return {
        "rows": len(each), "seeds": seeds, "difference": float(each.mean()), "confidence_interval": interval,
        "discordant": float(np.mean([(one != other).mean() for one, other in pairs])),
        "margin": MARGIN, "non_inferior": interval[0] > -MARGIN,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=study.MODELS, default="minilm-l6")
    parser.add_argument("--rows", type=int, default=4000, help="of train")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="as many as the defaults choose if not given")
    parser.add_argument("--one", nargs=2, metavar=("SEED", "PRECISION"), help="one run, in this process, as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.model, given.rows, int(given.one[0]), given.one[1], given.epochs)))
        return
    from featherweight.engine import hardware

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"models": {}}
    runs: dict[str, list[dict[str, Any]]] = {precision: [] for precision in PRECISIONS}
    for seed in range(given.seeds):
        for precision, found in runs.items():
            command = [sys.executable, __file__, "--model", given.model, "--rows", str(given.rows)]
            command += ["--one", str(seed), precision]
            command += [] if given.epochs is None else ["--epochs", str(given.epochs)]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(ended.stdout.splitlines()[-1]))
            print(seed, precision, found[-1], file=sys.stderr, flush=True)
    name = f"{given.model}-{given.rows}"
    known["models"][name] = {"runs": runs, "verdict": verdict(given.model, given.rows, given.seeds)}
    known |= {"machine": hardware.describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(known["models"][name]["verdict"]))


if __name__ == "__main__":
    main()
