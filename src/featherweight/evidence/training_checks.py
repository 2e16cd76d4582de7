"""What of a training a reader must know before any figure: the counterpart of ``data_checks`` after the last step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FEW_STEPS = 200
LEARNED = 0.1  # of what guessing by the shares of the labels costs; less is as good as nothing
IMPROVED = 0.01  # of the validation loss; less is what it wavers by


def warnings(
    losses: Sequence[float],
    steps: int,
    training: Mapping[str, Any],
    *,
    trained: tuple[float, float] | None = None,
    ahead: Sequence[str] = (),
    rate_is_given: bool = True,
) -> list[str]:
    """One sentence each, with the settings that would change it.

    Args:
        losses: validation loss of each evaluation while training.
        steps: optimizer steps that were made.
        training: the recipe's section.
        trained: the last training loss, and what knowing nothing but train's truth would have.
        ahead: the cheaper rivals that are shown to be better than the tuned model.
        rate_is_given: whether the recipe sets the learning rate, rather than leaving it to be chosen.
    """
    learned_nothing = _learned_nothing(trained, training, rate_is_given)
    return [
        *(learned_nothing or _still_improved(losses, training)),
        *_few_steps(steps, training),
        *([] if learned_nothing else _behind(ahead, training, rate_is_given)),
    ]


def _learned_nothing(
    trained: tuple[float, float] | None, training: Mapping[str, Any], rate_is_given: bool
) -> list[str]:
    if trained is None or trained[0] < (1 - LEARNED) * trained[1]:
        return []
    return [
        f"Training hardly learned anything (its loss ended at {trained[0]:.4f}; that of answering without a look at "
        f"the text is {trained[1]:.4f}): {_remedy(training, rate_is_given)}."
    ]


def _behind(ahead: Sequence[str], training: Mapping[str, Any], rate_is_given: bool) -> list[str]:
    if not ahead:
        return []
    remedy = _remedy(training, rate_is_given)
    return [f"The tuned model ends behind {ahead[0]}, which is cheaper: {remedy}; or ship the cheaper one."]


def _remedy(training: Mapping[str, Any], rate_is_given: bool) -> str:
    if rate_is_given:
        return (
            f"leave training.learning_rate (now {training['learning_rate']:g}) and what goes with it out, and they are "
            "chosen for the data"
        )
    return f"try a larger {_length(training)}"


def _still_improved(losses: Sequence[float], training: Mapping[str, Any]) -> list[str]:
    if len(losses) < 2 or losses[-1] > (1 - IMPROVED) * min(losses[:-1]):
        return []
    return [
        f"Training still improved at its last evaluation (validation loss {losses[-2]:.4f}, then {losses[-1]:.4f}): "
        f"try a larger {_length(training)}, or a higher training.learning_rate (now {training['learning_rate']:g})."
    ]


def _few_steps(steps: int, training: Mapping[str, Any]) -> list[str]:
    if steps >= FEW_STEPS:
        return []
    keys = ("gradient_accumulation_steps", "per_device_train_batch_size")
    smaller = [f", or a smaller training.{key} (now {training[key]})" for key in keys if training[key] > 1][:1]
    return [f"Only {steps:,} optimizer steps were made: try a larger {_length(training)}{''.join(smaller)}."]


def _length(training: Mapping[str, Any]) -> str:
    """The setting that says how long training is."""
    key = "max_steps" if training["max_steps"] > 0 else "num_train_epochs"
    return f"training.{key} (now {training[key]:g})"
