"""Every tuner of PEFT through a whole run, on three architectures and for three kinds of answers: ``docs/methods.md``.

``python tools/tuners.py [METHOD ...]`` tunes a tiny model with random weights by each method (all of them where none is
named), kills the run and takes it up again, asks what was published, merged where that can be, and by stock PEFT, and
notes in ``docs/methods.json`` how each step ended; ``--missing`` goes on where a call before was stopped. ``make docs``
writes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
import tiny_models
from architectures import noted

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "methods.json"
ARCHITECTURES = ("bert", "gpt2", "llama")
TASKS = ("sequence-classification", "regression", "token-classification")
STEPS = ("run", "resume", "predict", "peft")
_ROWS, _STEPS, _KILLED = 32, 6, 5
_EQUAL = 1e-4  # of a probability or a number, by other code

# Sizes that fit a model 32 wide, where the usual ones do not.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "adalora": {"init_r": 6, "target_r": 3},
    "adamss": {"r": 8, "num_subspaces": 2},
    "gralora": {"r": 4},
    "hira": {"r": 4},
    "miss": {"r": 8},
    "peanut": {"r": 4},
    "psoft": {"r": 4},
    "randlora": {"r": 4},
    "shira": {"r": 2},
    "vblora": {"num_vectors": 8},
    "vera": {"r": 8},
    "pvera": {"r": 8},
}


class Killed(BaseException):
    """As sudden as a signal that can't be caught: nobody saves anything first."""


def main() -> None:
    from featherweight.registry import METHODS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="as in a recipe; all where none is named")
    parser.add_argument("--missing", action="store_true", help="only methods that the results lack")
    arguments = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    known = read()
    for method in arguments.methods or sorted(METHODS):
        if not (arguments.missing and method in known):
            known[method] = everywhere(method)
            print(f"{method}: {json.dumps(known[method])}", flush=True)
            versions = {name: version(name) for name in ("transformers", "peft", "torch")}
            content = {"versions": versions, "methods": dict(sorted(known.items()))}
            RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read() -> dict[str, dict[str, Any]]:
    """Method to architecture and task to what :func:`journey` found."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))["methods"]) if RESULTS.is_file() else {}


def table() -> str:
    """For ``docs/methods.md``."""
    from featherweight.registry import METHODS

    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    shown = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines = [
        f"{len(content['methods'])} methods ({shown}):",
        "",
        f"| method | what trains | merges | batches | {' | '.join(ARCHITECTURES)} |",
        "|---|---|---|---|" + "---|" * len(ARCHITECTURES),
    ]
    for name, found in content["methods"].items():
        method = METHODS[name]
        facts = [method.trains, "yes" if method.merges else "no", "packed" if method.packs else "padded"]
        own = [_cell([one for pair, one in found.items() if pair.startswith(kind)]) for kind in ARCHITECTURES]
        lines.append(f"| `{name}` | {' | '.join([*facts, *own])} |")
    return "\n".join(lines) + "\n"


def _cell(found: list[Mapping[str, Any]]) -> str:
    """How an architecture's three tasks ended."""
    ends = {str(next((one[step] for step in STEPS if one.get(step, "ok") != "ok"), "yes")) for one in found}
    said = [one.removeprefix("refused: ").removeprefix("method.name: ").partition(";")[0] for one in sorted(ends)]
    return ", ".join("yes" if one == "yes" else f"no: {one}" for one in said)


def everywhere(method: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for architecture in ARCHITECTURES:
        for task in TASKS:
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                found[f"{architecture} {task}"] = journey(method, architecture, task)
    return found


def journey(method: str, architecture: str, task: str) -> dict[str, Any]:
    """One method as a user meets it, in the current folder. Each step is ``ok``, refused or failed, with why."""
    import featherweight
    from featherweight.runs.directory import RunDirectory

    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    model = tiny_models.save(architecture, Path("model").resolve())
    asked = _data(Path("train.jsonl"), task)
    recipe = recipe_of(method, model, task)
    run, other = Path("run").resolve(), Path("other").resolve()
    with noted(found, "run"):
        featherweight.run(recipe, output_dir=run, progress=False)
    if found["run"] != "ok":
        return found
    execution = json.loads((run / "environment.json").read_text(encoding="utf-8"))["execution"]
    metrics = RunDirectory(run).read_metrics()
    found |= {"batches": execution["batches"], "trainable": metrics["trainable_parameters"]}
    with noted(found, "resume"):
        killed(recipe, other)
        featherweight.run(recipe, output_dir=other, resume=True, progress=False)
        folder = "model" if (run / "model").is_dir() else "adapter"
        _require_same_bytes(run / folder, other / folder)
    with noted(found, "predict"):
        predictor = featherweight.load_predictor(str(run))
        answers = predictor.answers(asked)
        validation = RunDirectory(run).read_predictions("tuned", "validation").answers
        _require_alike(predictor.kind, validation, predictor.answers(_validation(run, asked)), "the run's own")
    if found["predict"] == "ok" and (run / "adapter").is_dir():
        with noted(found, "peft"):
            outputs = _by_stock_peft(run / "adapter", model, asked, task)
            _require_alike(predictor.kind, answers, predictor.kind.of_outputs(outputs, {}), "those of stock PEFT")
    return found


def recipe_of(method: str, model: Path, task: str) -> Any:
    import featherweight

    training = {"max_steps": _STEPS, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "seed": 1}
    return featherweight.load_recipe(
        None,
        {
            "name": "tiny",
            "task": task,
            "model": {"name": str(model)},
            "data": {"train_file": str(Path("train.jsonl").resolve()), "validation_fraction": 0.25, "allow_leak": True},
            "method": {"name": method, **SMALL.get(method, {})},
            "training": {**training, "save_strategy": "steps", "save_steps": 2},
            "evidence": {"baselines": []},
        },
    )


def killed(recipe: Any, folder: Path) -> None:
    """A run that dies before its last steps, behind its last checkpoint."""
    import featherweight
    from featherweight.engine.training.train import Trainer

    original = Trainer._train_step

    def train_step(trainer: Any) -> None:
        if trainer.progress.step == _KILLED:
            raise Killed
        original(trainer)

    try:
        with mock.patch.object(Trainer, "_train_step", train_step):
            featherweight.run(recipe, output_dir=folder, progress=False)
    except Killed:
        return
    raise AssertionError("the run was not killed")


def _require_same_bytes(one: Path, other: Path) -> None:
    for path in sorted(one.iterdir()):
        if path.name != "README.md" and path.read_bytes() != (other / path.name).read_bytes():
            raise AssertionError(f"{path.name} of a resumed run has other bytes")


def _require_alike(kind: Any, one: Any, other: Any, whose: str) -> None:
    difference = kind.likeness(one, other).largest_difference
    if not difference <= _EQUAL:
        raise AssertionError(f"its answers are not {whose}: they differ by {difference:.2g}")


def _data(path: Path, task: str) -> list[Any]:
    """Texts of unlike length with what is to be answered, and what a predictor is asked of each."""
    draw = random.Random(0)
    good, bad, plain = tiny_models.WORDS[:4], tiny_models.WORDS[4:8], tiny_models.WORDS[8:]
    rows: list[dict[str, Any]] = []
    for index in range(_ROWS):
        telling = draw.choice(good if index % 2 else bad)
        words = [*draw.choices(plain, k=draw.randint(1, 9)), telling]
        rows.append(
            {
                "sequence-classification": {"text": " ".join(words), "label": "pos" if index % 2 else "neg"},
                "regression": {"text": " ".join(words), "label": 1.0 + (good + bad).index(telling) + index / 100},
                "token-classification": {"tokens": words, "tags": ["B-GOOD" if one in good else "O" for one in words]},
            }[task]
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [row.get("text", row.get("tokens")) for row in rows]


def _validation(run: Path, asked: list[Any]) -> list[Any]:
    """What was asked of the rows that the run validated on."""
    from featherweight.runs.directory import RunDirectory

    return [asked[int(row)] for row in RunDirectory(run).read_predictions("tuned", "validation").ids]


def _by_stock_peft(adapter: Path, model: Path, asked: list[Any], task: str) -> Any:
    """What the head gives by transformers and PEFT alone, one text at a time."""
    import numpy as np
    import torch
    import transformers
    from peft import PeftModel

    from featherweight.records.rows import Ragged

    facts = json.loads((adapter / "featherweight.json").read_text(encoding="utf-8"))
    reads_tokens = task == "token-classification"
    auto = "AutoModelForTokenClassification" if reads_tokens else "AutoModelForSequenceClassification"
    width = len(facts.get("tags", facts.get("labels", ["number"])))
    base = getattr(transformers, auto).from_pretrained(model, num_labels=width, pad_token_id=facts["pad_token_id"])
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        adapter, **({"add_prefix_space": True} if reads_tokens else {})
    )
    rows, lengths = [], []
    with torch.no_grad():
        for one in asked:
            given = tokenizer([one], is_split_into_words=reads_tokens, return_tensors="pt")
            logits = tuned(**given).logits[0].numpy()
            if reads_tokens:
                logits = logits[logits.shape[0] - given["input_ids"].shape[1] :]  # without virtual tokens
                words = given.word_ids(0)
                logits = logits[[words.index(word) for word in range(len(one))]]
                lengths.append(len(one))
            rows.append(logits)
    if not reads_tokens:
        return np.stack(rows)
    return Ragged(np.concatenate(rows), np.cumsum([0, *lengths]))


if __name__ == "__main__":
    main()
