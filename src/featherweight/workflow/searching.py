"""Which settings to try next, when to give one up, and which keys mattered: Optuna's answers.

Optuna remembers nothing here. For every question it is told of all trials so far, and what it draws depends on the seed
and on the trial's number alone, so a sweep that was killed goes on from its own records to the same settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from featherweight.errors import ConfigError
from featherweight.process.quiet import quiet
from featherweight.recipe import Range
from featherweight.records.sweeps import Evaluated, Importance, Trial

Parameter = Range | list[Any]
Settings = dict[str, Any]

_BY_CHANCE = 5  # trials before the sampler looks at what the others gave
_BEFORE_PRUNING = 4  # complete trials of the same length
_FEWEST_FOR_IMPORTANCE = 8  # complete trials
_TRIES = 20  # to draw settings that are new
_MOST_COMBINATIONS = 100_000
_FIRST = "method.name"  # says which other keys there are
_THOUSANDTHS = 1000  # Optuna counts evaluations in whole numbers, and epochs are none


class Search:
    """Tree-structured Parzen estimator (Bergstra et al., 2011) and median pruning (Golovin et al., 2017).

    Args:
        parameters: dotted key to what it may be.
        applies: whether a key means something beside settings that were chosen already.
        seed: of all that is drawn.
        less_is_better: of the value that trials are compared by.

    Raises:
        ConfigError: Optuna is not installed.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        applies: Callable[[str, Mapping[str, Any]], bool],
        seed: int,
        less_is_better: bool,
    ) -> None:
        self._optuna = require_package()
        self.parameters = {key: parameters[key] for key in sorted(parameters, key=lambda key: key != _FIRST)}
        self._applies = applies
        self._seed = seed
        self._less_is_better = less_is_better

    def next(self, trials: Sequence[Trial], running: Sequence[Settings] = ()) -> Settings | None:
        """Settings that no trial had yet; None where every combination was tried.

        Args:
            trials: those that ended.
            running: the settings of those that have not.
        """
        tried = [*(one["settings"] for one in trials), *running]
        for again in range(_TRIES):
            if (drawn := self._drawn(trials, self._number(len(tried), again))) not in tried:
                return drawn
        left = [one for one in self._combinations() if one not in tried]
        return left[self._number(len(tried), _TRIES) % len(left)] if left else None

    def is_hopeless(self, trials: Sequence[Trial], epochs: float, evaluations: Sequence[Evaluated]) -> bool:
        """Whether a trial in progress is worse than the median of those before it that were to last as long, at the
        same epoch."""
        pruner = self._optuna.pruners.MedianPruner(n_startup_trials=_BEFORE_PRUNING, n_min_trials=_BEFORE_PRUNING)
        with quiet("optuna"):
            study = self._study([one for one in trials if math.isclose(one["epochs"], epochs, rel_tol=1e-3)])
            running = self._optuna.trial.create_trial(
                state=self._optuna.trial.TrialState.RUNNING, intermediate_values=_by_epoch(evaluations)
            )
            return bool(pruner.prune(study, running))

    def importance(self, trials: Sequence[Trial]) -> Importance | None:
        """By functional ANOVA (Hutter et al., 2014): the share of the variance of a random forest, fitted to the
        complete trials, that each key explains alone."""
        complete = [one for one in trials if one["state"] == "complete"]
        if len(complete) < _FEWEST_FOR_IMPORTANCE or len({one["value"] for one in complete}) == 1:
            return None
        evaluator = self._optuna.importance.FanovaImportanceEvaluator(seed=self._seed)
        with quiet("optuna"):
            found = self._optuna.importance.get_param_importances(self._study(complete), evaluator=evaluator)
        shares = {key: float(share) for key, share in found.items()}
        return {"method": "fANOVA", "trials": len(complete), "shares": shares} if shares else None

    def _drawn(self, trials: Sequence[Trial], seed: int) -> Settings:
        sampler = self._optuna.samplers.TPESampler(n_startup_trials=_BY_CHANCE, seed=seed)
        with quiet("optuna"):
            trial = self._study(trials, sampler).ask()
            chosen: Settings = {}
            for key, parameter in self.parameters.items():
                if self._applies(key, chosen):
                    chosen[key] = self._asked(trial, key, parameter)
        return chosen

    def _number(self, trials: int, again: int) -> int:
        """A seed of this draw's own, behind so many trials."""
        return int(np.random.SeedSequence([self._seed, trials, again]).generate_state(1)[0])

    def _asked(self, trial: Any, key: str, parameter: Parameter) -> Any:
        if isinstance(parameter, list):  # by place, for Optuna takes no lists or tables as values
            return parameter[trial.suggest_categorical(key, range(len(parameter)))]
        ask = trial.suggest_int if parameter.is_whole else trial.suggest_float
        step = {} if parameter.step is None else {"step": parameter.step}
        value = ask(key, parameter.low, parameter.high, log=parameter.log, **step)
        if parameter.is_whole:
            return value
        return min(max(float(f"{value:.6g}"), parameter.low), parameter.high)  # as people write it

    def _combinations(self) -> list[Settings]:
        """Every combination, where there are few; none where they can't be counted."""
        several = [_values(one) for one in self.parameters.values()]
        if any(one is None for one in several) or math.prod(len(one or ()) for one in several) > _MOST_COMBINATIONS:
            return []
        found: list[Settings] = []
        for values in itertools.product(*(one or () for one in several)):
            chosen: Settings = {}
            for key, value in zip(self.parameters, values, strict=True):
                if self._applies(key, chosen):
                    chosen[key] = value
            if chosen not in found:
                found.append(chosen)
        return found

    def _study(self, trials: Sequence[Trial], sampler: Any = None) -> Any:
        direction = "minimize" if self._less_is_better else "maximize"
        study = self._optuna.create_study(direction=direction, sampler=sampler)
        study.add_trials([self._told(one) for one in trials if one["state"] != "failed"])
        return study

    def _told(self, trial: Trial) -> Any:
        """A trial as Optuna has it, with those of its settings that the sweep could have drawn."""
        states = self._optuna.trial.TrialState
        distributions, params = {}, {}
        for key, value in trial["settings"].items():
            parameter = self.parameters[key]
            if isinstance(parameter, list):
                if value in parameter:
                    distributions[key] = self._optuna.distributions.CategoricalDistribution(range(len(parameter)))
                    params[key] = parameter.index(value)
            elif parameter.holds(value):
                kinds = self._optuna.distributions
                kind = kinds.IntDistribution if parameter.is_whole else kinds.FloatDistribution
                step = {} if parameter.step is None else {"step": parameter.step}
                distributions[key] = kind(parameter.low, parameter.high, log=parameter.log, **step)
                params[key] = value
        complete = trial["state"] == "complete"
        return self._optuna.trial.create_trial(
            state=states.COMPLETE if complete else states.PRUNED,
            value=trial["value"],
            params=params,
            distributions=distributions,
            intermediate_values=_by_epoch(trial["evaluations"]),
        )


def require_package() -> Any:
    """Optuna. Raises ConfigError with what installs it."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("sweep: Optuna is not installed; pip install 'featherweight[sweep]'") from None
    return optuna


def _by_epoch(evaluations: Sequence[Evaluated]) -> dict[int, float]:
    return {round(_THOUSANDTHS * one["epoch"]): one["value"] for one in evaluations}


def _values(parameter: Parameter) -> list[Any] | None:
    """All that it can be; None where that is no short list."""
    if isinstance(parameter, list):
        return parameter
    if not parameter.is_whole or parameter.high - parameter.low > _MOST_COMBINATIONS:
        return None
    return list(range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1)))
