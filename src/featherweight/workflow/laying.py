"""A schedule laid for the minutes that ``training.time_limit`` gives: how many steps end by then, on this machine."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError
from featherweight.recipe import seconds_of
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.preparing import SELECTION_SPLIT, Prepared
from featherweight.workflow.training import rehearse

if TYPE_CHECKING:
    from featherweight.engine.training.forecast import Forecast

EVENT = "laid"
_RESERVE = 0.04  # of the time: what single steps waver by, and checkpoints


def lay(prepared: Prepared, directory: RunDirectory, base: Mapping[str, Any], console: Console) -> None:
    """Settle how many steps the time is enough for.

    A few steps are made to see what they take, and the model is put back as it was. A resumed run takes the number that
    it began with, whatever the machine does now, so that it ends with the same bytes.

    Args:
        base: the history's event of the base model, whose evaluation was timed.

    Raises:
        ConfigError: not one step ends by then.
    """
    events = [event for event in directory.read_history() if event["event"] == EVENT]
    event = events[0] if events else _laid(prepared, base)
    if not events:
        directory.append_history(event)
    prepared.laid_steps = event["steps"]
    prepared.reasons["training.max_steps"] = event["reason"]
    console.say(f"training.time_limit: {event['reason']}")


def steps_within(limit: str, found: Forecast, evaluation: float, evaluations: Callable[[int], int]) -> int:
    """How many of the forecast steps end within a time, with the evaluations that they come with.

    Args:
        limit: as the recipe has it, such as "10 min".
        evaluation: seconds of one.
        evaluations: how many there are in so many steps.

    Raises:
        ConfigError: not one step and the evaluation after it end by then.
    """

    def seconds(steps: int) -> float:
        return steps * found.step_seconds + evaluations(steps) * evaluation

    steps = bisect_right(range(1, found.steps + 1), (1 - _RESERVE) * seconds_of(limit), key=seconds)
    if steps == 0:
        raise ConfigError(
            f"training.time_limit: {limit} is not enough for one step ({found.step_seconds:.1f} s) and the evaluation "
            f"after it ({evaluation:.1f} s); give it more, or lower data.max_eval_samples"
        )
    return steps


def _laid(prepared: Prepared, base: Mapping[str, Any]) -> dict[str, Any]:
    limit = str(prepared.recipe.training.time_limit)
    trainer, found = rehearse(prepared)
    evaluation: float = base["metrics"][SELECTION_SPLIT]["eval_runtime"]
    steps = steps_within(limit, found, evaluation, trainer.evaluations_within)
    measured = f"a step takes {found.step_seconds:.3g} s here, an evaluation {evaluation:.3g} s"
    reason = f"{limit} are enough for {steps:,} of {found.steps:,} steps: {measured}"
    return {"event": EVENT, "steps": steps, "reason": reason}
