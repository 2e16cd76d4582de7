"""What is chosen for a recipe that leaves its learning rate open: few rules, each with its reason.

A recipe that sets ``training.learning_rate`` has thought about its training: whatever else it leaves open keeps the
meaning that it has in ``TrainingArguments`` and PEFT. Where the rate is left open too, what goes with a rate is chosen
with it, from the method, the model and the size of the data; a key that the recipe does set stays as it is in any case.
The figures behind the rules are in ``docs/defaults.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featherweight.recipe import Recipe, TrainingSection
from featherweight.registry import METHODS

WARM_UP = 0.06
HEAD_STEP = 0.2  # how far the head's first steps may move a logit
EPOCHS = 2
MOST_STEPS = 10_000
MOST_EPOCHS = 50
LONGER = 4  # how much further a time limit may go, where there is time
MOST_EVALUATIONS = 6

RATES = (3.0, 0.3)  # times the learning rate that a recipe comes to
LONGER_BY = 2.0

Choices = Mapping[str, tuple[Any, str]]


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    Attributes:
        rows: of train.
        width: of the model's hidden states.
        head_input: mean L1 norm of what the head reads; None where that is not known.
        best: the metric that chooses the checkpoint for the kind of answer.
        fewest_steps: that the kind of answer takes to be learned.
        processes: that share a batch, each with as many rows as the recipe says.
    """

    rows: int
    width: int
    head_input: float | None
    best: str = "eval_loss"
    fewest_steps: int = 300
    processes: int = 1


def choose_head(recipe: Recipe, is_fresh: bool) -> tuple[Recipe, dict[str, str]]:
    """The recipe with what its head begins at, and the reason.

    Args:
        is_fresh: whether the model has no head that was trained for these labels.
    """
    if recipe.training.learning_rate is not None or not is_fresh:
        return recipe, {}
    return _laid_over(recipe, "model", {"head": ("probe", "a fresh head that begins at a linear probe learns sooner")})


def choose(recipe: Recipe, facts: Facts) -> tuple[Recipe, dict[str, str]]:
    """The recipe with what it left open of the training, and the reason of each choice by dotted key."""
    choices: dict[str, tuple[Any, str]] = {"metric_for_best_model": (facts.best, f"for {recipe.task}")}
    if recipe.training.learning_rate is None:
        choices |= METHODS[recipe.method.name](recipe.method).rates(facts.width)
        choices |= {**_head(facts), **_length(recipe.training, facts)}
        if recipe.training.early_stopping_patience is None and recipe.training.schedule.falls:
            choices["load_best_model_at_end"] = (False, "the rate falls to zero, so the last weights are the best bet")
    return _laid_over(recipe, "training", choices)


def search(recipe: Recipe) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """The few keys that matter most for what a recipe comes to, at values about its own: the learning rate above all,
    how long it trains, and the method's own. The first settings differ from the recipe in one key each.

    Args:
        recipe: as resolved, with every default.

    Returns:
        Values by dotted key, the recipe's own first; and the first settings.
    """
    training = recipe.training
    assert training.learning_rate is not None
    rates = [float(f"{factor * training.learning_rate:.2g}") for factor in RATES]
    values = {"training.learning_rate": [training.learning_rate, *rates]}
    if training.max_steps <= 0 and training.time_limit is None:
        values["training.num_train_epochs"] = [training.num_train_epochs, LONGER_BY * training.num_train_epochs]
    for key, others in METHODS[recipe.method.name](recipe.method).worth_trying().items():
        values[f"method.{key}"] = [getattr(recipe.method, key), *others]
    return values, [{key: one} for key, (_, *others) in values.items() for one in others]


def said(recipe: Recipe, reasons: Mapping[str, str]) -> str | None:
    """What was chosen, in a line; None where the recipe says how it trains."""
    if "training.learning_rate" not in reasons:
        return None
    training = recipe.training
    parts = [f"learning_rate {training.learning_rate:g}"]
    if training.head_learning_rate is not None:
        parts.append(f"of the head {training.head_learning_rate:g}")
    if training.max_steps <= 0:
        parts.append(f"{training.num_train_epochs:g} epochs")
    if recipe.model.head == "probe":
        parts.append("head from a linear probe")
    return f"chosen: {', '.join(parts)}"


def _head(facts: Facts) -> Choices:
    if facts.head_input is None:
        return {}
    rate = float(f"{HEAD_STEP / facts.head_input:.1e}")  # two digits are the same on every machine
    return {"head_learning_rate": (rate, f"moves a logit by {HEAD_STEP} a step: what the head reads is of that size")}


def _length(training: TrainingSection, facts: Facts) -> Choices:
    """Two passes over train, more where few rows make few steps, one where many make many."""
    batches = -(-facts.rows // (training.per_device_train_batch_size * facts.processes))
    steps = -(-batches // training.gradient_accumulation_steps)
    epochs, reason = EPOCHS, f"{EPOCHS} passes are {EPOCHS * steps:,} steps"
    if EPOCHS * steps < facts.fewest_steps:
        epochs = min(-(-facts.fewest_steps // steps), MOST_EPOCHS)
        reason = f"{facts.rows:,} rows, at {steps:,} steps a pass, take more passes than {EPOCHS}"
    elif EPOCHS * steps > MOST_STEPS:
        epochs, reason = 1, f"one pass is {steps:,} steps"
    if training.time_limit is not None:
        epochs, reason = LONGER * epochs, f"{reason}; {LONGER} times as often where there is time"
    choices: dict[str, tuple[Any, str]] = {"num_train_epochs": (float(epochs), reason)}
    given = training.model_fields_set
    passes = training.num_train_epochs if "num_train_epochs" in given else epochs
    total = training.max_steps if training.max_steps > 0 else passes * steps
    if WARM_UP * total > 1:  # the first step of a warm-up does nothing, which a run of few steps can't spare
        choices["warmup_ratio"] = (WARM_UP, "an optimizer's first steps are its least certain")
    every = -(-epochs // MOST_EVALUATIONS)
    if every > 1 and not given & {"num_train_epochs", "max_steps"}:
        choices["eval_strategy"] = ("steps", f"{MOST_EVALUATIONS} evaluations of {epochs} epochs tell enough")
        choices["eval_steps"] = (every * steps, f"every {every} epochs")
    return choices


def _laid_over(recipe: Recipe, section: str, choices: Choices) -> tuple[Recipe, dict[str, str]]:
    """The recipe with those choices whose keys it does not set."""
    open_keys = choices.keys() - getattr(recipe, section).model_fields_set
    values = {key: choices[key][0] for key in open_keys}
    reasons = {f"{section}.{key}": f"chosen automatically: {choices[key][1]}" for key in sorted(open_keys)}
    return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=values)}), reasons
