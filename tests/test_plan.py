"""What a run will take: the counts are exact, the costs are there, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.training import checkpoints
from featherweight.engine.training.forecast import _fit
from featherweight.errors import ConfigError

Models = Callable[[str], Path]


def test_plan_counts_what_the_run_then_does(models: Models, train_csv: Path, tmp_path: Path) -> None:
    content = tiny.recipe(models("bert"), train_csv, training={"num_train_epochs": 2, "per_device_train_batch_size": 7})
    recipe = recipes.parse(content)
    plan = workflow.plan(recipe)
    metrics = workflow.run(recipe, tmp_path / "run").metrics
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert plan["steps"] == max(event["step"] for event in history if event["event"] == "step")
    assert plan["trainable_parameters"] == metrics["trainable_parameters"]
    assert plan["total_parameters"] == metrics["total_parameters"]
    assert plan["rows"] == metrics["rows"]
    assert 0 < plan["padding_avoided"] < 0.9
    checkpoint = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"))
    margin = 3 * checkpoints._MARGIN
    assert plan["disk_bytes"] == pytest.approx(checkpoint * 3 / 2 + margin, rel=0.6)  # two of at most three are there
    seconds = plan["seconds"]
    assert seconds["total"] == pytest.approx(seconds["preparing"] + seconds["training"] + seconds["evaluations"])


def test_plan_counts_what_a_time_is_enough_for(models: Models, train_csv: Path) -> None:
    def plan(**training: Any) -> dict[str, Any]:
        content = tiny.recipe(models("bert"), train_csv, training={"num_train_epochs": 500.0, **training})
        return workflow.plan(recipes.parse(content))

    whole, limited = plan(), plan(time_limit="3 s")
    assert limited["steps"] < whole["steps"]
    assert limited["seconds"]["training"] < 3 < whole["seconds"]["training"]
    with pytest.raises(ConfigError, match=r"time_limit: 0\.001 s is not enough"):
        plan(time_limit="0.001 s")


def test_plan_leaves_nothing(models: Models, train_csv: Path, tmp_path: Path, cli: Any) -> None:
    ended = cli(
        "plan", "--model", models("gpt2"), "--data", train_csv, "--set", "training.num_train_epochs=1", "--json"
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["execution"]["batches"] == "packed"
    assert list(tmp_path.iterdir()) == []


def test_the_fit_finds_the_line_and_never_a_negative_cost() -> None:
    sizes = np.asarray([10.0, 20.0, 40.0, 80.0])
    assert _fit(sizes, 0.5 + 0.1 * sizes) == pytest.approx((0.5, 0.1))
    assert _fit(sizes, 0.1 * sizes - 0.5)[0] == 0
    assert _fit(np.asarray([5.0, 5.0]), np.asarray([1.0, 3.0])) == pytest.approx((0, 0.4))
