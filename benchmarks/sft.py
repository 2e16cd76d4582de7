"""Supervised fine-tuning beside TRL's ``SFTTrainer``, in pairs: ``python benchmarks/sft.py [CASE ...]``.

The same rows, adapter, batch and number of steps of SmolLM2-135M, no dropout; each measurement is a process of its
own, and the arms alternate. All learn completions alone. Evaluation is the loss of the same rows. The third arm is ours
with ``training.bf16`` and the base held in bf16, where the machine has it. Results go to ``benchmarks/sft.json``, by
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

sys.path.insert(0, str(Path(__file__).parent))
from arms import SMOLLM
from run import generation

DATA = Path(os.environ.get("FEATHERWEIGHT_DATA", "data"))
RESULTS = Path(__file__).parent / "sft.json"
BATCH, LENGTH = 8, 512
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
Rows = list[dict[str, str]]


def gsm8k(count: int) -> Rows:
    lines = (DATA / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    found = map(json.loads, lines)
    return [{"prompt": f"Question: {one['question']}\nAnswer:", "completion": f" {one['answer']}"} for one in found]


def self_instruct(count: int) -> Rows:
    lines = (DATA / "self-instruct" / "seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()
    tasks = list(map(json.loads, lines))
    pairs = [(one["instruction"], part["input"], part["output"]) for one in tasks for part in one["instances"]]
    return [
        {"prompt": f"### Instruction:\n{asked}\n{given}\n### Response:\n", "completion": said}
        for asked, given, said in pairs[:count]
    ]


CASES: dict[str, Callable[[int], Rows]] = {"gsm8k": gsm8k, "self-instruct": self_instruct}
ROWS = 32


def load(dtype: Any = "float32") -> tuple[Any, Any]:
    """The model with LoRA, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model

    from featherweight.recipe import ModelSection
    from featherweight.sources import models
    from featherweight.tasks import heads

    torch.manual_seed(42)
    plan = heads.HeadPlan(heads.CAUSAL, None, 0, is_pretrained=True)
    model, tokenizer, _ = heads.load(plan, models.find(SMOLLM), ModelSection(name=SMOLLM, dtype=dtype))
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **LORA)), tokenizer


def stock(rows: Rows, evaluates: bool) -> dict[str, Any]:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    model, tokenizer = load()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
            logging_strategy="no", activation_checkpointing=False, per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH, num_train_epochs=1.0, max_length=LENGTH, learning_rate=2e-4, seed=42,
        )  # fmt: skip
        data = Dataset.from_list(rows)
        trainer = SFTTrainer(model, args=arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
        if evaluates:
            return timed(rows, lambda: float(trainer.evaluate()["eval_loss"]))
        return timed(rows, lambda: float(trainer.train().training_loss))


def in_bf16(rows: Rows, evaluates: bool) -> dict[str, Any]:
    return ours(rows, evaluates, "bf16", "bfloat16")


def ours(rows: Rows, evaluates: bool, precision: str = "fp32", dtype: Any = "float32") -> dict[str, Any]:
    from accelerate import Accelerator

    from featherweight.answers.text import Text
    from featherweight.engine import Watch
    from featherweight.engine.running.evaluate import evaluate
    from featherweight.engine.running.execution import Execution
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.train import Hooks, Means, Trainer
    from featherweight.recipe import TrainingSection
    from featherweight.records.answers import Answers, Evaluation
    from featherweight.records.cutting import Cutting
    from featherweight.records.rows import Encoding, Ragged, next_tokens
    from featherweight.tasks.causal_lm import CausalLM

    model, tokenizer = load(dtype)
    task = CausalLM(Text(chat=False))
    tokens = task.tokenise(task.questions(rows), tokenizer, Cutting(LENGTH))
    ids = Ragged.of([one.ids for one in tokens])
    reads = Ragged.of([one.reads or () for one in tokens])
    encoding = Encoding(ids, next_tokens(ids, reads), reads)
    base = model.get_base_model()
    execution = Execution(base, tokenizer.pad_token_id, seed=42, reads_tokens=True, precision=precision)
    execution.score_next_tokens(base)
    execution.adopt(model)
    if evaluates:
        watch = Watch("", lambda event: None)
        return timed(
            rows,
            lambda: evaluate(model, task, encoding, execution=execution, batch_size=BATCH, watch=watch).metrics[
                "eval_loss"
            ],
        )
    losses: list[float] = []
    settings = TrainingSection(
        learning_rate=2e-4, per_device_train_batch_size=BATCH, num_train_epochs=1.0, seed=42, logging_steps=1,
        load_best_model_at_end=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            task,
            encoding,
            settings=settings,
            means=Means(Accelerator(cpu=True), execution, Checkpoints(Path(folder), keep=1)),
            hooks=Hooks(
                lambda: Evaluation({"eval_loss": 0.0}, Answers({})),
                lambda event: losses.append(event["loss"]) if event["event"] == "step" else None,
            ),
        )

        def train() -> float:
            trainer.fit()
            return sum(losses) / len(losses)

        return timed(rows, train)


ARMS: dict[str, Callable[[Rows, bool], dict[str, Any]]] = {"SFTTrainer": stock, "ours": ours, "bf16": in_bf16}


def timed(rows: Rows, work: Callable[[], float]) -> dict[str, Any]:
    from featherweight.engine.hardware import peak_memory_bytes

    started = time.perf_counter()
    loss = work()
    seconds = time.perf_counter() - started
    return {"samples_per_second": len(rows) / seconds, "peak_memory_bytes": peak_memory_bytes(), "loss": loss}


def measure(case: str, arm: str, evaluates: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, case, "--arm", arm, *(["--evaluate"] if evaluates else [])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{case} {arm}: {ended.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def compare(case: str, evaluates: bool, repeats: int) -> dict[str, Any]:
    from featherweight.engine import hardware

    arms = [name for name in ARMS if name != "bf16" or hardware.has_bf16()]
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(repeats):
        rounds.append({arm: measure(case, arm, evaluates) for arm in arms})
        said = [f"{arm} {ratios(rounds, arm, 'samples_per_second')[-1]:.2f}x" for arm in arms[1:]]
        print(f"{case}{' evaluate' if evaluates else ''} {number + 1}/{repeats}: {', '.join(said)}", file=sys.stderr)
    return {
        "rows": ROWS,
        "repeats": repeats,
        "arms": {
            arm: {
                "samples_per_second": median(one[arm]["samples_per_second"] for one in rounds),
                "speed_ratio": median(speeds := ratios(rounds, arm, "samples_per_second")),
                "speed_ratio_range": [min(speeds), max(speeds)],
                "peak_memory_bytes": max(one[arm]["peak_memory_bytes"] for one in rounds),
                "memory_ratio": median(ratios(rounds, arm, "peak_memory_bytes")),
                "loss": rounds[0][arm]["loss"],
            }
            for arm in arms
        },
    }


def ratios(rounds: Sequence[Mapping[str, Mapping[str, float]]], arm: str, key: str) -> list[float]:
    """An arm's figure over the stock one's of the same round."""
    first = next(iter(ARMS))
    return [one[arm][key] / one[first][key] for one in rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help="one arm, in this process, as a line of JSON")
    parser.add_argument("--evaluate", action="store_true", help="of --arm: the loss of the rows, without training")
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(ARMS[given.arm](CASES[given.cases[0]](ROWS), given.evaluate)))
        return
    from featherweight.engine import hardware

    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"machines": {}}
    machine = known["machines"].setdefault(f"{hardware.describe()['processor']}, {generation()}", {})
    for case in given.cases or CASES:
        for evaluates in (False, True):
            name = f"{case}-evaluate" if evaluates else case
            machine[name] = compare(case, evaluates, given.repeats) | {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
            RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
