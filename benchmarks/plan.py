"""How true `featherweight plan` is: ``python benchmarks/plan.py [RECIPE ...]``.

Each recipe is planned and then run, in processes of their own; what the plan said of time and peak memory is set
against what the run took. Results go to ``benchmarks/plan.json``; ``make docs`` makes the table from them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPES = ("demo", "demo-decoder")


def command(*arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "featherweight", *arguments, "--json", "--quiet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        raise SystemExit(f"featherweight {' '.join(arguments)}: {ended.stderr.strip()}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def compare(recipe: str) -> dict[str, Any]:
    path = str(HERE.parent / "recipes" / f"{recipe}.toml")
    planned = command("plan", path)
    with tempfile.TemporaryDirectory() as folder:
        ran = command("run", path, "--output-dir", f"{folder}/run")
    pairs = {
        "train_seconds": (planned["seconds"]["training"], ran["resources"]["train_runtime"]),
        "peak_memory_bytes": (planned["peak_memory_bytes"], ran["resources"]["peak_memory_bytes"]),
    }
    return {name: {"planned": one, "was": other, "ratio": one / other} for name, (one, other) in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; all if none is given")
    results = HERE / "plan.json"
    found = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    for recipe in parser.parse_args().recipes or RECIPES:
        found[recipe] = compare(recipe)
        print(recipe, {name: round(one["ratio"], 2) for name, one in found[recipe].items()}, flush=True)
        results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
