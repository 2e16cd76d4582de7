"""Products in bf16 on a processor: what is rounded, what is not, and that nothing else changes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine import hardware
from featherweight.engine.fast import kernels, linear, machine_speed
from featherweight.engine.fast.products import IN_BF16, LowRank, works_in_bf16
from featherweight.engine.running.choosing import trial_texts
from featherweight.engine.running.execution import Execution
from featherweight.errors import Interrupted
from featherweight.methods.peft.targets import linear_layers
from featherweight.runs.directory import RunDirectory
from featherweight.sources import held

Models = Callable[[str], Path]

needs_kernel = pytest.mark.skipif(not works_in_bf16("compiled"), reason="no kernel for bf16 on this processor")
WAYS = [name if name != "compiled" else pytest.param(name, marks=needs_kernel) for name in IN_BF16]
ADAPTER = "adapter/adapter_model.safetensors"
SHAPES = [(0, 8, 8), (1, 1, 1), (7, 33, 17), (11, 384, 100), (64, 50, 48), (25, 32, 145)]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the ways in turn is what this machine's probe answers."""
    found = replace(machine_speed.probe(), bf16_product=request.param)
    monkeypatch.setattr(linear, "probe", lambda: found)
    yield request.param


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The greatest difference."""
    assert one.shape == other.shape
    return float((one.detach().double() - other.detach().double()).abs().max()) if one.numel() else 0.0


@needs_kernel
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["as-it-lies", "turned"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_of_rounded_numbers_are_those_of_fp32(
    dtype: torch.dtype, turned: bool, shape: tuple[int, int, int]
) -> None:
    rows, depth, width = shape
    states, bias = drawn(rows, depth), drawn(width)
    weight = (drawn(width, depth).t() if turned else drawn(depth, width)).to(dtype)
    added = LowRank(drawn(rows, 3), drawn(width, 3).t(), 0.5)
    found = IN_BF16["compiled"](states, weight, bias, added)
    whole = bias.double() + added.scale * added.thin.double() @ added.up.double()
    expected = states.bfloat16().double() @ weight.bfloat16().double() + whole
    assert apart(found, expected) < 1e-6 * depth
    unrounded = states.double() @ weight.double() + whole
    assert not rows or apart(found, unrounded) > 1e-4, "a product in fp32 is another"


@needs_kernel
def test_threads_do_not_change_a_bit() -> None:
    states, weight = drawn(100, 384), drawn(384, 500)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(IN_BF16["compiled"](states, weight, None, None))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@needs_kernel
def test_what_is_not_finite_stays_so() -> None:
    states = torch.ones(9, 40)
    states[2, 3], states[4, 5] = torch.inf, torch.nan
    found = IN_BF16["compiled"](states, torch.ones(40, 50), None, None)
    assert torch.isinf(found[2]).all()
    assert torch.isnan(found[4]).all()
    assert torch.isfinite(found[[0, 1, 3, 5, 6, 7, 8]]).all()


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "training"])
def test_a_layer_rounds_what_it_multiplies_forward_and_backward(way: str, trains: bool) -> None:
    """Against autograd in fp64 on numbers rounded beforehand; gradients are rounded where they are multiplied."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 48).requires_grad_(trains)
    linear.speed_up(layer)
    linear.multiply_in_bf16([layer])
    states, gradient = drawn(20, 64).requires_grad_(), drawn(20, 48)
    result = layer(states)
    result.backward(gradient)
    rounded, weight = states.detach().bfloat16().double(), layer.weight.detach().bfloat16().double()
    back = gradient.bfloat16().double()
    near = 2e-5 if way == "compiled" else 2e-2  # PyTorch's sums are rounded, too
    assert result.dtype == torch.float32
    assert apart(result, rounded @ weight.t() + layer.bias.detach().double()) < near
    assert states.grad is not None
    assert apart(states.grad, back @ weight) < near
    if trains:
        assert layer.weight.grad.dtype == torch.float32
        assert apart(layer.weight.grad, back.t() @ rounded) < 5 * near
        assert apart(layer.bias.grad, gradient.sum(0)) < 1e-5


def adapted(models: Models, kind: str, holding: str | None = None, rank: int = 4) -> tuple[Execution, Any]:
    """A model that is run in bf16, with LoRA on all its linear layers, a little away from where it begins."""
    import peft
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(models(kind), pad_token_id=0).requires_grad_(False)
    if holding is not None:
        held.hold(model, holding, None, ["classifier", "score"])
    execution = Execution(model.eval(), 0, precision="bf16")
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=rank, target_modules="all-linear", lora_dropout=0.1, fan_in_fan_out=kind == "gpt2"
    )
    wrapped = peft.get_peft_model(model, config)
    assert execution.adopt(wrapped)
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            value.data += 0.1 * drawn(*value.shape)
    return execution, wrapped


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_blocks_round_and_nothing_else_does(kind: str, models: Models) -> None:
    """Neither adapters, also where they are wide, nor the head; and not while something is tried."""
    _, model = adapted(models, kind, rank=32)
    rounding = {name for name, module in model.named_modules() if getattr(module, "takes", None) == torch.bfloat16}
    assert rounding
    assert not [name for name in rounding if any(part in name for part in ("lora_", "classifier", "score", "pooler"))]
    bases = {name for name, _ in model.named_modules() if name.endswith("base_layer")}
    assert {name for name in bases if re.search(r"\.\d+\.", name)} == rounding


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_answers_and_gradients_are_near_those_of_fp32(way: str, kind: str, models: Models) -> None:
    execution, model = adapted(models, kind)
    found = {}
    for precision in ("bf16", "fp32"):
        execution.multiply_in(precision)
        execution.start(0)
        model.train()
        model.zero_grad()
        texts = trial_texts(model)
        logits = execution.outputs(model, texts, np.arange(len(texts))).values
        logits.logsumexp(1).sum().backward()
        grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        with execution.answering(model):
            found[precision] = (logits.detach(), grads, execution.trial_logits(model))
    (logits, grads, answers), (exact, exact_grads, exact_answers) = found["bf16"], found["fp32"]
    assert 0 < apart(logits, exact) < 0.05 * float(exact.abs().max())
    assert 0 < apart(answers, exact_answers) < 0.05 * float(exact_answers.abs().max())
    for name, value in grads.items():
        assert value.dtype == torch.float32
        together = torch.nn.functional.cosine_similarity(value.flatten(), exact_grads[name].flatten(), dim=0)
        assert together > 0.98 or float(exact_grads[name].norm()) < 1e-6, name


def test_a_model_that_is_tuned_whole_rounds_too(models: Models) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(models("bert"))
    execution = Execution(model.eval(), 0, precision="bf16")
    assert execution.adopt(model)
    layers = linear_layers(model).values()
    assert layers
    assert all(linear.is_in_bf16(module) for module in layers)


def test_a_small_update_is_not_rounded_away_where_nothing_trains(way: str, models: Models) -> None:
    """As it would be if it were added to the weights, which bf16 has to 8 bits."""
    execution, model = adapted(models, "bert")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.mul_(1e-4)
    with execution.answering(model):
        small = execution.trial_logits(model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.zero_()
    with execution.answering(model):
        none = execution.trial_logits(model)
    assert not torch.equal(small, none)


def test_a_weight_that_is_held_in_bf16_is_multiplied_as_it_is(models: Models) -> None:
    """Without a copy: neither in fp32 nor in another order."""
    _, model = adapted(models, "gpt2", "bfloat16")
    layers = [one for one in model.modules() if isinstance(one, held.HeldConv1D)]
    assert layers
    for layer in layers:
        assert layer.unpacked().data_ptr() == layer._buffers["weight"].data_ptr()
        assert layer.weight.dtype == torch.float32, "for whoever else reads it"


def content(models: Models, train_csv: Path, bf16: bool | str = True, **model: str) -> dict[str, Any]:
    settings = {"max_steps": 12, "save_strategy": "steps", "save_steps": 4, "bf16": bf16}
    found = tiny.recipe(models("bert"), train_csv, training=settings)
    return found | {"model": found["model"] | model}


def stop_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """From now on training ends before this step."""
    from featherweight.engine.training.train import Trainer

    carry_out = Trainer._train_step

    def stopping(self: Trainer) -> None:
        if self.progress.step == step:
            raise Interrupted("stopped")
        carry_out(self)

    patch.setattr(Trainer, "_train_step", stopping)


def same_bytes(one: Path, other: Path, name: str) -> bool:
    return (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("model", [{}, {"dtype": "bfloat16"}], ids=["plain", "held"])
def test_a_stopped_run_resumes_to_the_same_bytes(
    model: dict[str, str], models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)  # PyTorch multiplies so little of it on any processor
    recipe = recipes.parse(content(models, train_csv, **model))
    workflow.run(recipe, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_at(7, patch)
        workflow.run(recipe, tmp_path / "resumed", progress=False)
    workflow.run(recipe, tmp_path / "resumed", resume=True, progress=False)
    for name in (ADAPTER, "predictions/tuned-validation.parquet"):
        assert same_bytes(tmp_path / "whole", tmp_path / "resumed", name)


def test_what_is_written_is_held_to_what_was_measured_in_the_precision_of_measuring(
    models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose answers depend on the precision more than a gate could let pass, here by rounding that is coarser."""

    def coarse(one: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(one.float())
        return torch.ldexp((mantissa * 8).round() / 8, exponent)

    def product(states: torch.Tensor, weight: torch.Tensor, bias: Any = None, added: Any = None) -> torch.Tensor:
        found = coarse(states) @ coarse(weight)
        found = found if bias is None else found + bias
        return found if added is None else added.add_to(found)

    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    monkeypatch.setattr(linear, "product_in_bf16", product)
    recipe = recipes.parse(content(models, train_csv))
    workflow.run(recipe, tmp_path / "run", progress=False)
    gate = RunDirectory(tmp_path / "run").read_metrics()["reliability"]["gate"]
    assert gate["largest_difference_as_measured"] < 1e-5
    assert gate["largest_difference"] > 0.05
    assert "in fp32, and within" in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows enough to rule a loss out."""
    return tiny.save_csv(tmp_path_factory.mktemp("data") / "many.csv", tiny.rows(1000))


class TestAuto:
    """The recipe leaves it to the machine and to the validation rows."""

    @pytest.fixture(autouse=True)
    def _gains(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.be(monkeypatch, has=True, gains=True)

    def be(self, patch: pytest.MonkeyPatch, *, has: bool, gains: bool) -> None:
        """A machine with such instructions, which are faster."""
        patch.setattr(hardware, "has_bf16", lambda: has)
        patch.setattr(machine_speed.Probe, "gains_by_bf16", gains)

    def run(self, models: Models, many: Path, out: Path, bf16: bool | str = "auto", **options: Any) -> RunDirectory:
        workflow.run(recipes.parse(content(models, many, bf16)), out, progress=False, **options)
        return RunDirectory(out)

    def test_training_rounds_and_no_figure_of_the_report_does(self, models: Models, many: Path, tmp_path: Path) -> None:
        found = self.run(models, many, tmp_path / "auto")
        plain = self.run(models, many, tmp_path / "plain", bf16=False)
        assert not same_bytes(found.path, plain.path, ADAPTER)
        assert same_bytes(found.path, plain.path, "predictions/base-validation.parquet")
        (line,) = (one for one in found.recipe.read_text().splitlines() if one.startswith("bf16"))
        assert re.fullmatch(
            r"bf16 = true # chosen automatically: [0-9]+ GFLOP/s in fp32, [0-9]+ in bf16; no worse: on 250 rows .*",
            line,
        )
        assert found.read_environment()["precision"].startswith("bf16 in training, fp32 in what is measured")
        throughout = self.run(models, many, tmp_path / "throughout", bf16=True)
        apart = [run.read_metrics()["reliability"]["gate"]["largest_difference"] for run in (found, throughout)]
        assert apart[0] < 1e-5 < apart[1], "what is published answers in fp32, and so it was measured"

    def test_it_resumes_as_it_began_whatever_the_machine_is_by_then(
        self, models: Models, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.run(models, many, tmp_path / "whole")
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stop_at(7, patch)
            self.run(models, many, tmp_path / "resumed")
        self.be(monkeypatch, has=True, gains=False)
        self.run(models, many, tmp_path / "resumed", resume=True)
        for name in (ADAPTER, "predictions/tuned-validation.parquet"):
            assert same_bytes(tmp_path / "whole", tmp_path / "resumed", name)

    @pytest.mark.parametrize(
        ("has", "gains", "factor", "said"),
        [
            (False, True, None, "this processor has no bf16 instructions"),
            (True, False, None, "no faster here: "),
            (True, True, -1.0, "not shown to be no worse: on 250 rows accuracy changes by"),
            (True, True, math.nan, "some answers in bf16 are not numbers"),
        ],
        ids=["no instructions", "no gain", "worse answers", "no answers"],
    )
    def test_else_it_is_the_run_in_fp32(
        self,
        has: bool,
        gains: bool,
        factor: float | None,
        said: str,
        models: Models,
        many: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.be(monkeypatch, has=has, gains=gains)
        if factor is not None:
            monkeypatch.setattr(linear, "product_in_bf16", lambda states, weight, *_: factor * states @ weight)
        found = self.run(models, many, tmp_path / "auto")
        plain = self.run(models, many, tmp_path / "plain", bf16=False)
        for name in (ADAPTER, "predictions/tuned-validation.parquet"):
            assert same_bytes(found.path, plain.path, name)
        assert "bf16 = false # chosen automatically: " in found.recipe.read_text()
        assert said in found.recipe.read_text()
        assert found.read_environment()["precision"] == "fp32"


def test_without_a_compiler_pytorch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "load", lambda: None)
    assert [name for name in IN_BF16 if works_in_bf16(name)] == ["PyTorch"]


def test_the_kernel_is_not_asked_of_another_device() -> None:
    """It would read a GPU's addresses as the processor's."""
    assert [name for name in IN_BF16 if works_in_bf16(name, "cuda")] == ["PyTorch"]
