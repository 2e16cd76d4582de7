"""Whole runs on tiny models: the run directory, resuming, and what is published."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stock
import tiny
import torch

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.running.execution import Execution
from featherweight.engine.training.checkpoints import Checkpoints
from featherweight.errors import ConfigError, ModelError
from featherweight.inference.predictor import load_predictor
from featherweight.runs.directory import RunDirectory
from featherweight.tasks import heads

Models = Callable[[str], Path]


def run(content: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    return workflow.run(recipes.parse(content), folder, **options).metrics


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def recipe_of_finished(models: Models, train_csv: Path, **sections: Any) -> dict[str, Any]:
    return tiny.recipe(models("bert"), train_csv, **{"training": {"num_train_epochs": 6}, **sections})


@pytest.fixture(scope="module")
def finished(models: Models, train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    run(recipe_of_finished(models, train_csv), folder)
    return folder


def test_the_run_directory_is_the_contract(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "recipe.toml", "environment.json", "checkpoints", "history.jsonl", "predictions", "adapter", "metrics.json", "report.html",
    }  # fmt: skip
    assert {path.name for path in (finished / "adapter").iterdir()} >= {
        "adapter_model.safetensors", "adapter_config.json", "README.md", "featherweight.json", "tokenizer.json",
    }  # fmt: skip
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["schema_version"] == 1
    assert metrics["task"] == "sequence-classification"
    assert metrics["label_shares"]["train"] == {"neg": 0.5, "pos": 0.5}
    assert set(metrics["baselines"]) == {"majority", "tfidf-logistic-regression", "linear-probe"}
    evaluation = {"eval_loss", "eval_accuracy", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    assert evaluation <= set(metrics["base"])
    assert evaluation <= set(metrics["tuned"])
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert {"training_loss", "eval_loss", "eval_accuracy"} <= set(metrics["epochs"][0])
    assert set(metrics["comparison"]) == {
        "metric", "n", "difference", "confidence_interval", "confidence", "test", "p_value", "fixed", "broken", "verdict",
        "smallest_significant_difference", "detectable_difference", "accuracy_verdict",
    }  # fmt: skip
    assert metrics["comparison"]["n"] == 60
    assert metrics["comparison"]["verdict"] == "better"
    assert {"train_runtime", "train_samples_per_second", "peak_memory_bytes"} <= set(metrics["resources"])
    assert metrics["tuned"]["eval_accuracy"] > 0.65, "separable sentences"


def test_predictions_hold_a_row_for_each_row(finished: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(finished / "predictions" / "tuned-validation.parquet")
    assert table.column_names == ["id", "label", "prediction", "probabilities"]
    assert table.num_rows == 60
    probabilities = np.asarray(table["probabilities"].to_pylist())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    best = [("neg", "pos")[index] for index in probabilities.argmax(axis=1)]
    assert table["prediction"].to_pylist() == best


@pytest.mark.parametrize("greater_is_better", [False, True])
def test_the_best_epoch_is_the_one_published(
    greater_is_better: bool, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    """Asked for the greatest loss, a run must publish an early epoch; asked for the least, a late one."""
    settings = {"num_train_epochs": 5, "metric_for_best_model": "eval_loss", "greater_is_better": greater_is_better}
    metrics = run(tiny.recipe(models("bert"), train_csv, training=settings), tmp_path / "run")
    losses = [epoch["eval_loss"] for epoch in metrics["epochs"]]
    best = max(losses) if greater_is_better else min(losses)
    assert metrics["tuned"]["eval_loss"] == pytest.approx(best, rel=1e-5)
    assert max(losses) > 1.1 * min(losses)
    assert workflow.evaluate(str(tmp_path / "run"))["eval_loss"] == pytest.approx(best, rel=1e-5)


def test_no_run_is_overwritten(finished: Path, models: Models, train_csv: Path, tmp_path: Path) -> None:
    before = files_of(finished / "adapter")
    with pytest.raises(ConfigError, match="--resume"):
        run(recipe_of_finished(models, train_csv), finished)
    with pytest.raises(ConfigError, match=r"training\.seed was 42, is 1"):
        run(recipe_of_finished(models, train_csv, training={"num_train_epochs": 6, "seed": 1}), finished, resume=True)
    run(recipe_of_finished(models, train_csv), finished, resume=True)
    assert files_of(finished / "adapter") == before
    stranger = tmp_path / "mine"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="no run"):
        run(recipe_of_finished(models, train_csv), stranger, resume=True)


def test_equal_runs_give_equal_bytes(finished: Path, models: Models, train_csv: Path, tmp_path: Path) -> None:
    run(recipe_of_finished(models, train_csv), tmp_path / "again")
    one, again = files_of(finished / "adapter"), files_of(tmp_path / "again" / "adapter")
    assert one["adapter_model.safetensors"] == again["adapter_model.safetensors"]
    assert one["adapter_config.json"] == again["adapter_config.json"]


RESUMED = {
    "gradient_accumulation_steps": 2,
    "warmup_ratio": 0.5,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 5,
    "save_strategy": "steps",
    "save_steps": 4,
}


def stopped_and_resumed(content: dict[str, Any], folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a run before its step ``step``, as a signal would, and resume it."""
    from featherweight.engine.training.train import Trainer
    from featherweight.errors import Interrupted

    with monkeypatch.context() as patch:
        original = Trainer.fit

        def fit(self: Any, resume: Any = None) -> Any:
            self.hooks = replace(self.hooks, stop=lambda: self.progress.step >= step)
            return original(self, resume)

        patch.setattr(Trainer, "fit", fit)
        with pytest.raises(Interrupted, match="--resume"):
            run(content, folder)
    assert not (folder / "metrics.json").exists()
    assert not (folder / "adapter").exists()
    run(content, folder, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 1, 7, 8, 9, 16])
def test_a_stopped_run_resumes_to_the_same_bytes(
    step: int, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, shuffling, accumulation, warm-up; in the middle of an epoch and at its end."""
    content = tiny.recipe(models("bert"), train_csv, training=RESUMED, method={"lora_dropout": 0.2})
    run(content, tmp_path / "whole")
    stopped_and_resumed(content, tmp_path / "stopped", step, monkeypatch)
    whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
    assert whole["adapter_model.safetensors"] == stopped["adapter_model.safetensors"]
    steps = [
        [(event["event"], event.get("step")) for event in RunDirectory(tmp_path / name).read_history()]
        for name in ("whole", "stopped")
    ]
    saves = [sum(name == "checkpoint" for name, _ in one) for one in steps]
    counted = [RunDirectory(tmp_path / name).read_metrics()["resources"]["saves"] for name in ("whole", "stopped")]
    assert counted == saves, "the one before the stop as well"
    steps = [[entry for entry in one if entry[0] not in {"checkpoint", "resume"}] for one in steps]
    assert steps[0] == steps[1], "no step done twice or left out"


@pytest.mark.slow
def test_without_the_stream_of_each_step_the_bytes_differ(
    models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    content = tiny.recipe(models("bert"), train_csv, training=RESUMED, method={"lora_dropout": 0.2})
    run(content, tmp_path / "whole")
    monkeypatch.setattr(Execution, "start", lambda self, *_: None)
    stopped_and_resumed(content, tmp_path / "stopped", 7, monkeypatch)
    whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
    assert whole["adapter_model.safetensors"] != stopped["adapter_model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_half_written_and_the_run_resumes(
    number: signal.Signals, models: Models, train_csv: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    arguments = [
        "run", "--model", models("bert"), "--data", train_csv, "--output-dir", "out",
        "--set", "training.num_train_epochs=200", "--set", "data.max_length=16", "--set", "training.logging_steps=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "featherweight", *map(str, arguments)],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    history = tmp_path / "out" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not (history.exists() and '"step": 5' in history.read_text()):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert not (tmp_path / "out" / "adapter").exists()
    assert not list((tmp_path / "out").rglob(".*"))
    assert Checkpoints(tmp_path / "out" / "checkpoints", 1).newest() is not None
    refused = cli(*arguments)
    assert refused.returncode == 2, "without --resume nothing is touched"


@pytest.mark.slow
def test_two_signals_stop_at_once(models: Models, train_csv: Path, tmp_path: Path) -> None:
    arguments = ["run", "--model", models("bert"), "--data", train_csv, "--output-dir", "out"]
    arguments += ["--set", "training.num_train_epochs=500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "featherweight", *map(str, arguments)],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "recipe.toml").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in {75, 130}, errors
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_damaged_checkpoints_are_passed_over_and_never_ignored_all_together(tmp_path: Path) -> None:
    from featherweight.engine.training.checkpoints import Checkpoint

    checkpoints = Checkpoints(tmp_path / "c", keep=5)
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        checkpoints.save(Checkpoint(step, {"trainable": {"w": torch.full((3,), float(step))}}, {"step": step}), None)
    damaged = tmp_path / "c" / "step-000003" / "trainable.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    warnings: list[str] = []
    newest = checkpoints.newest(warnings.append)
    assert newest is not None
    assert newest.step == 2
    assert torch.equal(newest.tensors["trainable"]["w"], torch.full((3,), 2.0))
    assert "checksum" in warnings[0]
    (tmp_path / "c" / "step-000002" / "state.json").write_text("")
    (tmp_path / "c" / "step-000001" / "manifest.json").unlink()
    with pytest.raises(ModelError, match="no checkpoint is whole"):
        checkpoints.newest()


def test_the_best_checkpoint_outlives_newer_ones(tmp_path: Path) -> None:
    from featherweight.engine.training.checkpoints import Checkpoint

    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in range(1, 6):
        checkpoints.save(Checkpoint(step, {}, {}), best_step=1)
    assert checkpoints.steps() == [1, 4, 5]


@pytest.mark.slow
def test_divergence_is_exit_5_and_publishes_nothing(
    cli: Callable[..., Any], models: Models, train_csv: Path, tmp_path: Path
) -> None:
    ended = cli(
        "run", "--model", models("bert"), "--data", train_csv, "--output-dir", "out",
        "--set", "training.learning_rate=1e30", "--set", "training.max_grad_norm=0", "--set", "training.num_train_epochs=9",
    )  # fmt: skip
    assert ended.returncode == 5, ended.stderr
    assert "learning_rate" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "roberta", "distilbert"])
@pytest.mark.parametrize("method", ["lora", "linear-probe", "full"])
def test_stock_libraries_load_what_every_method_publishes(
    kind: str, method: str, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    """The three lines of the model card, and nothing of ours, give the predictor's probabilities."""
    content = tiny.recipe(models(kind), train_csv, method={"name": method}, training={"num_train_epochs": 1})
    metrics = run(content, tmp_path / "run")
    texts = [row["text"] for row in tiny.rows(7, seed=5)]
    predictor = load_predictor(str(tmp_path / "run"))
    ours = np.asarray([list(one["probabilities"].values()) for one in predictor.predict(texts)])
    alone = np.asarray([list(predictor.predict([text])[0]["probabilities"].values()) for text in texts])
    np.testing.assert_allclose(ours, alone, atol=1e-5, err_msg="a batch of one equals a padded batch")

    artefact = tmp_path / "run" / ("model" if method == "full" else "adapter")
    model, tokenizer = stock.by_card(artefact)
    assert {**model.config.id2label} == {0: "neg", 1: "pos"}
    theirs = stock.logits(model, tokenizer, texts, max_length=16).softmax(-1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert metrics["trainable_parameters"] <= metrics["total_parameters"]


def test_row_29_a_model_without_pad_token(models: Models) -> None:
    """GPT-2 has no pad token: a batch of one, right padding and left padding agree."""
    from featherweight.recipe import ModelSection
    from featherweight.sources import models as sources
    from featherweight.tasks.sequence_classification import SequenceClassification

    task = SequenceClassification(("neg", "pos"))
    model, tokenizer, _ = heads.load(task.head(), sources.find(str(models("gpt2"))), ModelSection(name="m"))
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.config.pad_token_id == tokenizer.pad_token_id
    texts = ["great film", "a dull and lazy plot with this very awful cast", "story"]
    with torch.no_grad():
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        for side in ("right", "left"):
            tokenizer.padding_side = side
            padded = tokenizer(texts, padding=True, return_tensors="pt")
            positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            logits = model(**padded, position_ids=positions).logits
            torch.testing.assert_close(logits, alone, atol=1e-5, rtol=0)


def test_a_text_of_no_tokens_is_answered(models: Models, train_csv: Path, tmp_path: Path) -> None:
    run(tiny.recipe(models("gpt2"), train_csv, training={"max_steps": 1}), tmp_path / "run")
    answers = load_predictor(str(tmp_path / "run")).predict(["", "great film", "   "])
    assert [set(answer["probabilities"]) for answer in answers] == [{"neg", "pos"}] * 3


def test_lora_variants_reload_to_the_same_answers(models: Models, train_csv: Path, tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {"use_rslora": True},
        {"use_dora": True},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "gaussian", "bias": "lora_only"},
        {"layers_to_transform": [1], "target_modules": ["query", "value"]},
        {"rank_pattern": {"query": 2}, "alpha_pattern": {"query": 3}},
        {"target_modules": "all-linear"},
    ]
    for index, variant in enumerate(variants):
        folder = tmp_path / str(index)
        metrics = run(tiny.recipe(models("bert"), train_csv, method=variant, training={"num_train_epochs": 1}), folder)
        again = workflow.evaluate(str(folder))
        assert again["eval_loss"] == pytest.approx(metrics["tuned"]["eval_loss"], abs=1e-5), variant


def test_evaluate_and_compare_agree_with_the_run(
    finished: Path, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert workflow.evaluate(str(finished))["eval_loss"] == pytest.approx(metrics["tuned"]["eval_loss"], abs=1e-6)
    (alone,) = workflow.compare([str(finished)])["comparisons"]
    assert alone["difference"] == metrics["comparison"]["difference"]
    assert alone["p_value"] == metrics["comparison"]["p_value"]
    run(tiny.recipe(models("bert"), train_csv, method={"r": 1}), tmp_path / "other")
    (pair,) = workflow.compare([str(finished), str(tmp_path / "other")])["comparisons"]
    assert pair["n"] == 60
    (itself,) = workflow.compare([str(finished), str(finished)])["comparisons"]
    assert (itself["p_value"], itself["fixed"], itself["broken"], itself["verdict"]) == (1.0, 0, 0, "no-difference")


def test_a_new_file_and_a_plain_model_can_be_evaluated(finished: Path, models: Models, tmp_path: Path) -> None:
    from featherweight.tasks.columns import LabelColumns

    new = tiny.save_csv(tmp_path / "new.csv", tiny.rows(40, seed=9))
    section = LabelColumns(train_file=str(new))
    assert workflow.evaluate(str(finished), section)["eval_accuracy"] > 0.8
    assert workflow.evaluate(str(finished / "adapter"), section)["eval_accuracy"] > 0.8
    untuned = workflow.evaluate(str(models("bert")), section)
    assert untuned["n"] == 40
    assert untuned["eval_accuracy"] < 0.8


def test_several_classes(models: Models, tmp_path: Path) -> None:
    rows = [{"text": f"{word} film", "label": word} for word in ("great", "dull", "warm") * 20]
    content = tiny.recipe(models("bert"), tiny.save_csv(tmp_path / "t.csv", rows), training={"num_train_epochs": 6})
    metrics = run(content, tmp_path / "run")
    assert metrics["tuned"]["eval_accuracy"] == 1.0
    assert set(load_predictor(str(tmp_path / "run")).predict(["a warm film"])[0]["probabilities"]) == {
        "dull", "great", "warm",
    }  # fmt: skip
