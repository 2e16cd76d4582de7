"""The learning rate from step to step, or from evaluation to evaluation, by transformers' own schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from featherweight.errors import ConfigError
from featherweight.recipe import TrainingSection


class LearningRate:
    """The schedule that ``lr_scheduler_type`` names.

    Args:
        optimizer: whose groups have their peak rates.
        steps: optimizer steps of the whole run, warm-up included.
        greater_is_better: of ``metric_for_best_model``, which some schedules follow.

    Raises:
        ConfigError: transformers refuses the schedule's options.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, settings: TrainingSection, steps: int, greater_is_better: bool
    ) -> None:
        from transformers import get_scheduler

        options = dict(settings.lr_scheduler_kwargs or {})
        self._by_metric = settings.schedule.by_metric
        if self._by_metric:
            options.setdefault("mode", "max" if greater_is_better else "min")
        warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * steps)
        try:
            self._scheduler = get_scheduler(
                settings.lr_scheduler_type, optimizer, warmup, steps, scheduler_specific_kwargs=options
            )
        except ValueError as error:
            raise ConfigError(f"training.lr_scheduler_kwargs: {error}") from None

    @property
    def now(self) -> list[float]:
        """Of each parameter group."""
        return list(map(float, self._scheduler.get_last_lr()))

    def after_step(self) -> None:
        """An optimizer step was made."""
        if not self._by_metric:
            self._scheduler.step()

    def after_evaluation(self, value: float) -> None:
        """``metric_for_best_model`` was measured."""
        if self._by_metric:
            self._scheduler.step(value)

    def state(self) -> dict[str, Any]:
        """For a checkpoint. What is infinite is so from the beginning, and JSON has no word for it."""
        return {key: value for key, value in self._scheduler.state_dict().items() if not _is_infinite(value)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._scheduler.load_state_dict(self._scheduler.state_dict() | state)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)
