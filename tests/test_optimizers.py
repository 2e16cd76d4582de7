"""Optimizers, schedules and LoRA+: step by step the Trainer's and PEFT's, and resumed to the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_run import files_of, run, stopped_and_resumed
from test_trainer_equivalence import (
    SETTINGS,
    largest_difference,
    make_encoding,
    make_model,
    train_ours,
    train_stock,
    trained,
)

from featherweight import recipe as recipes
from featherweight.answers import statistics_of
from featherweight.engine.training import train
from featherweight.engine.training.learning_rate import LearningRate
from featherweight.engine.training.optimizer import build_optimizer
from featherweight.errors import ConfigError
from featherweight.recipe import TrainingSection
from featherweight.recipe.schedules import SCHEDULES
from featherweight.registry import ANSWERS, OPTIMIZERS, elsewhere
from featherweight.workflow import preparing
from featherweight.workflow.own_rates import own_rates

Models = Callable[[str], Path]

EPOCHS = 8.0
SERIES = [1.0, 1.1, 0.5, 0.6, 0.7, 0.4, 0.8, 0.9]  # of losses on validation: some worse than the best before them
RATES = {"adamw_torch": 2e-3, "adamw_torch_fused": 2e-3, "adafactor": 2e-3, "sgd": 0.5}
OPTIONS: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {"num_cycles": 0.7},
    "cosine_with_restarts": {"num_cycles": 2},
    "polynomial": {"lr_end": 4e-4, "power": 2.0},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {"timescale": 30},
    "reduce_lr_on_plateau": {"factor": 0.3, "patience": 0, "cooldown": 1, "min_lr": 1e-4},
    "cosine_with_min_lr": {"min_lr": 3e-4},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.2, "warmup_lr_rate": 0.3},
    "warmup_stable_decay": {"num_decay_steps": 10, "decay_type": "1-sqrt", "min_lr_ratio": 0.1},
    "greedy": {"factor": 0.5, "patience": 0, "min_lr": 1e-4, "smooth": True, "window_size": 2},
}


def differences(folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float]:
    """How far our losses and our adapter are from the Trainer's, over enough evaluations for a plateau to count."""
    one, other, encoding = make_model("bert"), make_model("bert"), make_encoding()
    shared: dict[str, Any] = {"num_train_epochs": EPOCHS, "evaluations": SERIES}
    our_losses = train_ours(one, encoding, folder / "ours", **shared, **ours)
    stock_losses = train_stock(other, encoding, folder / "stock", **shared, **theirs)
    assert len(our_losses) == len(stock_losses) == 32
    return float(np.abs(np.subtract(our_losses, stock_losses)).max()), largest_difference(trained(one), trained(other))


def of_schedule(name: str, **changed: Any) -> dict[str, Any]:
    return {"lr_scheduler_type": name, "lr_scheduler_kwargs": OPTIONS[name] | changed or None}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_the_trainers(name: str, tmp_path: Path) -> None:
    changes = {"optim": name, "learning_rate": RATES[name]}
    of_losses, of_adapters = differences(tmp_path, changes, changes)
    assert of_losses < 2e-5
    assert of_adapters < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_the_trainers(name: str, tmp_path: Path) -> None:
    of_losses, of_adapters = differences(tmp_path, of_schedule(name), of_schedule(name))
    assert of_losses < 2e-5
    assert of_adapters < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"optim": "adafactor"}, {"optim": "adamw_torch"}),
        ({"optim": "sgd", "learning_rate": 0.5}, {"optim": "sgd", "learning_rate": 0.51}),
        (of_schedule("reduce_lr_on_plateau", cooldown=0), of_schedule("reduce_lr_on_plateau")),
        (of_schedule("reduce_lr_on_plateau", mode="max"), of_schedule("reduce_lr_on_plateau")),
        (of_schedule("polynomial", lr_end=5e-4), of_schedule("polynomial")),
        (of_schedule("greedy", window_size=1), of_schedule("greedy")),
    ],
)
def test_another_optimizer_or_option_is_seen(ours: dict[str, Any], theirs: dict[str, Any], tmp_path: Path) -> None:
    """Negative control: one option apart, the adapters are further apart than is allowed above."""
    _, of_adapters = differences(tmp_path, ours, theirs)
    assert of_adapters > 5e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "optim", "changes"),
    [
        ("bert", "adamw_torch", {}),
        ("bert", "adafactor", {}),
        ("gpt2", "sgd", {"learning_rate": 0.1}),
        ("llama", "adamw_torch", {"weight_decay": 0.0}),
    ],
)
def test_lora_plus_is_pefts(kind: str, optim: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Biases that train and a head beside the matrices, all at the rates that PEFT's optimizer gives them."""
    from peft.optimizers import create_loraplus_optimizer
    from transformers.optimization import Adafactor

    ours, stock, plain, encoding = *(make_model(kind) for _ in range(3)), make_encoding()
    settings = {**SETTINGS, **changes}
    options: dict[str, dict[str, Any]] = {
        "adamw_torch": {"optimizer_cls": torch.optim.AdamW},
        "adafactor": {"optimizer_cls": Adafactor, "scale_parameter": False, "relative_step": False},
        "sgd": {"optimizer_cls": torch.optim.SGD},
    }
    theirs = create_loraplus_optimizer(
        stock, lr=settings["learning_rate"], loraplus_lr_ratio=8.0, loraplus_weight_decay=settings["weight_decay"],
        **options[optim],
    )  # fmt: skip
    asked = {**changes, "optim": optim}
    our_losses = train_ours(ours, encoding, tmp_path / "ours", loraplus_lr_ratio=8.0, **asked)
    stock_losses = train_stock(stock, encoding, tmp_path / "stock", optimizer=theirs, **changes)
    np.testing.assert_allclose(our_losses, stock_losses, atol=2e-5, rtol=0)
    assert largest_difference(trained(ours), trained(stock)) < 5e-5
    train_ours(plain, encoding, tmp_path / "plain", **asked)
    assert largest_difference(trained(plain), trained(stock)) > 1e-3, "negative control: without the ratio"


def test_lora_plus_has_pefts_rates_and_a_head_keeps_its_own() -> None:
    """Name by name, with embeddings, biases and DoRA's magnitudes."""
    from peft import LoraConfig, get_peft_model
    from peft.optimizers import create_loraplus_optimizer
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_config(tiny.config("bert", num_labels=2, pad_token_id=0))
    targets = ["query", "word_embeddings"]
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=targets, use_dora=True, bias="all"))
    names = {id(value): name for name, value in model.named_parameters()}
    theirs = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=4.0)
    expected = {names[id(one)]: group["lr"] for group in theirs.param_groups for one in group["params"]}
    assert {1e-6, 1e-3, 4e-3} == set(expected.values())

    def rates(**more: float) -> dict[str, float]:
        settings = TrainingSection(learning_rate=1e-3, loraplus_lr_ratio=4.0, **more)
        made = build_optimizer(model, settings, own_rates(model, ["classifier"], settings))
        return {names[id(one)]: group["lr"] for group in made.param_groups for one in group["params"]}

    assert rates() == expected
    of_head = {name: 7e-3 for name in expected if "classifier" in name}
    assert of_head
    assert rates(head_learning_rate=7e-3) == expected | of_head


def test_schedules_and_their_options_are_transformers() -> None:
    """Every schedule, and of each every option by name and default; last_epoch is resuming's, verbose prints."""
    import inspect

    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
    from transformers.trainer_utils import SchedulerType

    made_of: dict[str, Any] = {
        "reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau, "greedy": GreedyLR,
    }  # fmt: skip
    assert set(SCHEDULES) == {one.value for one in SchedulerType}
    assert set(SCHEDULES) == set(TrainingSection.model_json_schema()["properties"]["lr_scheduler_type"]["enum"])
    for name, schedule in SCHEDULES.items():
        function = made_of.get(name, TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)])
        theirs = {
            one.name: one.default
            for one in inspect.signature(function).parameters.values()
            if one.name not in {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "verbose"}
        }
        ours = schedule.model_fields
        assert set(ours) == set(theirs), name
        for key, field in ours.items():
            assert field.is_required() == (theirs[key] is inspect.Parameter.empty), (name, key)
            assert field.is_required() or field.default == theirs[key], (name, key)


def test_every_optimizer_of_the_trainer_is_ours_or_explained() -> None:
    from transformers.training_args import OptimizerNames

    for name in {one.value for one in OptimizerNames} - set(OPTIMIZERS):
        assert elsewhere.value("optimizer", name), name


def problem(training: dict[str, Any], method: str = "lora") -> str:
    content = {"model": {"name": "m"}, "data": {"name": "d"}, "method": {"name": method}, "training": training}
    with pytest.raises(ConfigError) as caught:
        recipes.parse(content)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"optim": "adafactr", "learning_rate": 1e-3}, r"training\.optim: .*did you mean 'adafactor'.*known: ada"),
        ({"optim": "paged_adamw_8bit", "learning_rate": 1e-3}, r"training\.optim: .*not supported yet"),
        ({"optim": "AdamW", "learning_rate": 1e-3}, r"training\.optim: .*is called adamw_torch"),
        ({"optim": "lora+", "learning_rate": 1e-3}, r"training\.loraplus_lr_ratio"),
        ({"optim": "sgd"}, r"training: set 'learning_rate'"),
        ({"loraplus_lr_ratio": 16}, r"training: set 'learning_rate'"),
        ({"loraplus_lr_ratio": 0.5, "learning_rate": 1e-3}, r"training\.loraplus_lr_ratio: .*greater than or equal"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 2}},
         r"training\.lr_scheduler_kwargs: 'cosine' has no 'num_cycle' \(did you mean 'num_cycles'\?\); known: num_cycles"),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"num_cycles": 2}}, r"'constant' has no .*known: none"),
        ({"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 1.5}},
         r"training\.lr_scheduler_kwargs: 'num_cycles': input should be a valid integer \(got 1\.5\)"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, r"training\.lr_scheduler_kwargs: set one of 'min_lr' and"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, r"training\.lr_scheduler_kwargs: .*needs 'num_decay_steps'"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"factor": 1.0}}, r"'factor': .*less than"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}, "learning_rate": 1e-3},
         r"'lr_end' has to be below 'learning_rate'"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused_before_anything_is_loaded(training: dict[str, Any], said: str) -> None:
    assert re.search(said, problem(training)), problem(training)


@pytest.mark.parametrize("method", ["full", "linear-probe"])
def test_lora_plus_is_refused_where_nothing_of_loras_trains(method: str) -> None:
    found = problem({"loraplus_lr_ratio": 16, "learning_rate": 1e-3}, method)
    assert found.startswith(f"the recipe: training.loraplus_lr_ratio: {method!r} trains nothing of LoRA's")


# Resumed --------------------------------------------------------------------------------------------------------------

# A falling loss is no gain where more of it is asked for, so that each evaluation lowers the rate.
PLATEAU = {
    "lr_scheduler_type": "reduce_lr_on_plateau",
    "lr_scheduler_kwargs": {"mode": "max", "patience": 0, "factor": 0.5},
}
GREEDY = {"lr_scheduler_type": "greedy", "lr_scheduler_kwargs": {**OPTIONS["greedy"], "patience": 1}}
RESUMED: dict[str, dict[str, Any]] = {
    "adamw_torch": {},
    "adafactor": {"optim": "adafactor"},
    "sgd": {"optim": "sgd", "learning_rate": 0.3},
    "lora+": {"loraplus_lr_ratio": 16.0},
    "plateau": PLATEAU,
    "greedy": GREEDY,
    "wsd": of_schedule("warmup_stable_decay", num_decay_steps=4),
}


def recipe_of(models: Models, train_csv: Path, changes: dict[str, Any]) -> dict[str, Any]:
    training = {
        "learning_rate": 5e-3, "num_train_epochs": 2, "per_device_train_batch_size": 20, "eval_strategy": "steps",
        "eval_steps": 3, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "load_best_model_at_end": False,
    }  # fmt: skip
    return tiny.recipe(models("bert"), train_csv, training=training | changes, method={"lora_dropout": 0.1})


def both(content: dict[str, Any], folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Adapter and rates of the run that nobody stopped, and of the one that was stopped before ``step``."""
    if not (folder / "whole").exists():
        run(content, folder / "whole")
    stopped_and_resumed(content, folder / f"stopped-{step}", step, monkeypatch)
    found = []
    for one in (folder / "whole", folder / f"stopped-{step}"):
        events = [json.loads(line) for line in (one / "history.jsonl").read_text().splitlines()]
        rates = [(event["step"], event["learning_rate"]) for event in events if event["event"] == "step"]
        found.append((files_of(one / "adapter")["adapter_model.safetensors"], rates))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_a_stopped_run_resumes_to_the_same_bytes(
    name: str, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first evaluation, right after one, and in between."""
    content = recipe_of(models, train_csv, RESUMED[name])
    for step in (1, 6, 8):
        whole, stopped = both(content, tmp_path, step, monkeypatch)
        assert whole[0] == stopped[0]
        assert whole[1] == stopped[1]
    if name == "plateau":
        assert len({rate for _, rate in whole[1]}) >= 3, "the rate fell, so there was something to remember"
    newest = max((tmp_path / "whole" / "checkpoints").iterdir())
    assert {path.suffix for path in newest.iterdir()} == {".json", ".safetensors"}
    state = json.loads((newest / "state.json").read_text(), parse_constant=pytest.fail)
    assert ("optimizer" in state) == (name == "adafactor"), "what is no tensor"


@pytest.mark.slow
@pytest.mark.parametrize("forgotten", ["plateau", "adafactor"])
def test_what_is_forgotten_changes_the_bytes(
    forgotten: str, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: without the plateau's state, or without Adafactor's count of steps."""
    content = recipe_of(models, train_csv, RESUMED[forgotten])
    run(content, tmp_path / "whole")
    if forgotten == "plateau":
        monkeypatch.setattr(LearningRate, "load_state", lambda self, state: None)
    else:
        give_back = train.give_back
        monkeypatch.setattr(
            train,
            "give_back",
            lambda kept, *more: give_back({**kept, **{k: 1 for k in kept if k.endswith("step")}}, *more),
        )
    whole, stopped = both(content, tmp_path, 8, monkeypatch)
    assert whole[0] != stopped[0]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4, 7])
def test_patience_survives_a_stop(
    step: int, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped while it is losing patience ends at the same step, with the same bytes."""
    changes = {
        "num_train_epochs": 9, "eval_steps": 2, "early_stopping_patience": 3, "early_stopping_threshold": 0.5,
        "load_best_model_at_end": True,
    }  # fmt: skip
    content = recipe_of(models, train_csv, changes)
    whole, stopped = both(content, tmp_path, step, monkeypatch)
    assert whole == stopped
    ends = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", f"stopped-{step}")]
    assert [one["best_step"] for one in ends] == [ends[0]["best_step"]] * 2
    assert [len(one["epochs"]) for one in ends] == [4, 4], "the first evaluation, and three that gained too little"


# The metric that chooses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "less"),
    [
        ("f1_macro", "macro_f1", False),
        ("eval_f1_macro", "macro_f1", False),
        ("macro_f1", "macro_f1", False),
        ("eval_matthews_corrcoef", "matthews_correlation", False),
        ("balanced_accuracy", "balanced_accuracy", False),
        ("neg_log_loss", "negative_log_likelihood", True),
        ("brier_score_loss", "brier_score", True),
        ("expected_calibration_error", "expected_calibration_error", True),
    ],
)
def test_any_statistic_chooses_by_any_of_its_names(
    given: str, name: str, less: bool, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    """Also those that evaluations leave out; the direction is the statistic's."""
    settings = {"num_train_epochs": 4, "metric_for_best_model": given, "learning_rate": 1e-2}
    metrics = run(tiny.recipe(models("bert"), train_csv, training=settings), tmp_path / "run")
    values = [epoch[f"eval_{name}"] for epoch in metrics["epochs"]]
    assert metrics["tuned"][f"eval_{name}"] == pytest.approx((min if less else max)(values), rel=1e-5)
    assert len(set(values)) > 1, "epochs that are all alike would prove nothing"
    again = recipes.load(tmp_path / "run" / "recipe.toml")
    assert again.training.metric_for_best_model in (given, f"eval_{name}")


def test_a_negated_scorer_keeps_its_direction(models: Models, train_csv: Path, tmp_path: Path) -> None:
    """scikit-learn's neg_log_loss is better where it is greater, which is where the loss is less."""
    values = {}
    for greater in (True, False):
        settings = {
            "num_train_epochs": 4, "metric_for_best_model": "neg_log_loss", "greater_is_better": greater,
            "learning_rate": 1e-2,
        }  # fmt: skip
        metrics = run(tiny.recipe(models("bert"), train_csv, training=settings), tmp_path / str(greater))
        values[greater] = metrics["tuned"]["eval_negative_log_likelihood"]
    losses = [epoch["eval_negative_log_likelihood"] for epoch in metrics["epochs"]]
    assert values[True] == pytest.approx(min(losses), rel=1e-5)
    assert values[False] == pytest.approx(max(losses), rel=1e-5)


def test_an_unknown_metric_is_refused_before_the_model_is_loaded(
    models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_load", lambda *asked: pytest.fail("the model was loaded"))
    content = tiny.recipe(models("bert"), train_csv, training={"metric_for_best_model": "marco_f1"})
    with pytest.raises(
        ConfigError, match=r"best_model: 'marco_f1' .*did you mean 'macro_f1'.*known: .*eval_brier_score"
    ):
        run(content, tmp_path / "run")


def test_aliases_are_scikit_learns() -> None:
    """Each is a function or a scorer there, with the direction that it has here; scipy and seqeval have the others."""
    from sklearn import metrics

    elsewhere_named = {"pearsonr", "spearmanr", "overall_accuracy", "overall_f1", "overall_precision", "overall_recall"}
    seen = 0
    for kind in map(ANSWERS.__getitem__, ANSWERS):
        for statistic in statistics_of(kind):
            for alias in set(statistic.aliases) - elsewhere_named:
                seen += 1
                if alias.startswith("neg_"):
                    assert statistic.less_is_better
                assert alias in metrics.get_scorer_names() or hasattr(metrics, alias), alias
    assert seen >= 10
