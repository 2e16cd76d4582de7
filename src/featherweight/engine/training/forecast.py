"""What a run will take, from a few of its own steps: measured, not guessed. Nothing of them is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featherweight.engine.hardware import peak_memory_bytes
from featherweight.engine.training import randomness
from featherweight.engine.training.train import Trainer

_REHEARSED = 8
_WARM_UP = 2
_ROUNDS = 5
_ENOUGH_SECONDS = 5.0  # of rounds: a machine is busy with something else for a moment, seldom for so long


@dataclass(frozen=True)
class Forecast:
    """A run's cost.

    Attributes:
        steps: optimizer steps.
        train_seconds: all of them.
        spread: how far single steps were from the fitted line, as a share of the mean step; the doubt in the figure.
        peak_memory_bytes: of this process after the largest step.
        tokens: real tokens of all steps.
        padding_avoided: share of what padded batches would have multiplied that is padding.
    """

    steps: int
    train_seconds: float
    spread: float
    peak_memory_bytes: int
    tokens: int
    padding_avoided: float

    @property
    def step_seconds(self) -> float:
        """Of a step, in the mean."""
        return self.train_seconds / self.steps

    def of(self, steps: int) -> Forecast:
        """The same of the first so many steps."""
        share = steps / self.steps
        return replace(self, steps=steps, train_seconds=share * self.train_seconds, tokens=round(share * self.tokens))


def forecast(trainer: Trainer) -> Forecast:
    """Run a few steps of unlike size, the largest among them, and fit seconds = a + b * tokens (least squares).

    The model and the random states are afterwards as they were; the trainer is not.
    """
    before = randomness.capture()
    kept = {name: value.detach().clone() for name, value in trainer.trained.items()}
    try:
        return _forecast(trainer)
    finally:
        trainer.put_back(kept)
        randomness.restore(before)


def _forecast(trainer: Trainer) -> Forecast:
    schedule = trainer.schedule
    in_an_epoch = range(min(trainer.total_steps, schedule.steps_per_epoch))
    real, padded = (np.asarray(column) for column in zip(*map(trainer.tokens_of_step, in_an_epoch), strict=True))
    order = np.argsort(real)
    positions = np.linspace(0, len(order) - 1, min(_REHEARSED, len(order))).round().astype(int)
    chosen = order[positions]
    warm_up = [order[-1]] * _WARM_UP  # the largest first, so that memory is at its peak before anything is timed
    for step in warm_up:
        trainer.rehearse(int(step))
    sizes, times = real[chosen].astype(float), _timed(trainer, chosen)
    fixed, slope = _fit(sizes, times)
    tokens = float(real.sum()) * trainer.total_steps / len(in_an_epoch)
    return Forecast(
        steps=trainer.total_steps,
        train_seconds=fixed * trainer.total_steps + slope * tokens,
        spread=float(np.abs(fixed + slope * sizes - times).mean() / times.mean()),
        peak_memory_bytes=peak_memory_bytes(),
        tokens=round(tokens),
        padding_avoided=1 - float(real.sum() / padded.sum()),
    )


def _timed(trainer: Trainer, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds of each of these steps: the median of rounds in unlike order, one where the steps are long."""
    order, begun = np.random.default_rng(0), time.perf_counter()
    rounds: list[NDArray[np.float64]] = []
    while trainer.fleet.share(not rounds or (len(rounds) < _ROUNDS and time.perf_counter() - begun < _ENOUGH_SECONDS)):
        times = np.zeros(len(steps))
        for place in order.permutation(len(steps)):
            started = time.perf_counter()
            trainer.rehearse(int(steps[place]))
            times[place] = time.perf_counter() - started
        rounds.append(times)
    return np.asarray(np.median(rounds, axis=0))


def _fit(sizes: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[float, float]:
    """Intercept and slope, neither negative."""
    if len(np.unique(sizes)) < 2:
        return 0.0, float(times.sum() / sizes.sum())
    slope, fixed = np.polyfit(sizes, times, 1)
    if fixed < 0 or slope < 0:
        return 0.0, float(times.sum() / sizes.sum())
    return float(fixed), float(slope)
