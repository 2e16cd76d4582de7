"""One trial of a sweep: a run as far as its last step, ended before where it is hopeless or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from featherweight.errors import FeatherweightError, Interrupted, OutOfMemory, ResourceError, first_line
from featherweight.process.signals import Stop
from featherweight.recipe import Recipe, TrainingSection
from featherweight.records.sweeps import Evaluated, Trial
from featherweight.records.training import EpochRecord, TrainingResult
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.collecting import TIMINGS
from featherweight.workflow.running import Sitting, train_only

_LONGEST_REASON = 300  # characters


@dataclass
class Watch:
    """What is looked at while a trial trains.

    Attributes:
        directory: the trial's.
        compared_by: the figure that trials are compared by.
        is_hopeless: of the epochs that the trial is to last and its evaluations so far, whether to give it up.
        until: when the time is up, by :func:`time.perf_counter`.
        epochs: passes over train that the trial is to make; 0 until it trains.
        gives_up: whether it was found hopeless.
    """

    directory: RunDirectory
    compared_by: str
    is_hopeless: Callable[[float, Sequence[Evaluated]], bool]
    until: float = float("inf")
    epochs: float = 0.0
    gives_up: bool = False

    def observe(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "stepping":
            self.epochs = event["epoch"] * event["steps"] / event["step"]
        elif event["event"] == "evaluation":
            self.gives_up = self.is_hopeless(self.epochs, self.evaluations())

    def enough(self) -> bool:
        return self.gives_up or time.perf_counter() > self.until

    def evaluations(self) -> list[Evaluated]:
        """All so far, those before a kill among them."""
        found = [event for event in self.directory.read_history() if event["event"] == "evaluation"]
        return [
            {"epoch": one["epoch"], "step": one["step"], "value": one["metrics"][self.compared_by]} for one in found
        ]

    def why(self) -> tuple[Literal["pruned", "stopped"], str]:
        """Why it was enough."""
        seen = self.evaluations()
        at = f"after {seen[-1]['epoch']:g} of {self.epochs:g} epochs" if seen else "before its first evaluation"
        if self.gives_up:
            return "pruned", f"worse than the median of the trials before it {at}"
        return "stopped", f"the time was up {at}"


def try_out(
    recipe: Callable[[], Recipe], number: int, settings: Mapping[str, Any], watch: Watch, sitting: Sitting, stop: Stop
) -> Trial:
    """Train by the recipe in the watched folder, and say what came of it.

    A trial that can't be, or fails in whatever way, is a result like any other. Trial 0 is the recipe as it stands:
    what is wrong with that is wrong with all, so only what goes wrong while it trains is a result.

    Args:
        recipe: gives it, or raises ConfigError where the settings don't go together.

    Raises:
        Interrupted: a stop was asked for.
        ResourceError: the disk is full or can't be written.
        FeatherweightError: trial 0 can't begin.
    """
    started = time.perf_counter()
    trial = unmade(number, settings)
    try:
        watched = replace(
            sitting, observe=watch.observe, enough=watch.enough, keep_failed=lambda: number > 0 or watch.epochs > 0
        )
        result, followed = train_only(recipe(), watch.directory, watched)
    except Interrupted:
        if stop():
            raise
        trial["state"], trial["reason"] = watch.why()
    except Exception as error:
        if _ends_all(error, is_first=number == 0, began=watch.epochs > 0):
            raise
        trial["state"], trial["reason"] = "failed", _reason(error)
    else:
        published = _published(result, followed)
        trial["value"] = published.metrics[watch.compared_by]
        trial["figures"] = {key: value for key, value in published.metrics.items() if key not in TIMINGS}
        trial["candidates"] = len(result.epochs) if followed.load_best_model_at_end else 1
    trial["evaluations"] = watch.evaluations()
    trial["epochs"] = watch.epochs or (trial["evaluations"][-1]["epoch"] if trial["evaluations"] else 0.0)
    trial["seconds"] = time.perf_counter() - started
    return trial


def unmade(number: int, settings: Mapping[str, Any]) -> Trial:
    """A trial of which nothing is known yet."""
    return {
        "number": number, "settings": dict(settings), "state": "complete", "reason": None, "value": None, "figures": {},
        "candidates": 1, "evaluations": [], "epochs": 0.0, "seconds": 0.0,
    }  # fmt: skip


def _ends_all(error: Exception, *, is_first: bool, began: bool) -> bool:
    """Whether it is not the trial that is at fault."""
    if isinstance(error, ResourceError) and not isinstance(error, OutOfMemory):
        return True
    return is_first and not began


def _reason(error: Exception) -> str:
    said = (
        first_line(error) if isinstance(error, FeatherweightError) else f"{type(error).__name__}: {first_line(error)}"
    )
    return " ".join(said.partition("; continue with: ")[0].split())[:_LONGEST_REASON]


def _published(result: TrainingResult, followed: TrainingSection) -> EpochRecord:
    """The evaluation of the weights that would be published."""
    if not followed.load_best_model_at_end:
        return result.epochs[-1]
    return next(one for one in result.epochs if one.step == result.best_step)
