"""Step by step, our loop is ``transformers.Trainer``: same batches, same losses, same adapter at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from featherweight.engine.running.execution import Execution
from featherweight.engine.training.checkpoints import Checkpoints
from featherweight.engine.training.train import Hooks, Means, Trainer
from featherweight.recipe import TrainingSection
from featherweight.records.answers import Answers, Evaluation
from featherweight.records.rows import Encoding, Ragged
from featherweight.tasks.sequence_classification import SequenceClassification
from featherweight.workflow.own_rates import own_rates

ROWS = 43  # no multiple of the batch, and the last step of an epoch has fewer micro-batches
TASK = SequenceClassification(("neg", "pos"))
SETTINGS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 3,
    "num_train_epochs": 2.0,
    "weight_decay": 0.3,
    "warmup_ratio": 0.3,
    "max_grad_norm": 0.2,
    "seed": 7,
    "logging_steps": 1,
}


def make_encoding() -> Encoding:
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, 12, ROWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = draw.integers(6, len(tiny.vocabulary()), offsets[-1]).astype(np.int32)
    return Encoding(Ragged(tokens, offsets), draw.integers(0, 2, ROWS).astype(np.int64))


def make_model(kind: str, bias: str = "lora_only") -> Any:
    """A tiny classifier with LoRA whose B is not zero, so that every gradient matters from the first step on.

    With ``bias`` none our loop fuses the LoRA layers; with biases that train they stay PEFT's own.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(11)
    model = AutoModelForSequenceClassification.from_config(tiny.config(kind, num_labels=2, pad_token_id=0))
    targets = {"gpt2": ["c_attn", "c_proj"], "bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}[kind]
    config = LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=targets, bias=bias,
        init_lora_weights=False, fan_in_fan_out=kind == "gpt2",
    )  # fmt: skip
    return get_peft_model(model, config)


def train_ours(
    model: Any,
    encoding: Encoding,
    folder: Path,
    execution: Execution | None = None,
    head: Sequence[str] = (),
    task: Any = TASK,
    evaluations: Sequence[float] = (),
    keeper: Any = None,
    **changes: Any,
) -> list[float]:
    from accelerate import Accelerator

    losses: list[float] = []
    series = iter(evaluations)
    settings = TrainingSection(**{**SETTINGS, **changes}, load_best_model_at_end=False)

    def observe(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            losses.append(event["loss"])

    trainer = Trainer(
        model,
        task,
        encoding,
        settings=settings,
        means=Means(
            Accelerator(cpu=True),
            execution or Execution(model.get_base_model(), pad_token_id=0),
            Checkpoints(folder, keep=1),
            keeper,
        ),
        hooks=Hooks(lambda: Evaluation({"eval_loss": next(series, 0.0)}, Answers({})), observe),
        own_rates=own_rates(model, head, settings),
    )
    trainer.fit()
    return losses


def train_stock(
    model: Any,
    encoding: Encoding,
    folder: Path,
    evaluations: Sequence[float] = (),
    optimizer: Any = None,
    after_step: Callable[[int], None] | None = None,
    **changes: Any,
) -> list[float]:
    """The Trainer as its documentation has it, with the loss that makes accumulation the mean over a step's rows.

    Args:
        evaluations: what its evaluations find, one after each epoch.
        optimizer: instead of the Trainer's own.
        after_step: told of each step, from 1, while its gradients are there; the loss is then the model's own.
    """
    import transformers

    data = [
        {"input_ids": encoding.tokens.row(index).tolist(), "labels": int(encoding.targets[index])}
        for index in range(ROWS)
    ]
    settings = {**SETTINGS, **changes}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        warmup_steps=settings.pop("warmup_ratio"), eval_strategy="epoch" if evaluations else "no",
        metric_for_best_model="loss", **settings,
    )  # fmt: skip
    losses: list[float] = []
    series = iter(evaluations)

    class Recording(transformers.Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().training_step(*args, **kwargs)
            first = len(losses) == self.state.global_step
            losses.append(0.0) if first else None
            losses[-1] += float(loss)
            return loss

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            return {"eval_loss": next(series)}

    def loss_of_step(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    trainer = Recording(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=transformers.DataCollatorWithPadding(_padding_tokenizer()),
        compute_loss_func=loss_of_step if after_step is None else None,
        optimizers=(optimizer, None),
    )
    if after_step is not None:
        tell = after_step

        class Telling(transformers.TrainerCallback):
            def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                tell(state.global_step + 1)

        trainer.add_callback(Telling())
    trainer.train()
    return losses


def _padding_tokenizer() -> Any:
    tokenizer = tiny.tokenizer("bert")
    tokenizer.padding_side = "right"
    return tokenizer


def trained(model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    state = {name: value.detach().clone() for name, value in get_peft_model_state_dict(model).items()}
    for name, value in state.items():
        if name.endswith("c_attn.base_layer.bias"):
            # The softmax does not feel the key's bias: its gradient is rounding alone, which Adam blows up to a step.
            value[len(value) // 3 : 2 * len(value) // 3] = 0
    return state


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("bias", ["none", "lora_only"])
@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_same_losses_and_same_adapter_as_the_trainer(kind: str, bias: str, tmp_path: Path) -> None:
    ours, stock, encoding = make_model(kind, bias), make_model(kind, bias), make_encoding()
    start = trained(ours)
    our_losses = train_ours(ours, encoding, tmp_path / "ours")
    stock_losses = train_stock(stock, encoding, tmp_path / "stock")
    assert len(our_losses) == len(stock_losses) == 8
    np.testing.assert_allclose(our_losses, stock_losses, atol=1e-5, rtol=0)
    assert largest_difference(trained(ours), trained(stock)) < 1e-5
    assert largest_difference(trained(ours), start) > 1e-3  # there was something to compare


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2.1e-3},
        {"weight_decay": 0.0},
        {"warmup_ratio": 0.0},
        {"gradient_accumulation_steps": 2},
        {"max_grad_norm": 0.5},
        {"seed": 8},
        {"adam_beta2": 0.99},
        {"lr_scheduler_type": "constant_with_warmup"},
        {"optim": "adafactor"},
        {"loraplus_lr_ratio": 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_setting_changed_is_seen(change: dict[str, Any], tmp_path: Path) -> None:
    """The negative control: the comparison above can fail, for each setting that it is to hold."""
    changed, stock, encoding = make_model("bert"), make_model("bert"), make_encoding()
    train_ours(changed, encoding, tmp_path / "ours", **change)
    train_stock(stock, encoding, tmp_path / "stock")
    assert largest_difference(trained(changed), trained(stock)) > 1e-5


@pytest.mark.slow
def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    accumulated, whole, encoding = make_model("gpt2"), make_model("gpt2"), make_encoding()
    train_ours(accumulated, encoding, tmp_path / "a", per_device_train_batch_size=4, gradient_accumulation_steps=3)
    train_ours(whole, encoding, tmp_path / "b", per_device_train_batch_size=12, gradient_accumulation_steps=1)
    # Adam divides by the root of the squared gradient, so rounding of a gradient near zero is not small in its step.
    assert largest_difference(trained(accumulated), trained(whole)) < 1e-4
