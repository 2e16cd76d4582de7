"""Numbers that go wrong, and memory that ends, by the fault list's row numbers: seen, stopped or mended, and stated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import pytest
import tiny
import torch

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.running.execution import Execution
from featherweight.engine.training.checkpoints import Checkpoint, Checkpoints
from featherweight.errors import ConfigError, DataError, DivergedError, ResourceError
from featherweight.methods.peft import adapters
from featherweight.records.outputs import Outputs
from featherweight.runs.directory import RunDirectory
from featherweight.tasks.sequence_classification import SequenceClassification

Models = Callable[[str], Path]
Settings = dict[str, Any]


@pytest.fixture
def run(models: Models, train_csv: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def call(folder: str = "run", model: Path | None = None, **sections: Settings) -> dict[str, Any]:
        content = tiny.recipe(model or models("bert"), train_csv, **sections)
        content["training"] = {"max_steps": 6, **content["training"], **sections.get("training", {})}
        return workflow.run(recipes.parse(content), tmp_path / folder).metrics

    return call


def poison(monkeypatch: pytest.MonkeyPatch, calls: set[int], value: float = float("inf")) -> None:
    """Make the loss of these calls, counted from 1 among those that train, not finite."""
    original = SequenceClassification.loss
    counted = [0]

    def loss(self: Any, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        found = original(self, outputs, targets)
        if not outputs.values.requires_grad:
            return found
        counted[0] += 1
        return found * value if counted[0] in calls else found

    monkeypatch.setattr(SequenceClassification, "loss", loss)


def published(folder: Path) -> bool:
    return any(any(folder.glob(name)) for name in ("adapter", "metrics.json", ".new-adapter*"))


@pytest.mark.parametrize("clipping", [0.0, 1.0])
def test_row_21_divergence_is_seen_within_a_few_steps(clipping: float, run: Any, tmp_path: Path) -> None:
    """A learning rate of 1e4, whether the loss leaves the finite numbers or only explodes."""
    settings = {"learning_rate": 1e4, "max_grad_norm": clipping, "max_steps": 40, "save_strategy": "steps",
                "save_steps": 1, "logging_steps": 10}  # fmt: skip
    with pytest.raises(DivergedError, match=r"training\.learning_rate \(now 10000\.0\)"):
        run(training=settings)
    assert not published(tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 2)
    last = checkpoints.newest()
    assert last is not None
    assert last.step <= 8, "within a few steps"
    assert all(torch.isfinite(value).all() for value in last.tensors["trainable"].values())


def test_row_21_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    from featherweight.engine.training.guard import Guard
    from featherweight.recipe import TrainingSection

    guard = Guard(TrainingSection(learning_rate=1e-3))
    guard.require_finite(1, [{"w": torch.ones(2)}])
    with pytest.raises(DivergedError, match="w is not finite after step 2"):
        guard.require_finite(2, [{"w": torch.tensor([1.0, float("nan")])}])


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_row_22_a_poisoned_batch_is_left_out_and_counted(
    value: float, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    poison(monkeypatch, {3}, value)
    metrics = run()
    assert metrics["reliability"]["skipped_steps"] == [3]
    assert "steps left out" in (tmp_path / "run" / "report.html").read_text()
    assert np.isfinite(metrics["epochs"][-1]["training_loss"])


def test_row_22_too_many_are_a_divergence(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    poison(monkeypatch, {2, 3, 5})
    with pytest.raises(DivergedError, match=r"at step 5 \(3 steps were left out\)"):
        run(training={"max_skipped_steps": 2})
    assert not published(tmp_path / "run")


@pytest.mark.parametrize(
    ("damage", "message", "bf16"),
    [
        (lambda value: value * float("nan"), "is not finite in what was written", False),
        (lambda value: value + 3.0 * torch.arange(value.numel()).view(value.shape), "answers differently", False),
        (lambda value: value + 3.0 * torch.arange(value.numel()).view(value.shape), "answers differently", True),
    ],
)
def test_row_23_the_gate_reads_back_what_was_written(
    damage: Any, message: str, bf16: bool, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from featherweight.engine import hardware

    monkeypatch.setattr(hardware, "has_bf16", lambda: True)  # PyTorch multiplies so little of it on any processor
    original = adapters.save

    def save(model: Any, folder: Path, *arguments: Any) -> None:
        original(model, folder, *arguments)
        if "trial" in folder.name:  # what is written before the first step is read back, too
            return
        path = folder / adapters.WEIGHTS
        tensors = load_file(path)
        name = next(name for name in tensors if "classifier" in name and name.endswith("weight"))
        save_file(tensors | {name: damage(tensors[name]).contiguous()}, path, metadata={"format": "pt"})

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "save", save)
        with pytest.raises(DivergedError, match=message):
            run(training={"bf16": bf16})
    assert not published(tmp_path / "run")
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).newest() is not None


def test_row_23_nothing_without_effect_is_published(run: Any, tmp_path: Path) -> None:
    """A fresh adapter's B is zero, so any update changes it; this one is far too small to change an answer."""
    with pytest.raises(DivergedError, match="answers exactly as the base model does"):
        run(training={"learning_rate": 1e-30, "weight_decay": 0.0})
    assert not published(tmp_path / "run")


def test_row_23_equal_answers_are_refused() -> None:
    from featherweight.workflow import gate

    base = np.asarray([[0.25, 0.75]], dtype=np.float32)
    gate.require_other_answers(pairs.answers(base), pairs.answers(base + np.float32(1e-6)))
    with pytest.raises(DivergedError, match="exactly as the base model"):
        gate.require_other_answers(pairs.answers(base), pairs.answers(base.copy()))
    with pytest.raises(DivergedError, match="not finite"):
        gate.require_other_answers(pairs.answers(base), pairs.answers(base * np.float32("nan")))


def test_row_23_an_adapter_that_is_all_zeros_beside_a_trained_head_is_refused() -> None:
    from featherweight.workflow import gate

    model = torch.nn.ModuleDict({"lora_B": torch.nn.Linear(2, 2), "classifier": torch.nn.Linear(2, 2)})
    before = gate.fingerprints(model)
    with torch.no_grad():
        model["classifier"].weight += 1
    with pytest.raises(DivergedError, match="none of the 2 tensors beside the head"):
        gate.require_effect(model, before, ["classifier"])
    with torch.no_grad():
        model["lora_B"].weight += 1
    gate.require_effect(model, before, ["classifier"])


def test_row_24_no_token_of_any_text_is_left(run: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.max_length: 2 leaves no token"):
        run(data={"max_length": 2})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_row_25_a_broken_head_is_drawn_afresh_and_said(value: float, run: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.save_model(tmp_path / "base", "bert", head=("neg", "pos"))
    tensors = load_file(folder / "model.safetensors")
    broken = torch.full_like(tensors["classifier.weight"], value)
    changed = {"classifier.weight": broken, "classifier.bias": torch.full_like(tensors["classifier.bias"], value)}
    save_file(tensors | changed, folder / "model.safetensors", metadata={"format": "pt"})
    metrics = run(model=folder)
    assert np.isfinite(metrics["base"]["eval_loss"])
    assert "classifier of the model was not usable" in (tmp_path / "run" / "recipe.toml").read_text()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_row_26_a_precision_that_the_machine_lacks(
    precision: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("featherweight.engine.hardware.has_bf16", lambda: False)
    with pytest.raises(ConfigError, match=rf"training\.{precision}: this machine has no .*unset it"):
        run(training={precision: True})


def starve(monkeypatch: pytest.MonkeyPatch, most: int, *, training: bool = True) -> None:
    """Let more than ``most`` rows at a time run out of memory, by a real request that the allocator can't meet."""
    original = Execution.outputs

    def outputs(self: Any, model: Any, encoding: Any, rows: Any) -> Outputs:
        if len(rows) > most and model.training == training:
            torch.empty(2**50)
        return original(self, model, encoding, rows)

    monkeypatch.setattr(Execution, "outputs", outputs)


def test_row_27_smaller_micro_batches_make_the_same_steps(
    run: Any, models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without dropout the adapter is the undisturbed run's up to rounding; what happened is recorded."""
    dry = tiny.save_model(tmp_path / "dry", "bert", dropout=0.0)
    run("whole", model=dry)
    with monkeypatch.context() as patch:
        starve(patch, 3)
        metrics = run("starved", model=dry)
    assert metrics["reliability"]["micro_batch_rows"] == 2
    events = [event["event"] for event in RunDirectory(tmp_path / "starved").read_history()]
    assert events.count("out_of_memory") == 2, "8 rows, then 4, then 2, and no more tries in later steps"
    assert "2 rows at a time" in (tmp_path / "starved" / "report.html").read_text()
    whole, starved = (
        Checkpoints(tmp_path / name / "checkpoints", 2).load(6).tensors["trainable"] for name in ("whole", "starved")
    )
    for name, value in whole.items():
        torch.testing.assert_close(starved[name], value, atol=1e-5, rtol=1e-4)


def test_row_27_where_not_even_one_row_fits(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starve(monkeypatch, 0)
    with pytest.raises(ResourceError, match=r"one row at a time \(training\.per_device_train_batch_size"):
        run()
    assert not published(tmp_path / "run")


def test_row_27_out_of_memory_elsewhere(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    starve(monkeypatch, 0, training=False)
    with pytest.raises(ResourceError, match=r"out of memory; lower data\.max_length or training\.per_device"):
        run()


# Row 8, 16: what is deleted, and what is refused, by the numbers.


def checkpoint(step: int, best: int | None = None) -> Checkpoint:
    return Checkpoint(step, {"trainable": {"w": torch.full((3,), float(step))}}, {"best_step": best})


def test_row_08_the_disk_is_asked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    monkeypatch.setattr("featherweight.engine.training.checkpoints.free_bytes", lambda path: 4_000_099)
    with pytest.raises(ResourceError, match=r"needs 4,000,100 bytes and 4,000,099 are free.*--force"):
        checkpoints.require_room(1_000_000, 100)
    monkeypatch.setattr("featherweight.engine.training.checkpoints.free_bytes", lambda path: 4_000_100)
    checkpoints.require_room(1_000_000, 100)


def test_row_16_the_only_whole_checkpoint_stays(tmp_path: Path) -> None:
    """A newer one that is damaged does not count towards those kept."""
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(checkpoint(30), None)
    (tmp_path / "c" / "step-000030" / "trainable.safetensors").write_bytes(b"")
    later = Checkpoints(tmp_path / "c", keep=1)
    later.save(checkpoint(10), None)
    later.save(checkpoint(20), None)
    assert later.steps() == [20, 30]
    found = later.newest()
    assert found is not None
    assert found.step == 20
    later.save(checkpoint(40), best_step=20)
    later.save(checkpoint(50), best_step=20)
    assert later.steps() == [20, 50], "the best and the newest"


def test_row_16_a_kill_while_one_is_replaced(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(checkpoint(1), None)
    (tmp_path / "c" / "step-000001").rename(tmp_path / "c" / ".old-step-000001")
    (tmp_path / "c" / ".new-step-000001").mkdir()
    found = Checkpoints(tmp_path / "c", keep=1).newest()
    assert found is not None
    assert found.step == 1
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-000001"]


def test_a_damaged_best_checkpoint_sends_the_run_back_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=9)
    for step, best in ((1, 1), (2, 2), (3, 2)):
        checkpoints.save(checkpoint(step, best), best)
    (tmp_path / "c" / "step-000002" / "state.json").write_text("{}")
    warnings: list[str] = []
    found = Checkpoints(tmp_path / "c", keep=9).newest(warnings.append)
    assert found is not None
    assert found.step == 1
    assert "the best so far, is damaged" in warnings[0]


def test_steps_of_more_than_six_digits(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in (999_999, 1_000_000):
        checkpoints.save(checkpoint(step), None)
    found = checkpoints.newest()
    assert found is not None
    assert found.step == 1_000_000


_PRODUCTS_WITHOUT_ROOM = """
import os, resource, sys, torch
from featherweight.engine.memory import is_out_of_memory
from featherweight.engine.fast.products import PRODUCTS, works

def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

names = [name for name in PRODUCTS if works(name)]
states, weights = torch.ones(1000, 4096), (torch.ones(4096, 4096), torch.ones(4096, 4096).t())
for megabytes in map(int, sys.argv[1:]):
    if os.fork():
        assert os.wait()[1] == 0
        continue
    limit = used() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name in names:
        for weight in weights:
            try:
                PRODUCTS[name](states, weight, None)
            except RuntimeError as error:
                print(is_out_of_memory(error), error)
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="limits memory as Linux does")
def test_a_product_without_room_is_known_as_the_end_of_the_memory() -> None:
    """In whichever library, for the result or for its own code: so that the step is made again in smaller parts."""
    megabytes = map(str, (4, 12, 17, 18))  # the result takes 16
    command = [sys.executable, "-c", _PRODUCTS_WITHOUT_ROOM, *megabytes]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in ended.stdout.splitlines() if line.startswith(("True", "False"))]
    assert lines
    assert not [line for line in lines if line.startswith("False")]
