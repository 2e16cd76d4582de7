"""What each ``lr_scheduler_type`` takes in ``lr_scheduler_kwargs``, by the names and defaults of transformers.

The schedules are transformers' own and are made when training begins; what they take stands here, so that a typo is
found before anything is loaded. A test holds names and defaults to theirs. Left out are ``last_epoch``, which resuming
sets, and GreedyLR's ``verbose``, which prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from featherweight.recipe.section import Section
from featherweight.recipe.values import NonNegativeFloat, PositiveFloat, PositiveInt
from featherweight.registry import did_you_mean

Share = Annotated[float, Field(ge=0, le=1)]
Shrinking = Annotated[float, Field(gt=0, lt=1)]
Steps = Annotated[int, Field(ge=0)]
Ramp = Literal["linear", "cosine", "1-sqrt"]


class Schedule(Section):
    """A schedule that takes nothing.

    Attributes:
        falls: whether the rate is low at the end of every run.
        by_metric: whether the rate follows ``metric_for_best_model`` from evaluation to evaluation, not the steps.
    """

    falls: ClassVar[bool] = False
    by_metric: ClassVar[bool] = False


class Falling(Schedule):
    falls: ClassVar[bool] = True


class Cosine(Falling):
    num_cycles: PositiveFloat = 0.5


class Restarts(Falling):
    num_cycles: PositiveInt = 1


class Polynomial(Falling):
    lr_end: NonNegativeFloat = 1e-7
    power: PositiveFloat = 1.0


class InverseSqrt(Schedule):
    timescale: PositiveInt | None = None


class CosineToLeast(Cosine):
    min_lr: NonNegativeFloat | None = None
    min_lr_rate: Share | None = None

    @model_validator(mode="after")
    def _one_least(self) -> CosineToLeast:
        if (self.min_lr is None) == (self.min_lr_rate is None):
            raise ValueError("set one of 'min_lr' and 'min_lr_rate'")
        return self


class WarmCosineToLeast(CosineToLeast):
    warmup_lr_rate: Share | None = None


class WarmupStableDecay(Falling):
    num_decay_steps: Steps
    num_stable_steps: Steps | None = None
    warmup_type: Ramp = "linear"
    decay_type: Ramp = "cosine"
    min_lr_ratio: Share = 0.0
    num_cycles: PositiveFloat = 0.5


class ReduceOnPlateau(Schedule):
    """``torch.optim.lr_scheduler.ReduceLROnPlateau``; ``mode`` is the metric's direction where it is left out."""

    by_metric: ClassVar[bool] = True
    mode: Literal["min", "max"] = "min"
    factor: Shrinking = 0.1
    patience: Steps = 10
    threshold: NonNegativeFloat = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Steps = 0
    min_lr: NonNegativeFloat = 0.0
    eps: NonNegativeFloat = 1e-8


class Greedy(Schedule):
    """``transformers.optimization.GreedyLR``; ``mode`` as above."""

    by_metric: ClassVar[bool] = True
    mode: Literal["min", "max"] = "min"
    factor: Shrinking = 0.95
    patience: Steps = 10
    threshold: NonNegativeFloat = 1e-6
    threshold_mode: Literal["rel", "abs"] = "abs"
    cooldown: Steps = 0
    warmup: Steps = 0
    min_lr: NonNegativeFloat = 1e-3
    max_lr: PositiveFloat = 1.0
    eps: NonNegativeFloat = 1e-8
    smooth: bool = False
    window_size: PositiveInt = 50
    reset_start: PositiveInt = 500


SCHEDULES: Mapping[str, type[Schedule]] = {
    "linear": Falling,
    "cosine": Cosine,
    "cosine_with_restarts": Restarts,
    "polynomial": Polynomial,
    "constant": Schedule,
    "constant_with_warmup": Schedule,
    "inverse_sqrt": InverseSqrt,
    "reduce_lr_on_plateau": ReduceOnPlateau,
    "cosine_with_min_lr": CosineToLeast,
    "cosine_warmup_with_min_lr": WarmCosineToLeast,
    "warmup_stable_decay": WarmupStableDecay,
    "greedy": Greedy,
}


def schedule_of(name: str, given: Mapping[str, Any] | None) -> Schedule:
    """The options of the schedule ``name``. Raises ValueError with one line where it does not take what is given, or
    lacks something."""
    schedule = SCHEDULES[name]
    try:
        return schedule.model_validate(dict(given or {}))
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
    key = ".".join(map(str, finding["loc"]))
    what = finding["msg"].removeprefix("Value error, ")
    if finding["type"] == "extra_forbidden":
        what = f"{name!r} has no {key!r}{did_you_mean(key, schedule.model_fields)}"
    elif finding["type"] == "missing":
        what = f"{name!r} needs {key!r}"
    elif key:
        what = f"{key!r}: {what[:1].lower()}{what[1:]} (got {finding['input']!r})"
    raise ValueError(f"{what}; known: {', '.join(schedule.model_fields) or 'none'}")
