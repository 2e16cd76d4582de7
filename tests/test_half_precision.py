"""Training in 16 bits: bf16 on processors that have it, fp16's loss scale wherever torch has a scaler."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine import hardware
from featherweight.engine.training.checkpoints import Checkpoints
from featherweight.engine.training.train import Trainer
from featherweight.errors import DivergedError, Interrupted
from featherweight.records.outputs import Outputs
from featherweight.runs.directory import RunDirectory
from featherweight.tasks.sequence_classification import SequenceClassification
from featherweight.workflow import gate

Models = Callable[[str], Path]

needs_bf16 = pytest.mark.skipif(not hardware.has_bf16(), reason="this processor has no bf16 instructions")


@pytest.fixture
def run(models: Models, train_csv: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def call(
        folder: str = "run", kind: str = "bert", resume: bool = False, model: Path | None = None, **training: Any
    ) -> dict[str, Any]:
        settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 8, **training}
        content = tiny.recipe(model or models(kind), train_csv, training=settings)
        return workflow.run(recipes.parse(content), tmp_path / folder, resume=resume).metrics

    return call


@pytest.fixture
def fp16(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Real fp16 on the processor: torch's scaler and autocast where Accelerate has them on a GPU."""

    def install(**options: Any) -> None:
        original = hardware.accelerator_for

        def accelerator_for(settings: Any) -> Any:
            accelerator = original(settings)
            accelerator.scaler = torch.amp.GradScaler("cpu", **options)
            accelerator.autocast = lambda: torch.autocast("cpu", torch.float16)
            return accelerator

        monkeypatch.setattr(hardware, "accelerator_for", accelerator_for)

    return install


def history(folder: Path, event: str) -> list[dict[str, Any]]:
    return [one for one in RunDirectory(folder).read_history() if one["event"] == event]


def last_tensors(folder: Path) -> dict[str, torch.Tensor]:
    checkpoints = Checkpoints(folder / "checkpoints", 2)
    return checkpoints.load(checkpoints.steps()[-1]).tensors["trainable"]


def test_row_79_a_scale_that_is_too_high_is_found_and_reported(fp16: Any, run: Any, tmp_path: Path) -> None:
    """Steps that only look for the scale don't count as poisoned; their losses do count."""
    fp16(init_scale=2.0**34)
    metrics = run(max_skipped_steps=0, max_steps=30)
    skipped = history(tmp_path / "run", "skipped_step")
    assert 3 < len(skipped) < 30
    scales = [event["loss_scale"] for event in skipped]
    assert scales == [2.0 ** (33 - index) for index in range(len(scales))], "halved each time"
    assert metrics["reliability"]["skipped_steps"] == [event["step"] for event in skipped]
    assert all(math.isfinite(one["training_loss"]) and one["training_loss"] > 0 for one in metrics["epochs"])


def test_row_79_the_learning_rate_waits_while_the_scale_is_found(fp16: Any, run: Any, tmp_path: Path) -> None:
    """With the fused AdamW, Accelerate can't tell that a step was left out."""
    fp16(init_scale=2.0**60, growth_interval=1000)
    with contextlib.suppress(DivergedError):  # that nothing was trained is seen at the end
        run(max_steps=4)  # which ends with a save
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 2)
    assert checkpoints.load(4).state["scheduler"]["last_epoch"] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_row_79_a_loss_that_is_no_number_counts_under_a_scaler(
    value: float, fp16: Any, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fp16(init_scale=2.0**8)
    original = SequenceClassification.loss

    def loss(self: Any, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        found = original(self, outputs, targets)
        return found * value if outputs.values.requires_grad else found

    monkeypatch.setattr(SequenceClassification, "loss", loss)
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) .* at step 3 \(3 steps were left out\)"):
        run(max_skipped_steps=2, save_steps=1)
    for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the history"))


def test_row_79_a_gradient_that_is_no_number_at_any_scale_ends_the_run(
    fp16: Any, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The scale can't fall for ever: at 1 it is no excuse any more."""
    fp16(init_scale=2.0**4)
    original = Trainer._clip

    def clip(self: Trainer, batches: Any) -> float:
        next(iter(self.trained.values())).grad.fill_(float("nan"))  # type: ignore[union-attr]
        return original(self, batches)

    monkeypatch.setattr(Trainer, "_clip", clip)
    with pytest.raises(DivergedError, match=r"gradient's norm nan at step 7 \(3 steps were left out\)"):
        run(max_skipped_steps=2, max_steps=20, save_steps=1)
    assert len(history(tmp_path / "run", "skipped_step")) == 6, "four for the scale, two of those allowed"


@pytest.mark.parametrize("clipping", [0.0, 1.0])
def test_row_79_norms_are_of_the_gradient_without_its_scale(
    clipping: float, fp16: Any, run: Any, tmp_path: Path
) -> None:
    run("fp32", max_grad_norm=clipping)
    fp16(init_scale=2.0**10)
    run("fp16", max_grad_norm=clipping)
    norms = [[event["grad_norm"] for event in history(tmp_path / name, "step")] for name in ("fp32", "fp16")]
    assert norms[1][0] == pytest.approx(norms[0][0], rel=0.05)


@pytest.mark.parametrize("restored", [True, False])
def test_row_79_an_fp16_run_resumes_to_the_same_bytes(
    restored: bool, fp16: Any, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The scale is still being found at the stop. Negative control: without it in the checkpoint, the bytes differ."""
    from featherweight.engine.training.loss_scale import LossScale

    fp16(init_scale=2.0**28, growth_interval=3)
    run("whole", max_steps=24)
    original = Trainer._train_step

    def stopping(self: Trainer) -> None:
        if self.progress.step == 7:
            self._save()
            raise Interrupted("stopped")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopping)
        with pytest.raises(Interrupted):
            run("resumed", max_steps=24)
    with monkeypatch.context() as patch:
        if not restored:
            patch.setattr(LossScale, "load_state", lambda self, state: None)
        run("resumed", max_steps=24, resume=True)
    whole, resumed = last_tensors(tmp_path / "whole"), last_tensors(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole) == restored


def test_row_79_a_model_that_gives_no_numbers_is_refused_before_training(run: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.save_model(tmp_path / "base", "bert", head=("neg", "pos"))
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    tensors[name].fill_(3e38)  # finite, so the file is no evidence; what comes out of it is not
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DivergedError, match=r"for [\d,]+ of [\d,]+ rows the model gives numbers that are not finite"):
        run(model=folder)
    assert not history(tmp_path / "run", "step")


def test_row_79_an_evaluation_that_is_no_number_ends_the_run_as_diverged(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = SequenceClassification.loss

    def loss(self: Any, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        found = original(self, outputs, targets)
        tuned = bool(history(tmp_path / "run", "step"))
        return found * float("nan") if tuned and not torch.is_grad_enabled() else found

    monkeypatch.setattr(SequenceClassification, "loss", loss)
    with pytest.raises(DivergedError, match=r"evaluating: for .* not finite"):
        run()
    assert not (tmp_path / "run" / "metrics.json").exists()


@needs_bf16
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_row_79_bf16_is_packed_as_fp32_is(kind: str, run: Any, tmp_path: Path) -> None:
    """Packing is proven in fp32: in 16 bits packed and padded logits differ by rounding alone."""
    run("fp32", kind)
    metrics = run("bf16", kind, bf16=True)
    environment = json.loads((tmp_path / "bf16" / "environment.json").read_text())
    assert environment["precision"] == "bf16"
    assert environment["execution"]["batches"] == "packed"
    assert metrics["reliability"]["skipped_steps"] == []
    losses = [[event["loss"] for event in history(tmp_path / name, "step")] for name in ("fp32", "bf16")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05), "with the same dropout masks"
    assert losses[0] != losses[1]


def test_row_79_parameters_of_16_bits_have_fingerprints() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("lora_B", "classifier")}).bfloat16()
    model.register_parameter("scale", torch.nn.Parameter(torch.ones((), dtype=torch.float16)))
    before = gate.fingerprints(model)
    with torch.no_grad():
        model["lora_B"].weight += 1
    after = gate.fingerprints(model)
    assert {name for name in after if after[name] != before[name]} == {"lora_B.weight"}
