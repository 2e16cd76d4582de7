"""What a GPU must do, in one command: ``make gpu``, or ``python benchmarks/gpu.py``.

Numerics against transformers on the processor, kill-and-resume to the same bytes in each precision, and speed beside
the stock Trainer, with models of random weights, so that nothing but the installed packages is needed. Figures go to
``benchmarks/gpu.json`` and a table to the terminal. Where there is no CUDA device every check is skipped by its name;
``--on cpu`` runs them on the processor all the same, small, to try the checks themselves.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import chdir
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
warnings.simplefilter("ignore")

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

RESULTS = Path(__file__).parent / "gpu.json"
LENGTHS = [3, 17, 1, 9, 17, 40, 2, 9, 9, 1]
KINDS = ("bert", "gpt2", "llama")
BATCH = 32
SPEEDS: dict[str, dict[str, Any]] = {
    # As large as MiniLM-L6, GPT-2 and SmolLM2-135M.
    "minilm": {"type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
               "intermediate_size": 1536, "vocab_size": 30_522},
    "gpt2": {"type": "gpt2"},
    "smollm2": {"type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
                "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49_152},
}  # fmt: skip


def model_of(kind: str, **sizes: Any) -> Any:
    """A classifier with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(kind, num_labels=2, pad_token_id=0, **sizes)
    ).eval()


def small(kind: str) -> Any:
    width = {"n_embd": 64, "n_layer": 2, "n_head": 4} if kind == "gpt2" else {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    }  # fmt: skip
    return model_of(kind, vocab_size=200, initializer_range=0.2, **width)


def tuned(model: Any) -> Any:
    """With LoRA whose matrices are all filled."""
    import torch
    from peft import LoraConfig, get_peft_model

    from featherweight.methods.peft.targets import is_transposed, linear_targets

    torch.manual_seed(1)
    transposed = any(map(is_transposed, model.modules()))
    options = {"r": 8, "lora_alpha": 16, "target_modules": linear_targets(model), "init_lora_weights": False}
    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", fan_in_fan_out=transposed, **options))


def rows(lengths: list[int], vocabulary: int) -> Any:
    import numpy as np

    from featherweight.records.rows import Encoding, Ragged

    draw = np.random.default_rng(2)
    tokens = [draw.integers(6, vocabulary, length).tolist() for length in lengths]
    return Encoding(Ragged.of(tokens, np.int32), draw.integers(0, 2, len(lengths)).astype(np.int64))


def numerics(kind: str, device: str, holding: str | None = None) -> dict[str, Any]:
    """Packed on the device, with a faster form of whatever has one, against each text alone on the processor.

    Args:
        holding: how the base model's weights are held there; the processor has the very same numbers in fp32.
    """
    import numpy as np
    import torch

    from featherweight.engine.running.execution import Execution
    from featherweight.sources import held

    base = small(kind)
    if holding is not None:
        quantised = None if holding == "bfloat16" else holding
        held.hold(base, "bfloat16" if quantised is None else "float32", quantised, ["classifier", "score"])
    theirs = tuned(held.release(copy.deepcopy(base)))
    base = base.to(device)
    execution = Execution(base, 0)
    ours = tuned(base).to(device)
    execution.adopt(ours)
    encoding = rows(LENGTHS, 200)
    found = execution.outputs(ours, encoding, np.arange(len(LENGTHS))).values
    alone = torch.cat(
        [theirs(input_ids=torch.from_numpy(encoding.tokens.row(row).astype(np.int64))[None]).logits for row in
         range(len(LENGTHS))]
    )  # fmt: skip
    weights = torch.linspace(-1, 1, alone.numel()).view_as(alone)
    (found * weights.to(device)).sum().backward()  # type: ignore[no-untyped-call]
    (alone * weights).sum().backward()  # type: ignore[no-untyped-call]
    expected = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    gradients = [
        float((value.grad.cpu() - expected[name]).norm() / expected[name].norm())
        for name, value in ours.named_parameters()
        if value.grad is not None
    ]
    _require(len(gradients) == len(expected) > 0, "other parameters have gradients")
    difference = float((found.detach().cpu() - alone.detach()).abs().max() / alone.detach().abs().max())
    _require(difference < 1e-4, f"logits differ by {difference:.1e} of the largest")
    _require(max(gradients) < 1e-3, f"a gradient differs by {max(gradients):.1e} of its norm")
    batches = execution.describe()["batches"]
    _require(batches == "packed", f"batches are {batches}: {execution.describe()['reason']}")
    return {"logits_differ_by": difference, "gradients_differ_by": max(gradients)}


def recomputing(kind: str, device: str) -> dict[str, Any]:
    """Gradients with and without blocks computed again, and the memory of a step."""
    import numpy as np
    import torch

    from featherweight.engine.running.execution import Execution

    found, peaks = [], []
    encoding = rows(LENGTHS * 4, 200)
    for again in (False, True):
        base = small(kind).to(device)
        execution = Execution(base, 0)
        model = tuned(base).to(device)
        execution.adopt(model)
        if again:
            execution.recompute(model)
        model.train()
        execution.start(0)
        torch.manual_seed(3)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        execution.outputs(model, encoding, np.arange(len(encoding))).values.square().sum().backward()  # type: ignore[no-untyped-call]
        peaks.append(torch.cuda.max_memory_allocated() if device == "cuda" else 0)
        found.append([value.grad.cpu() for value in model.parameters() if value.grad is not None])
    apart = max(float((one - other).norm() / one.norm().clamp(min=1e-9)) for one, other in zip(*found, strict=True))
    _require(apart < 1e-4, f"a gradient differs by {apart:.1e} of its norm")
    return {"gradients_differ_by": apart, "peak_memory_bytes": peaks}


def resumed(precision: str, device: str) -> dict[str, Any]:
    """A run that is killed and taken up again publishes the bytes of one that is not."""
    import tiny_models  # type: ignore[import-not-found]
    import tuners  # type: ignore[import-not-found]

    import featherweight

    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        model = tiny_models.save("bert", Path("model").resolve())
        tuners._data(Path("train.jsonl"), "sequence-classification")
        recipe = tuners.recipe_of("lora", model, "sequence-classification")
        half = {} if precision == "fp32" else {precision: True}
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=half)})
        featherweight.run(recipe, output_dir="whole", progress=False)
        tuners.killed(recipe, Path("killed"))
        featherweight.run(recipe, output_dir="killed", resume=True, progress=False)
        tuners._require_same_bytes(Path("whole/adapter"), Path("killed/adapter"))
        metrics = json.loads(Path("whole/metrics.json").read_text(encoding="utf-8"))
    return {"eval_loss": metrics["tuned"]["eval_loss"]}


def speed(name: str, device: str, *, steps: int) -> dict[str, Any]:
    """Texts a second in training, ours and the stock Trainer's, on the same rows in the same precision."""
    draw = random.Random(4)
    lengths = [min(60, max(1, round(draw.expovariate(1 / 11)))) for _ in range(BATCH * steps)]  # as SST-2's phrases
    sizes = dict(SPEEDS[name])
    kind = sizes.pop("type")
    vocabulary = sizes.get("vocab_size", 50_000)
    encoding = rows(lengths, vocabulary)
    half = device == "cuda"
    ours = _seconds(partial(_train_ours, tuned(model_of(kind, **sizes)), encoding, half))
    stock = _seconds(partial(_train_stock, tuned(model_of(kind, **sizes)), encoding, half, device))
    count = len(lengths)
    return {
        "ours": count / ours,
        "stock": count / stock,
        "ratio": stock / ours,
        "precision": "bf16" if half else "fp32",
    }


def _seconds(train: Callable[[], Callable[[], Any]]) -> float:
    """Of the second of two trainings: the first warms up."""
    import torch

    for _ in range(2):
        work = train()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return seconds


def _train_ours(model: Any, encoding: Any, half: bool) -> Callable[[], Any]:
    from featherweight.engine import hardware
    from featherweight.engine.running.execution import Execution
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.train import Hooks, Means, Trainer
    from featherweight.recipe import TrainingSection
    from featherweight.records.answers import Answers, Evaluation
    from featherweight.tasks.sequence_classification import SequenceClassification

    settings = TrainingSection(
        learning_rate=1e-4, per_device_train_batch_size=BATCH, num_train_epochs=1.0, save_strategy="steps",
        save_steps=10**9, load_best_model_at_end=False, bf16=half,
    )  # fmt: skip
    accelerator = hardware.accelerator_for(settings)
    model = model.to(accelerator.device)
    execution = Execution(model.get_base_model(), 0)
    execution.adopt(model)
    trainer = Trainer(
        model,
        SequenceClassification(("neg", "pos")),
        encoding,
        settings=settings,
        means=Means(accelerator, execution, Checkpoints(Path(tempfile.mkdtemp()), keep=1)),
        hooks=Hooks(lambda: Evaluation({"eval_loss": 0.0}, Answers({})), lambda event: None),
    )
    return trainer.fit


def _train_stock(model: Any, encoding: Any, half: bool, device: str) -> Callable[[], Any]:
    import torch
    import transformers

    data = [
        {"input_ids": encoding.tokens.row(row).tolist(), "labels": int(encoding.targets[row])}
        for row in range(len(encoding))
    ]

    def padded(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch])
        return {
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "labels": torch.tensor([row["labels"] for row in batch]),
        }

    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), use_cpu=device == "cpu", report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=BATCH, num_train_epochs=1.0, learning_rate=1e-4, bf16=half,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, data_collator=padded)
    train: Callable[[], Any] = trainer.train
    return train


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def checks(steps: int) -> dict[str, Callable[[str], dict[str, Any]]]:
    """By name, the quick ones first."""
    return {
        **{f"numerics-{kind}": partial(numerics, kind) for kind in KINDS},
        **{f"held-{one}": partial(numerics, "llama", holding=one) for one in ("bfloat16", "nf4", "int8")},
        **{f"recomputing-{kind}": partial(recomputing, kind) for kind in KINDS},
        **{f"resume-{precision}": partial(resumed, precision) for precision in ("fp32", "bf16", "fp16")},
        **{f"speed-{name}": partial(speed, name, steps=steps) for name in SPEEDS},
    }


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="CHECK", help="all if none is named")
    parser.add_argument("--on", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=200, help="of the checks of speed")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    missing = given.on == "cuda" and not torch.cuda.is_available()
    found: dict[str, dict[str, Any]] = {}
    known = checks(given.steps)
    for name in given.names or known:
        started = time.perf_counter()
        if missing:
            found[name] = {"outcome": "skipped: no CUDA device"}
        elif given.on == "cpu" and name == "resume-fp16":
            found[name] = {"outcome": "skipped: fp16 is for CUDA"}
        elif name in ("held-nf4", "held-int8") and find_spec("bitsandbytes") is None:
            found[name] = {"outcome": "skipped: bitsandbytes is not installed"}
        else:
            try:
                found[name] = {"outcome": "ok", **known[name](given.on)}
            except Exception as error:  # noqa: BLE001 - one check's failure is no reason to lose the others
                found[name] = {"outcome": f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            found[name]["seconds"] = round(time.perf_counter() - started, 1)
        print(f"{name:24}{_shown(found[name])}", flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    content = {"device": device, "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}", "checks": found}
    given.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any(one["outcome"].startswith("fails") for one in found.values()))


def _shown(one: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in one.items()
        if key != "outcome"
    )
    return f"{one['outcome']:10}{figures}"


if __name__ == "__main__":
    raise SystemExit(main())
