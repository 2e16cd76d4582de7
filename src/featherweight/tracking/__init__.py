"""Observers of a run: whatever wants to know how it goes, while it goes. None can end it, nor change a bit of it.

An observer is named in ``training.report_to``: a tracker of ``trackers.py``, or a name that a third party registered.
It is told of events, each a dictionary with ``event``, its kind:

- ``started``: training is about to begin, for the first time or again. ``recipe`` as resolved, by section; ``step``
  that training goes on after, 0 at the beginning; ``history``, the events so far, the base model's figures among them;
  ``told``, by kind of event, the last step that was told of before this process, so that a step that is made again is
  not told of twice.
- Each later line of ``history.jsonl``, once it is on the disk: ``step``, ``evaluation``, ``checkpoint``, ...
- ``finished``: the run is complete. ``metrics``, the content of ``metrics.json``, and the paths of ``report``,
  ``metrics_file`` and ``artefact``, the folder of the adapter or of the model.
- ``failed``: the run ends otherwise, maybe before it started. ``error``, its line or lines; ``exit_code``, 75 where it
  was stopped and can be resumed.
- ``left``: training is done and nothing failed, but the run is not published now, as a trial of a sweep may never be.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from featherweight.errors import UNFORESEEN, ConfigError, FeatherweightError, first_line
from featherweight.recipe import Recipe, load
from featherweight.registry import METHODS, OBSERVERS
from featherweight.runs.directory import RunDirectory

Event = Mapping[str, Any]
OFF = "observer_off"  # the event of one that failed
_TOLD = "told.json"


class Observer(Protocol):
    """Follows one run.

    Args:
        folder: the run's.
        name: the recipe's, and the folder's where it has another.

    Raises:
        ConfigError: a package is missing; asked before anything is loaded.
    """

    def __init__(self, folder: Path, name: str) -> None: ...

    def observe(self, event: Event) -> None:
        """Take an event. Whatever it raises is said once, and it is told of no more."""
        ...


@contextmanager
def following(recipe: Recipe, directory: RunDirectory, say: Callable[[str], None]) -> Iterator[None]:
    """Within this context the observers that a recipe names are told of what is told to the run's directory.

    Raises:
        ConfigError: one of them can't be had here.
    """
    made = {name: _made(name, directory.path, _called(recipe, directory)) for name in recipe.training.report_to}
    told: dict[str, int] = {}
    for event in directory.read_history():
        told[event["event"]] = event.get("step", 0)
    followers = _Followers(made, directory, told, say)
    directory.observer = followers.tell
    try:
        yield
    except Exception as error:
        code = error.exit_code if isinstance(error, FeatherweightError) else UNFORESEEN
        directory.tell({"event": "failed", "error": str(error) or type(error).__name__, "exit_code": code})
        raise
    if not directory.is_complete:
        directory.tell({"event": "left"})


def _called(recipe: Recipe, directory: RunDirectory) -> str:
    """The recipe's name, with the folder's where that has another."""
    folder = directory.path.resolve().name
    return recipe.name if folder == recipe.name else f"{recipe.name}-{folder}"


def _made(name: str, folder: Path, run: str) -> Observer:
    try:
        made: Observer = OBSERVERS[name](folder, run)
    except FeatherweightError:
        raise
    except Exception as error:  # whatever a third party's own code raises
        raise ConfigError(f"training.report_to: {name} can't be had: {first_line(error)}") from error
    return made


class _Followers:
    """The observers of a run, each until it fails."""

    def __init__(
        self,
        observers: dict[str, Observer],
        directory: RunDirectory,
        told: Mapping[str, int],
        say: Callable[[str], None],
    ) -> None:
        self._observers = observers
        self._directory = directory
        self._told = told
        self._say = say
        self._started = False

    def tell(self, event: Event) -> None:
        """Pass an event on, with what goes with it. Before the start there is nothing to tell but a failure: what the
        history has of before comes with the start."""
        if not self._observers:
            return
        if complete := _COMPLETED.get(event["event"]):
            event = {**event, **complete(self)}
        self._started |= event["event"] == "started"
        if self._started or event["event"] == "failed":
            for name in list(self._observers):
                self._pass_on(name, event)

    def _pass_on(self, name: str, event: Event) -> None:
        observer = self._observers.get(name)
        if observer is None:
            return  # off, since it was told of another's end
        try:
            # Standard output is the command's own, and maybe JSON.
            with warnings.catch_warnings(), redirect_stdout(sys.stderr):
                warnings.simplefilter("ignore")
                observer.observe(event)
        except Exception as error:  # noqa: BLE001 - whatever a tracker or a network raises, the run goes on
            del self._observers[name]
            line = first_line(error)
            self._say(f"training.report_to: {name} failed and is told of nothing more: {line}")
            if event["event"] not in ("finished", "failed"):
                self._directory.append_history({"event": OFF, "observer": name, "error": line})

    def _start(self) -> dict[str, Any]:
        """A run that was killed before it came as far as an earlier process has a shorter history than was told of."""
        directory, path = self._directory, self._directory.path / _TOLD
        earlier: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        told = {kind: max(self._told.get(kind, -1), earlier.get(kind, -1)) for kind in {*self._told, *earlier}}
        if told:
            directory.write_json(path, told)
        return {"recipe": load(directory.recipe).model_dump(), "history": directory.read_history(), "told": told}

    def _end(self) -> dict[str, Any]:
        directory = self._directory
        artefact = METHODS[load(directory.recipe).method.name].artefact
        paths = {"report": directory.report, "metrics_file": directory.metrics, "artefact": directory.path / artefact}
        return {"metrics": directory.read_metrics(), **paths}


_COMPLETED: dict[str, Callable[[_Followers], dict[str, Any]]] = {
    "started": _Followers._start,
    "finished": _Followers._end,
}
