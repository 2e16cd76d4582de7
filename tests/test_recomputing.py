"""Blocks that are computed again in the backward pass: the same gradients, of fewer kept numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT
from test_packed import PACKED, make_encoding, make_model, with_adapter

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.fast.dropout import Masks
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.packed import Packed
from featherweight.errors import ConfigError
from featherweight.registry import elsewhere
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]
LENGTHS = [3, 17, 1, 9, 17, 2, 9]


def stepped(kind: str, again: bool, padded: bool = False) -> tuple[Any, int]:
    """A model with the gradients of one step with dropout, and how many numbers the step kept for its way back."""
    base = make_model(kind)
    execution = Execution(base, base.config.pad_token_id)
    if padded and isinstance(execution.forward, Packed):
        execution.forward.remove()
        execution.forward = execution.padded
        execution._way = dataclasses.replace(execution._way, forward=execution.padded)
    model = with_adapter(base)
    execution.adopt(model)
    if again:
        execution.recompute(model)
    model.train()
    execution.start(3)
    torch.manual_seed(4)
    kept = [0]

    def count(value: torch.Tensor) -> torch.Tensor:
        kept[0] += value.numel() if not isinstance(value, torch.nn.Parameter) else 0
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        logits = execution.outputs(model, make_encoding(LENGTHS), np.arange(len(LENGTHS))).values
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return model, kept[0]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


WITHOUT = {"albert"}  # transformers' own code for them has no such thing


@pytest.mark.parametrize("kind", sorted({*PACKED} - WITHOUT))
def test_gradients_are_those_of_a_plain_step(kind: str) -> None:
    (plain, kept), (again, fewer) = stepped(kind, False), stepped(kind, True)
    expected, found = gradients(plain), gradients(again)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5, msg=name)
    assert fewer < 0.6 * kept, "blocks keep what enters them alone"


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_padded_batches_are_computed_again_too(kind: str) -> None:
    (plain, _), (again, _) = stepped(kind, False, padded=True), stepped(kind, True, padded=True)
    for name, value in gradients(plain).items():
        torch.testing.assert_close(gradients(again)[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_other_masks_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what is dropped the second time is what was dropped the first."""
    from featherweight.engine.running import recomputing

    original = recomputing._as_before
    monkeypatch.setattr(recomputing, "_as_before", lambda masks, place, known: original(Masks(9), place, known))
    plain, again = gradients(stepped("bert", False)[0]), gradients(stepped("bert", True)[0])
    assert any(not torch.allclose(again[name], value, atol=1e-4) for name, value in plain.items())


def test_a_run_gives_the_same_model(models: Models, tmp_path: Path) -> None:
    rows = tiny.save_jsonl(tmp_path / "rows.jsonl", tiny.rows(60))
    found = []
    for again in (False, True):
        training = {"max_steps": 6, "learning_rate": 1e-2, "gradient_checkpointing": again}
        workflow.run(recipes.parse(tiny.recipe(models("bert"), rows, training=training)), tmp_path / f"run-{again}")
        found.append(RunDirectory(tmp_path / f"run-{again}").read_metrics()["tuned"]["eval_loss"])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("kind", sorted(WITHOUT))
def test_an_architecture_that_can_not_says_so(kind: str) -> None:
    base = make_model(kind)
    with pytest.raises(ConfigError, match=rf"training\.gradient_checkpointing: {kind}'s code"):
        Execution(base, 0).recompute(base)


def test_the_checks_of_a_gpu_are_skipped_by_name_where_there_is_none(tmp_path: Path) -> None:
    import json
    import os
    import subprocess
    import sys

    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--output", str(tmp_path / "gpu.json")]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, env=hidden, capture_output=True)
    checks = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["checks"]
    assert {name.partition("-")[0] for name in checks} == {"numerics", "held", "recomputing", "resume", "speed"}
    assert {one["outcome"] for one in checks.values()} == {"skipped: no CUDA device"}


def test_the_key_of_its_settings_is_answered() -> None:
    assert "gradient_checkpointing is true" in elsewhere.TRAINING_ARGUMENTS["gradient_checkpointing_kwargs"]
