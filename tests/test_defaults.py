"""A recipe that leaves its rate open gets one that suits; whatever a recipe says stays as it says."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT
from test_run import files_of, stopped_and_resumed
from test_trainer_equivalence import make_encoding, make_model, train_ours, trained

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError
from featherweight.evidence.baselines.labels import as_layer, fit_probe
from featherweight.recipe import Recipe, TrainingSection, seconds_of
from featherweight.runs.directory import RunDirectory
from featherweight.workflow import defaults
from featherweight.workflow.defaults import Facts

Models = Callable[[str], Path]
FACTS = Facts(rows=1600, width=384, head_input=20.0)


def recipe_of(training: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    content = {"model": {"name": "m"}, "data": {"train_file": "t.csv"}, **sections}
    return recipes.parse(content | ({} if training is None else {"training": training}))


def open_recipe(model: Path, data: Path, **training: Any) -> dict[str, Any]:
    """A small recipe that leaves its rate open."""
    content = tiny.recipe(model, data, training=training)
    for key in {"learning_rate", "num_train_epochs"} - training.keys():
        del content["training"][key]
    return content


def run(content: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    return dict(workflow.run(recipes.parse(content), folder, **options).metrics)


def resolved(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))


def test_a_recipe_with_a_rate_keeps_the_meaning_of_every_key_that_it_leaves_out() -> None:
    recipe = recipe_of({"learning_rate": 2e-5})
    assert defaults.choose_head(recipe, is_fresh=True) == (recipe, {})
    found, reasons = defaults.choose(recipe, FACTS)
    assert found.training == TrainingSection(learning_rate=2e-5, metric_for_best_model="eval_loss")
    assert list(reasons) == ["training.metric_for_best_model"]
    assert (found.training.num_train_epochs, found.training.warmup_ratio) == (3.0, 0.0), "TrainingArguments' own"
    assert found.method == recipe.method
    assert (found.method.r, found.method.lora_alpha) == (8, 8), "PEFT's own"  # type: ignore[attr-defined]


def test_the_reference_recipe_is_untouched() -> None:
    recipe = recipes.load(ROOT / "recipes" / "gpt2-sst2.toml")
    assert defaults.choose_head(recipe, is_fresh=True) == (recipe, {})
    assert defaults.choose(recipe, FACTS) == (recipe, {})


def test_an_open_rate_brings_what_goes_with_it_and_a_reason_for_each() -> None:
    found, reasons = defaults.choose(recipe_of(), FACTS)
    before = TrainingSection().model_dump()
    changed = {f"training.{key}" for key, value in found.training.model_dump().items() if value != before[key]}
    assert changed == reasons.keys()
    assert all(reason.startswith("chosen automatically: ") for reason in reasons.values())
    assert found.training.head_learning_rate == pytest.approx(0.2 / 20)
    assert not found.training.load_best_model_at_end, "the last weights, so that validation chooses nothing"
    patient, _ = defaults.choose(recipe_of({"early_stopping_patience": 2}), FACTS)
    assert patient.training.load_best_model_at_end
    head, reasons = defaults.choose_head(recipe_of(), is_fresh=True)
    assert (head.model.head, list(reasons)) == ("probe", ["model.head"])
    assert defaults.choose_head(recipe_of(), is_fresh=False)[0].model.head == "auto", "a trained head is kept"


def test_what_a_recipe_says_stays() -> None:
    said = {
        "num_train_epochs": 2.0, "warmup_ratio": 0.0, "head_learning_rate": 0.5, "metric_for_best_model": "macro_f1",
        "eval_strategy": "epoch",
    }  # fmt: skip
    found, _ = defaults.choose(recipe_of(said), FACTS)
    assert found.training.model_dump(include=said.keys()) == said
    assert found.training.learning_rate is not None
    new = recipe_of(model={"name": "m", "head": "new"})
    assert defaults.choose_head(new, is_fresh=True) == (new, {})


def test_fewer_rows_are_seen_more_often_and_evaluated_as_rarely() -> None:
    epochs = []
    for rows in (20, 400, 1600, 8000, 67_000, 200_000, 1_000_000):
        training = defaults.choose(recipe_of(), Facts(rows, 384, 20.0))[0].training
        epochs.append(training.num_train_epochs)
        steps = -(-rows // 32) * training.num_train_epochs
        every = training.eval_steps if training.eval_strategy == "steps" else -(-rows // 32)
        assert -(-steps // every) <= defaults.MOST_EVALUATIONS
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] == defaults.MOST_EPOCHS
    assert epochs[-1] == 1


def test_a_run_of_a_few_steps_does_not_spend_them_on_warming_up() -> None:
    assert defaults.choose(recipe_of({"max_steps": 10}), FACTS)[0].training.warmup_ratio == 0
    assert defaults.choose(recipe_of({"max_steps": 100}), FACTS)[0].training.warmup_ratio > 0
    assert defaults.choose(recipe_of({"num_train_epochs": 0.1}), FACTS)[0].training.warmup_ratio == 0


def test_the_rate_goes_with_the_scale_of_the_updates_and_the_width_of_the_model() -> None:
    def rate(width: int = 384, **method: Any) -> float:
        found = defaults.choose(recipe_of(method=method), Facts(1600, width, 20.0))[0].training.learning_rate
        assert found is not None
        return found

    assert rate(r=16, lora_alpha=32) == pytest.approx(rate() / 2)
    assert rate(r=16, lora_alpha=16) == pytest.approx(rate())
    assert rate(r=16, lora_alpha=16, use_rslora=True) == pytest.approx(rate() / 4)
    assert rate(width=4096) < rate(width=768) < rate()
    assert rate(name="full") == 5e-5
    assert 1e-5 > rate(width=4096, name="full") < rate(width=768, name="full") < rate(name="full")


@pytest.mark.parametrize(("classes", "width"), [(2, 5), (7, 5), (3, 40)])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_probe_is_a_layer(classes: int, width: int, intercept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its features are narrowed first, which is where they are many."""
    from featherweight.evidence.baselines import labels as by_label

    monkeypatch.setattr(by_label, "MOST_JOINT_WEIGHTS", 60)
    draw = np.random.default_rng(1)
    labels = np.arange(90) % classes
    features = (draw.normal(size=(90, width)) + 3 + labels[:, None] * draw.normal(size=width)).astype(np.float32)
    probe = fit_probe(features, labels, intercept=intercept)
    weight, bias = as_layer(probe, width, classes)
    if not intercept:
        np.testing.assert_allclose(bias - bias.mean(), 0, atol=1e-6)
    logits = torch.from_numpy(features) @ torch.from_numpy(weight).T + torch.from_numpy(bias)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), probe.predict_proba(features), atol=1e-4)


def test_a_label_that_the_probe_has_not_seen_is_answered_last() -> None:
    features = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    weight, bias = as_layer(fit_probe(features, np.arange(40) % 2 * 2), 4, 3)
    assert np.isfinite(weight).all()
    assert bias.argmin() == 1
    assert not weight[1].any()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "distilbert"])
def test_the_head_begins_at_the_probe(kind: str, models: Models, train_csv: Path, tmp_path: Path) -> None:
    """An epoch at next to no rate leaves the model where it began: better than guessing, where a random head isn't."""
    losses = {}
    for head in ("probe", "new"):
        content = tiny.recipe(models(kind), train_csv, training={"learning_rate": 1e-6, "num_train_epochs": 1})
        content["model"]["head"] = head
        metrics = run(content, tmp_path / head)
        losses[head] = metrics["epochs"][0]["eval_loss"]
        assert resolved(tmp_path / head)["model"]["head"] == head
    assert losses["probe"] < np.log(2) - 1e-4
    assert losses["probe"] < losses["new"]


def test_the_head_has_its_own_rate(tmp_path: Path) -> None:
    """Adam's first step moves each number by its rate, so the rates can be read off what moved."""
    moved = {}
    for head_rate in (None, 0.25):
        model = make_model("bert", "none")
        before = trained(model)
        settings = {"max_steps": 1, "weight_decay": 0.0, "warmup_ratio": 0.0, "max_grad_norm": 0.0}
        train_ours(model, make_encoding(), tmp_path, head=["classifier"], head_learning_rate=head_rate, **settings)
        after = trained(model)
        moved[head_rate] = {name: float((after[name] - before[name]).abs().max()) for name in before}
    for name, distance in moved[0.25].items():
        assert distance == pytest.approx(0.25 if "classifier" in name else 2e-3, rel=0.01)
    assert all(distance == pytest.approx(2e-3, rel=0.01) for distance in moved[None].values()), "negative control"


def test_the_recipe_that_a_run_resolved_gives_the_same_run(models: Models, train_csv: Path, tmp_path: Path) -> None:
    run(open_recipe(models("bert"), train_csv, max_steps=12), tmp_path / "first")
    workflow.run(recipes.load(tmp_path / "first" / "recipe.toml"), tmp_path / "again")
    first, again = (files_of(tmp_path / name / "adapter") for name in ("first", "again"))
    assert first["adapter_model.safetensors"] == again["adapter_model.safetensors"]
    comments = (tmp_path / "first" / "recipe.toml").read_text(encoding="utf-8")
    assert comments.count("# chosen automatically") >= 5


@pytest.mark.slow
def test_shuffled_labels_show_no_difference(tmp_path: Path) -> None:
    """Though the checkpoint is the most accurate of several, and on the rows that are reported."""
    model, verdicts = tiny.save_model(tmp_path / "model", "bert", dropout=0.1, num_hidden_layers=1), []
    for seed in range(20):
        rows = tiny.rows(600, seed)
        labels = [row["label"] for row in rows]
        random.Random(seed).shuffle(labels)
        shuffled = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
        data = tiny.save_csv(tmp_path / f"{seed}.csv", shuffled)
        content = open_recipe(model, data, seed=seed)
        content["data"] |= {"allow_leak": True, "validation_fraction": 0.3}
        content["evidence"] = {"baselines": ["majority"]}
        verdicts.append(run(content, tmp_path / f"run-{seed}")["comparison"]["verdict"])
    assert verdicts.count("no-difference") >= 19, "one in twenty is what chance gives"
    content["data"]["train_file"] = str(tiny.save_csv(tmp_path / "true.csv", tiny.rows(600)))
    assert run(content, tmp_path / "true")["comparison"]["verdict"] == "better", "negative control"


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 5])
def test_a_run_with_defaults_resumes_to_the_same_bytes(
    step: int, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = open_recipe(models("bert"), train_csv, max_steps=12)
    run(content, tmp_path / "whole")
    stopped_and_resumed(content, tmp_path / "stopped", step, monkeypatch)
    whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
    assert whole["adapter_model.safetensors"] == stopped["adapter_model.safetensors"]


def test_a_time_is_read_as_people_write_it() -> None:
    found = {text: seconds_of(text) for text in ("90 s", "10 min", "1.5 h", "2minutes", "30sec")}
    assert found == {"90 s": 90, "10 min": 600, "1.5 h": 5400, "2minutes": 120, "30sec": 30}
    for wrong in ("10", "ten min", "0 s", "-1 h", "10 min 5 s", "1 day"):
        with pytest.raises(ConfigError, match=r"time_limit.*'10 min'"):
            recipe_of({"time_limit": wrong})


def test_a_schedule_is_laid_for_its_time_and_the_rehearsal_leaves_no_trace(
    models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are as many as fit, and the run is that of a recipe with so many steps, to the byte."""
    long = {"num_train_epochs": 5000.0, "learning_rate": 1e-2, "eval_strategy": "steps", "eval_steps": 100_000}
    limited = tiny.recipe(models("bert"), train_csv, training={**long, "time_limit": "2 s"})
    metrics = run(limited, tmp_path / "limited")
    laid = resolved(tmp_path / "limited")["training"]["max_steps"]
    assert 10 < laid < 5000 * 23
    assert metrics["epochs"][-1]["epoch"] == pytest.approx(laid / 23, rel=0.05)
    content = tiny.recipe(models("bert"), train_csv, training={**long, "max_steps": laid})
    run(content, tmp_path / "counted")
    one, other = (files_of(tmp_path / name / "adapter") for name in ("limited", "counted"))
    assert one["adapter_model.safetensors"] == other["adapter_model.safetensors"]
    stopped_and_resumed(limited, tmp_path / "resumed", 5, monkeypatch)
    events = [event for event in RunDirectory(tmp_path / "resumed").read_history() if event["event"] == "laid"]
    assert len(events) == 1, "a resumed run takes the number that it began with"


def test_a_longer_time_changes_nothing_and_a_shorter_one_is_refused(
    models: Models, train_csv: Path, tmp_path: Path
) -> None:
    run(tiny.recipe(models("bert"), train_csv, training={"time_limit": "2 h"}), tmp_path / "long")
    run(tiny.recipe(models("bert"), train_csv), tmp_path / "plain")
    long, plain = (files_of(tmp_path / name / "adapter") for name in ("long", "plain"))
    assert long["adapter_model.safetensors"] == plain["adapter_model.safetensors"]
    with pytest.raises(ConfigError, match=r"training\.time_limit: 0\.001 s is not enough for one step"):
        run(tiny.recipe(models("bert"), train_csv, training={"time_limit": "0.001 s"}), tmp_path / "short")


def test_patience_is_that_of_transformers(tmp_path: Path) -> None:
    """Ours and ``EarlyStoppingCallback`` end at the same evaluation, whatever the series of losses."""
    import transformers

    draw = np.random.default_rng(5)
    for patience in (1, 2, 3):
        for threshold in (0.0, 0.1):
            losses = draw.uniform(0.5, 1.0, 12).round(2).tolist()
            assert _ends_at(losses, patience, threshold, tmp_path) == _callback_ends_at(
                transformers, losses, patience, threshold
            )


def _ends_at(losses: list[float], patience: int, threshold: float, folder: Path) -> int:
    from accelerate import Accelerator

    from featherweight.engine.running.execution import Execution
    from featherweight.engine.training.checkpoints import Checkpoints
    from featherweight.engine.training.train import Hooks, Means, Trainer
    from featherweight.records.answers import Answers, Evaluation
    from featherweight.tasks.sequence_classification import SequenceClassification

    model = make_model("bert")
    series = iter(losses)
    trainer = Trainer(
        model,
        SequenceClassification(("neg", "pos")),
        make_encoding(),
        settings=TrainingSection(
            learning_rate=1e-4, max_steps=len(losses), eval_strategy="steps", eval_steps=1, save_strategy="steps",
            load_best_model_at_end=False, early_stopping_patience=patience, early_stopping_threshold=threshold,
        ),
        means=Means(
            Accelerator(cpu=True), Execution(model.get_base_model(), pad_token_id=0), Checkpoints(folder, keep=1)
        ),
        hooks=Hooks(lambda: Evaluation({"eval_loss": next(series)}, Answers({})), lambda event: None),
    )  # fmt: skip
    return trainer.fit().steps


def _callback_ends_at(transformers: Any, losses: list[float], patience: int, threshold: float) -> int:
    callback = transformers.EarlyStoppingCallback(patience, threshold)
    arguments = transformers.TrainingArguments(
        "nowhere", metric_for_best_model="loss", greater_is_better=False, report_to=[], use_cpu=True
    )
    state, control = transformers.TrainerState(), transformers.TrainerControl()
    for step, loss in enumerate(losses, start=1):
        callback.on_evaluate(arguments, state, control, {"eval_loss": loss})
        if state.best_metric is None or loss < state.best_metric:
            state.best_metric = loss
        if control.should_training_stop:
            return step
    return len(losses)


def test_a_run_that_stops_early_counts_what_it_did(models: Models, train_csv: Path, tmp_path: Path) -> None:
    metrics = run(
        tiny.recipe(models("bert"), train_csv, training={
            "learning_rate": 1e-6, "num_train_epochs": 9, "early_stopping_patience": 2, "early_stopping_threshold": 0.5,
        }),
        tmp_path / "run",
    )  # fmt: skip
    assert len(metrics["epochs"]) == 3
    assert metrics["resources"]["train_samples_per_second"] * metrics["resources"]["train_runtime"] == pytest.approx(
        3 * metrics["rows"]["train"]
    )
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best_step"] > 0
