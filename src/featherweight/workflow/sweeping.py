"""Many settings of one recipe: each tried as far as its training goes, the best published beside the recipe itself.

Trials are compared on validation, and nothing else chooses. What a sweep says of its winner is measured on rows that no
trial was compared by, in pairs with the recipe as it stands.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from featherweight import recipe as recipes
from featherweight.answers import Answer, headline
from featherweight.errors import ConfigError, DivergedError, Interrupted
from featherweight.process import launch
from featherweight.process.signals import Stop, stop_on_signals
from featherweight.recipe import Recipe, SweepSection, TrainingSection, sweeping
from featherweight.records.sweeps import Budget, Evaluated, Trial
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.storage.whole import held, link, remove_folder, write_folder
from featherweight.workflow import best_metric, defaults, reading
from featherweight.workflow.once import Once
from featherweight.workflow.preparing import prepare, read_rows
from featherweight.workflow.resuming import explained, multiplying_as
from featherweight.workflow.running import TRAINED, Sitting, carry_out
from featherweight.workflow.searching import Search, Settings, require_package
from featherweight.workflow.trying import Watch, try_out

EndedBy: TypeAlias = Literal["trials", "time", "nothing left"]

WINNER, DEFAULT = "winner", "default"
TEST_FRACTION = 0.2
_TRIALS = 20
_DEFAULTS_TIME = "15 min"
_PUBLISHING = 10.0  # seconds of loading, writing and reading back, beside the evaluations of a run that is published


def sweep(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    defaults: bool = False,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
    continue_with: str | None = None,
) -> dict[str, Any]:
    """Try settings of a recipe, publish the best and compare it with the recipe as it stands.

    Args:
        recipe: with what is tried, and for how long, in its ``sweep``.
        output_dir: where trials, ``winner``, ``sweep.json`` and ``report.html`` go; ``runs/<recipe's name>-sweep`` if
            None.
        defaults: try the few keys that matter most, whatever ``sweep.parameters`` says.
        resume: go on where a sweep was stopped or killed, or with a finished one that is to have more trials.
        force, continue_with: as for :func:`featherweight.workflow.run`.

    Returns:
        The content of ``sweep.json``.

    Raises:
        FeatherweightError: the recipe as it stands can't be run; no trial trained to its end; the disk is full; a
            ConfigError also for what is tried, for the folder, and where Optuna is not installed.
    """
    sitting = Sitting(console or Console(quiet=True), resume, force, continue_with)
    return carry_out_all(recipe, output_dir, sitting, defaults, Sweeping.try_others)


def carry_out_all(
    recipe: Recipe,
    output_dir: str | Path | None,
    sitting: Sitting,
    defaults: bool,
    others: Callable[[Sweeping], EndedBy],
) -> dict[str, Any]:
    """:func:`sweep`.

    Args:
        others: makes all trials but the first.
    """
    from featherweight.workflow.summing_up import sum_up

    asked = _asked(recipe, defaults)
    require_package()
    root = RunDirectory(output_dir or Path("runs") / f"{recipe.name}-sweep")
    _refuse(root, bool(sitting.resume))
    with stop_on_signals(sitting.console.say) as stop, held(root.path):
        root.put_right()
        with explained(root, sitting.continue_with):
            going = _begun(recipe, asked, root, sitting, stop)
        going.try_the_recipe()
        with multiplying_as(going.folder(0)):
            going.settle(defaults)
            ended_by = others(going)
            winner = going.winner()
            runs = {WINNER: going.publish(winner, WINNER)}
            if winner["number"] > 0 and going.trials[0]["state"] == "complete":
                runs[DEFAULT] = going.publish(going.trials[0], DEFAULT)
        return sum_up(going, winner, runs, ended_by)


def _asked(recipe: Recipe, defaults: bool) -> SweepSection:
    """What is tried, and for how long."""
    if not launch.place().is_alone:
        raise ConfigError("sweep: trials are runs of one process each; start it without a launcher")
    asked = recipe.sweep or SweepSection()
    if not asked.parameters and not defaults:
        raise ConfigError(
            "sweep: the recipe says nothing to try; give it [sweep.parameters], such as "
            '"training.learning_rate" = { low = 1e-5, high = 1e-2, log = true }, or give --defaults'
        )
    if asked.trials is None and asked.time_limit is None:
        asked = asked.model_copy(update={"time_limit": _DEFAULTS_TIME} if defaults else {"trials": _TRIALS})
    return asked.model_copy(update={"parameters": {}, "first": []}) if defaults else asked


def _refuse(root: RunDirectory, resume: bool) -> None:
    """Before hours of training: a folder that holds something else."""
    there = root.path.is_dir() and any(root.path.iterdir())
    if root.environment.is_file():
        raise ConfigError(f"{root.path}: holds a single run; choose another --output-dir")
    if there and not resume:
        raise ConfigError(f"{root.path}: is not empty; go on with --resume, or choose another --output-dir")
    if there and not (root.path / "trials").is_dir():
        raise ConfigError(f"{root.path}: holds files but no sweep to resume; choose another --output-dir")


def _begun(recipe: Recipe, asked: SweepSection, root: RunDirectory, sitting: Sitting, stop: Stop) -> Sweeping:
    """The sweep with its rows read, some of which choose nothing, and with the trials that have ended already."""
    console, once = sitting.console, Once(root.path / "trials")
    with stop.at_once("reading the data"):
        _, rows = read_rows(recipe, console.within("reading the data"), once)
        held_out = None
        if "test" not in rows.examples:
            held_out = TEST_FRACTION
            data = recipe.data.model_copy(update={"test_fraction": held_out})
            recipe = recipe.model_copy(update={"data": data})
            console.say(
                f"data.test_fraction = {held_out:g}: there is no labelled test split, and what a sweep reports has to "
                "be of rows that chose nothing"
            )
            _, rows = read_rows(recipe, console.within("reading the data"), once)
        reading.show(rows, console)
    kind = rows.task.answer
    sitting = replace(sitting, once=once)
    return Sweeping(recipe, asked, root, kind, held_out, sitting, stop, *_compared(recipe, kind), _ended(root))


def _compared(recipe: Recipe, kind: Answer) -> tuple[str, bool]:
    """The figure that trials are compared by, and whether less of it is better: what the recipe chooses checkpoints by
    where it says so, else the headline."""
    from featherweight.engine.training.state import best_metric_name, greater_is_better

    settings: TrainingSection = best_metric.settle(recipe, kind, {}).training
    if settings.metric_for_best_model is None:
        first = headline(kind)
        return f"eval_{first.name}", first.less_is_better
    return best_metric_name(settings), not greater_is_better(settings, kind)


def _ended(root: RunDirectory) -> list[Trial]:
    """The trials that have ended so far, by their numbers."""
    found: Any = [event for event in root.read_history() if event.pop("event") == "ended"]
    return sorted(found, key=lambda one: one["number"])


class Running(NamedTuple):
    """A trial that has begun and not ended.

    Attributes:
        since: by :func:`time.perf_counter`.
    """

    settings: Settings
    since: float


@dataclass
class Sweeping:
    """A sweep in progress.

    Attributes:
        recipe: as it stands, with rows that choose nothing.
        asked: what is tried, and for how long.
        root: the sweep's folder, whose history has a line for each trial that begins and ends.
        kind: of answer.
        held_out: the share of train that was held out for rows that choose nothing, where the sweep did.
        compared_by, less_is_better: the figure on validation that trials are compared by.
        trials: those that ended, by their numbers.
        at_once: how many are made at a time.
        running: by number those that were begun here and have not ended.
    """

    recipe: Recipe
    asked: SweepSection
    root: RunDirectory
    kind: Answer
    held_out: float | None
    sitting: Sitting
    stop: Stop
    compared_by: str
    less_is_better: bool
    trials: list[Trial]
    at_once: int = 1
    running: dict[int, Running] = field(default_factory=dict)

    @property
    def console(self) -> Console:
        return self.sitting.console

    def folder(self, number: int) -> RunDirectory:
        return RunDirectory(self.root.path / "trials" / f"{number:03d}")

    def try_the_recipe(self) -> None:
        """Trial 0; where it has ended already, that it was this recipe's is seen again."""
        if not self.trials:
            self.console.say("trial 0 is the recipe as it stands")
            self.end(self.tried(0, {}, float("inf"), self.console))
            return
        with explained(self.root, self.sitting.continue_with), self.stop.at_once("preparing"):
            identity = prepare(self.recipe, self.console.within("again"), self.sitting.once).identity()
            self.folder(0).refuse_other(self.folder(0).read_environment()["identity"], identity)

    def try_others(self) -> EndedBy:
        """Trial after trial, until the trials or the time are used up or there is nothing left to try.

        Returns:
            Which of them it was.
        """
        while not isinstance(found := self.begun(), str):
            number, settings = found
            self.end(self.tried(number, settings, self.time_left(), self.console.within(self.called(number))))
        return found

    def begun(self) -> tuple[int, Settings] | EndedBy:
        """Number and settings of the next trial, which is running from now on; or why there is none.

        Raises:
            Interrupted: a stop was asked for.
        """
        if self.asked.trials is not None and len(self.trials) + len(self.running) >= self.asked.trials:
            return "trials"
        if self.time_left() < self._usual_seconds():
            return "time"
        ever_begun = self._ever_begun()
        if (found := self._next(ever_begun)) is None:
            return "nothing left"
        number, settings = found
        if self.stop():
            raise Interrupted(
                f"stopped before trial {number}; continue with: {self.sitting.continue_with or 'resume=True'}"
            )
        if number not in ever_begun:
            self.root.append_history({"event": "begun", "trial": number, "settings": settings})
        self.running[number] = Running(settings, time.perf_counter())
        return found

    def tried(self, number: int, settings: Settings, seconds: float, console: Console) -> Trial:
        """What comes of a trial, from where it was left where it has begun.

        Args:
            seconds: that there are for it.
        """
        directory = self.folder(number)
        judge = self._is_hopeless if number and self.asked.prune else _never
        watch = Watch(directory, self.compared_by, judge, time.perf_counter() + seconds)
        sitting = replace(self.sitting, console=console, resume=directory.environment.is_file())
        found = try_out(partial(self._recipe_of, number, settings), number, settings, watch, sitting, self.stop)
        gc.collect()  # models are large and refer to themselves
        return found

    def end(self, trial: Trial) -> None:
        """Take down what came of a trial; its checkpoints stay while it is the best."""
        self.root.append_history({"event": "ended", **trial})
        self.running.pop(trial["number"], None)
        self.trials.append(trial)
        self.trials.sort(key=lambda one: one["number"])
        self._forget_checkpoints()
        self.console.say(self._said(trial))

    def winner(self) -> Trial:
        """The best trial, the earlier of equals. Raises DivergedError where none trained to its end."""
        complete = [one for one in self.trials if one["state"] == "complete"]
        if not complete:
            first = self.trials[0]
            raise DivergedError(
                f"{self.root.path}: none of {len(self.trials)} trials trained to its end; the recipe as it stands: "
                f"{first['reason']}"
            )
        return best_of(complete, self.less_is_better)

    def publish(self, trial: Trial, name: str) -> RunDirectory:
        """A trial as a plain run, complete, in a folder of its own; taken up where that was begun already."""
        run, tried = RunDirectory(self.root.path / name), self.folder(trial["number"])
        recipe = self._recipe_of(trial["number"], trial["settings"])
        identity = tried.read_environment()["identity"]
        if run.path.is_dir() and run.read_environment().get("identity") != identity:
            remove_folder(run.path)  # of an earlier winner, before there were more trials
        if not run.path.is_dir():
            write_folder(run.path, partial(_copy, tried.path))
        part = self.console.within(f"publishing the {'winner' if name == WINNER else 'recipe as it stands'}")
        carry_out(recipe, run, replace(self.sitting, resume=True, console=part))
        gc.collect()
        return run

    def _recipe_of(self, number: int, settings: Mapping[str, Any]) -> Recipe:
        """The recipe as it stands, or with a trial's settings. What was chosen for trial 0 stays as it was there, so
        that a trial differs in its settings alone, but for a learning rate that is chosen for the method.

        Raises:
            ConfigError: they don't go together.
        """
        if number == 0:
            return self.recipe
        base, resolved = self.recipe, self._resolved()
        if base.training.learning_rate is None:
            chosen = resolved.training.model_dump(exclude_unset=True) | {"max_steps": base.training.max_steps}
            if self._tunes_otherwise(settings):
                del chosen["learning_rate"]
            base = base.model_copy(
                update={
                    "training": TrainingSection.model_validate(chosen),
                    "model": base.model.model_copy(update={"head": resolved.model.head}),
                }
            )
        return recipes.with_values(base, settings)

    def _tunes_otherwise(self, settings: Mapping[str, Any]) -> bool:
        """Whether the model or the method differ from trial 0's and no learning rate is among the settings."""
        if "training.learning_rate" in settings:
            return False
        before = self._settings_of(self._resolved())
        return any(key.startswith(("model.", "method.")) and before.get(key) != one for key, one in settings.items())

    def settle(self, defaults_too: bool) -> None:
        """Put what is tried into the sweep's own ``recipe.toml``; of a sweep that is taken up it has to be the same."""
        resolved = self._resolved()
        if defaults_too:
            parameters, first = defaults.search(resolved)
            self.asked = self.asked.model_copy(update={"parameters": parameters, "first": first})
        if self.root.recipe.is_file():
            before = recipes.load(self.root.recipe).sweep
            if before is None or (before.parameters, before.first) != (self.asked.parameters, self.asked.first):
                raise ConfigError(
                    f"{self.root.path}: holds a sweep over other parameters, as its {self.root.recipe.name} has them; "
                    "choose another --output-dir"
                )
        tried = resolved.model_copy(update={"sweep": self.asked})
        self.root.write_text(self.root.recipe, recipes.dump(tried, {}, self.root.path))
        if not self.trials[0]["settings"]:
            self.trials[0]["settings"] = self._settings_of(resolved)

    @cached_property
    def search(self) -> Search:
        """Says what to try, once that is settled."""
        method = self._resolved().method.name
        return Search(
            self.asked.parameters,
            lambda key, chosen: sweeping.applies(key, chosen.get("method.name", method)),
            self.recipe.training.seed,
            self.less_is_better,
        )

    def _is_hopeless(self, epochs: float, evaluations: Sequence[Evaluated]) -> bool:
        return self.search.is_hopeless(_ended(self.root), epochs, evaluations)

    def _resolved(self) -> Recipe:
        """Trial 0's recipe with all that was chosen for it."""
        return recipes.load(self.folder(0).recipe)

    def _settings_of(self, resolved: Recipe) -> Settings:
        values = resolved.model_dump()
        keys = [key for key in self.asked.parameters if sweeping.applies(key, resolved.method.name)]
        return {key: _at(values, key) for key in keys}

    def _ever_begun(self) -> dict[int, Settings]:
        """By number the settings of all trials but the first that were begun, here or before."""
        events = self.root.read_history()
        return {event["trial"]: event["settings"] for event in events if event["event"] == "begun"}

    def _next(self, ever_begun: Mapping[int, Settings]) -> tuple[int, Settings] | None:
        """What was begun and did not end; else what is to come first; else what the search says."""
        known = {*self.running, *(one["number"] for one in self.trials)}
        for number, settings in ever_begun.items():
            if number not in known:
                return number, settings
        usual, running = self.trials[0]["settings"], [one.settings for one in self.running.values()]
        tried = [*(one["settings"] for one in self.trials), *running]
        for first in self.asked.first:
            method = first.get("method.name", usual.get("method.name", self.recipe.method.name))
            settings = {key: one for key, one in {**usual, **first}.items() if sweeping.applies(key, method)}
            if settings not in tried:
                return len(known), settings
        drawn = self.search.next(self.trials, running)
        return None if drawn is None else (len(known), drawn)

    def _forget_checkpoints(self) -> None:
        """But for those of trial 0 and of the best, which are published in the end."""
        complete = [one for one in self.trials if one["state"] == "complete"]
        kept = {0, *([best_of(complete, self.less_is_better)["number"]] if complete else [])}
        for one in self.trials:
            if one["number"] not in kept and (folder := self.folder(one["number"]).checkpoints).is_dir():
                remove_folder(folder)

    def time_left(self) -> float:
        """Seconds for trials, once the runs that are published at the end have theirs."""
        if self.asked.time_limit is None:
            return float("inf")
        base = [one["metrics"] for one in self.folder(0).read_history() if one["event"] == "base"]
        evaluations = sum(float(one["eval_runtime"]) for metrics in base for one in metrics.values())
        first, *others = (one["seconds"] for one in self.trials)
        running = [time.perf_counter() - one.since for one in self.running.values()]
        spent = first + sum([*others, *running]) / self.at_once
        return recipes.seconds_of(self.asked.time_limit) - spent - 2 * (evaluations + _PUBLISHING)

    def _usual_seconds(self) -> float:
        """What a trial takes that trains to its end, in the mean; trial 0, which measures much besides, counts with its
        training alone."""
        first = [one["cost"]["seconds"] for one in self.folder(0).read_history() if one["event"] == TRAINED]
        others = [one["seconds"] for one in self.trials[1:] if one["state"] == "complete"]
        known = others or first
        return sum(known) / max(len(known), 1)

    def called(self, number: int) -> str:
        of = f", {number + 1} of {self.asked.trials}" if self.asked.trials else ""
        return f"trial {number}{of}"

    def _said(self, trial: Trial) -> str:
        """What came of a trial, and how long the others will take."""
        left = self.time_left()
        if self.asked.trials is not None:
            left = min(left, (self.asked.trials - len(self.trials)) * self._usual_seconds())
        return tables.trial(trial, self.trials, self.compared_by, self.less_is_better, max(left, 0.0))

    def budget(self, ended_by: EndedBy) -> Budget:
        return {
            "trials": self.asked.trials,
            "time_limit": self.asked.time_limit,
            "seconds": sum(one["seconds"] for one in self.trials),
            "ended_by": ended_by,
        }


def best_of(trials: Sequence[Trial], less_is_better: bool) -> Trial:
    """The best of trials that are complete, the earlier of equals."""
    sign = 1 if less_is_better else -1
    return min(trials, key=lambda one: (sign * (one["value"] or 0.0), one["number"]))


def _never(epochs: float, evaluations: Sequence[Evaluated]) -> bool:
    return False


def _at(values: Any, key: str) -> Any:
    """What nested tables have at a dotted key; None where they have nothing."""
    for part in key.split("."):
        values = (values or {}).get(part)
    return values


def _copy(tried: Path, target: Path) -> None:
    """What a run needs to go on where a trial ended. Checkpoints and answers are written once and only linked."""
    for path in sorted(tried.rglob("*")):
        place = target / path.relative_to(tried)
        if path.is_dir():
            place.mkdir()
        elif path.parent == tried:
            place.write_bytes(path.read_bytes())
        else:
            link(path, place)
