"""Every architecture that transformers classifies text with, through the whole tool: ``docs/architectures.md``.

``python tools/architectures.py [TYPE ...]`` makes a tiny model with random weights of each type (all of them where none
is named), tunes, predicts, evaluates, serves and exports it as a user would, and notes in ``docs/architectures.json``
how each step ended; ``--missing`` goes on where a call before was stopped. ``make docs`` writes the table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import tiny_models

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "architectures.json"
_SECONDS = 300  # for one architecture
_ROWS, _ASKED = 48, 8
_SAME, _EQUAL = 1e-5, 1e-4  # of a probability: with other texts around, and by other code
_IMPORTED = [
    "accelerate", "onnx", "onnxruntime", "peft", "sklearn.feature_extraction.text", "sklearn.linear_model",
    "torch.onnx", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.modeling_utils",
    *(f"featherweight.workflow.{name}" for name in ("running", "evaluating", "exporting")),
    *(f"featherweight.engine.{name}" for name in ("train", "execution", "evaluate", "features", "multi_lora")),
    *(f"featherweight.serving.{name}" for name in ("catalogue", "predictor", "torch_backend", "onnx_backend")),
    "featherweight.evidence.baselines", "featherweight.report.page", "featherweight.export.onnx",
]  # fmt: skip
_METHOD = {"name": "lora", "r": 2, "lora_alpha": 4}
STEPS = ("run", "predict", "evaluate", "serve", "onnx", "peft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("types", nargs="*", metavar="TYPE", help="as in a model's config.json; all where none is named")
    parser.add_argument("--missing", action="store_true", help="only types that the results lack")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    known = read()
    for kind in arguments.types or types():
        if not (arguments.missing and kind in known):
            known[kind] = in_a_process_of_its_own(kind)
            print(f"{kind}: {json.dumps(known[kind])}", flush=True)
            write(known)


def types() -> list[str]:
    """The keys of transformers' mapping, and the variants of :mod:`tiny_models`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    return sorted([*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, *tiny_models.SAME_MODEL])


def read() -> dict[str, dict[str, Any]]:
    """Type to what :func:`journey` found."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))["types"]) if RESULTS.is_file() else {}


def write(found: Mapping[str, dict[str, Any]]) -> None:
    versions = {name: version(name) for name in ("transformers", "peft", "torch", "onnxruntime")}
    content = {"versions": versions, "types": dict(sorted(found.items()))}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table() -> str:
    """For ``docs/architectures.md``."""
    found = read()
    versions = json.loads(RESULTS.read_text(encoding="utf-8"))["versions"]
    run = [one for one in found.values() if _runs(one) == "yes"]
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"{len(run)} of {len(found)} work, {sum(one['batches'] == 'packed' for one in run)} of them packed, and "
        f"{sum(one['onnx'] == 'ok' for one in run)} can be had as ONNX ({shown}):",
        "",
        "| type | works | batches | alone and in a batch | ONNX | stock PEFT |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [f"| `{kind}` | {' | '.join(_cells(one))} |" for kind, one in found.items()]) + "\n"


def _cells(one: Mapping[str, Any]) -> list[str]:
    if one["run"] != "ok":
        return [_runs(one), "", "", "", ""]
    reason = str(one["reason"]).partition(": ")[2]
    difference = one.get("alone_or_in_a_batch")
    same = "" if difference is None else "the same" if difference < _SAME else f"differ by {difference:.0e}"
    batches = "packed" if one["batches"] == "packed" else f"padded: {reason}"
    return [_runs(one), batches, same, _said(one["onnx"]), "equal" if one["peft"] == "ok" else _said(one["peft"])]


def _runs(one: Mapping[str, Any]) -> str:
    """Whether it can be tuned, measured, asked and served."""
    return next((_said(one.get(step, "")) for step in STEPS[:4] if one.get(step) != "ok"), "yes")


def _said(outcome: str) -> str:
    """A step's outcome in a cell of the table."""
    if outcome == "ok":
        return "yes"
    words = outcome.removeprefix("refused: ").removeprefix("--format: no ONNX of this model: ")
    return "no: " + words.removesuffix("; export merged instead").replace("|", "\\|")


def in_a_process_of_its_own(kind: str) -> dict[str, Any]:
    """So that a crash or a hang is a row and not the end. Where the system can, libraries are imported once for all."""
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    processes = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        processes.set_forkserver_preload(_IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        child = processes.Process(target=_in, args=(kind, folder))
        child.start()
        child.join(_SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
            return {"run": f"fails: took more than {_SECONDS} s"}
        found = Path(folder) / "found.json"
        if found.is_file():
            return dict(json.loads(found.read_text(encoding="utf-8")))
        return {"run": f"fails: exit code {child.exitcode}"}


def _in(kind: str, folder: str) -> None:
    os.chdir(folder)
    Path("found.json").write_text(json.dumps(journey(kind)), encoding="utf-8")


def journey(kind: str, method: Mapping[str, Any] = _METHOD) -> dict[str, Any]:
    """One architecture as a user meets it, in the current folder. Each step is ``ok``, refused or failed, with why."""
    import numpy as np

    import featherweight

    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    try:
        model = tiny_models.save(kind, Path("model"))
    except ImportError as error:
        return {"run": f"refused: {' '.join(str(error).split())}"}
    train, texts = _data(Path("train.csv"))
    recipe = featherweight.load_recipe(
        None,
        {
            "name": "tiny",
            "model": {"name": str(model.resolve())},
            "data": {"train_file": str(train.resolve()), "validation_fraction": 0.25, "allow_leak": True},
            "method": dict(method),
            "training": {"max_steps": 3, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "seed": 1},
        },
    )
    run = Path("run").resolve()
    with noted(found, "run"):
        featherweight.run(recipe, output_dir=run, progress=False)
    if found["run"] != "ok":
        return found
    execution = json.loads((run / "environment.json").read_text(encoding="utf-8"))["execution"]
    found |= {"batches": execution["batches"], "reason": execution["reason"]}
    with noted(found, "predict"):
        predictor = featherweight.load_predictor(str(run))
        together = predictor.answers(texts)["probabilities"]
        alone = [predictor.answers([text])["probabilities"][0] for text in texts]
        found["alone_or_in_a_batch"] = float(abs(together - np.stack(alone)).max())
    with noted(found, "evaluate"):
        featherweight.evaluate(str(run))
    with noted(found, "serve"):
        _serve(run, texts)
    with noted(found, "onnx"):
        featherweight.export_run(str(run), "onnx")
    with noted(found, "peft"):
        difference = float(abs(_by_stock_peft(run, model, texts[:_ASKED]) - alone[:_ASKED]).max())
        if difference > _EQUAL:
            raise AssertionError(f"stock PEFT answers otherwise, a probability by {difference:.2g}")
    return found


@contextmanager
def noted(found: dict[str, Any], step: str) -> Iterator[None]:
    """How a step ended: an error that users are meant to see is a refusal, any other a failure of the tool."""
    import featherweight

    try:
        yield
    except featherweight.FeatherweightError as error:
        found[step] = f"refused: {str(error).replace(f'{Path.cwd()}/', '')}"
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        found[step] = f"fails: {type(error).__name__}: {reason}"
        if "FEATHERWEIGHT_DEBUG" in os.environ:
            raise
    else:
        found[step] = "ok"


def _data(path: Path) -> tuple[Path, list[str]]:
    """Texts of unlike length, one of them longer than any of these models can hold, and some of them to ask for."""
    import csv

    draw = random.Random(0)
    good, bad, plain = tiny_models.WORDS[:4], tiny_models.WORDS[4:8], tiny_models.WORDS[8:]
    rows = []
    for index in range(_ROWS):
        words = [*draw.choices(plain, k=draw.randint(1, 9)), draw.choice(good if index % 2 else bad)]
        rows.append((" ".join(words), "pos" if index % 2 else "neg"))
    rows += [(" ".join(["film", *words] * 40), label) for words, label in ((["great"], "pos"), (["cold"], "neg"))]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path, [text for text, _ in rows[:_ASKED]] + ["a", "great " * 30]


def _serve(run: Path, texts: list[str]) -> None:
    """What a server does with a request, without the sockets."""
    from featherweight.serving.catalogue import Catalogue

    catalogue = Catalogue()
    catalogue.load("tiny", str(run))
    for served in catalogue.all():
        prepared = served.backend.prepare(served.key, served.task.questions(texts))
        served.backend.answer([served.key] * len(texts), prepared)


def _by_stock_peft(run: Path, model: Path, texts: list[str]) -> Any:
    """Probabilities by transformers and PEFT alone, one text at a time; shape (texts, labels)."""
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    facts = json.loads((run / "adapter" / "featherweight.json").read_text(encoding="utf-8"))
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(facts["labels"]))
    tuned = PeftModel.from_pretrained(base, run / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    rows = []
    with torch.no_grad():
        for text in texts:
            given = tokenizer([text], truncation=True, max_length=facts["max_length"], return_tensors="pt")
            rows.append(tuned(**given).logits.softmax(-1)[0].numpy())
    return np.stack(rows)


if __name__ == "__main__":
    main()
