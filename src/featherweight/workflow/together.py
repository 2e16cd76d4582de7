"""A run of several processes. Rank 0 runs it, and the folder and every word are its own; the others follow: it
announces each pass over rows and training, and they take part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from featherweight.errors import DivergedError
from featherweight.process import launch
from featherweight.process.signals import Stop, stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.questions import Tokens
from featherweight.records.runs import RunRecord
from featherweight.registry import ANSWERS
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory, package_versions
from featherweight.workflow import alike
from featherweight.workflow.once import Once
from featherweight.workflow.preparing import Prepared, adapt, measure, prepare
from featherweight.workflow.referring import hold, reference
from featherweight.workflow.resuming import explained
from featherweight.workflow.rungs import frozen_features, tokens_answered
from featherweight.workflow.training import cache_trunk, rehearse, train
from featherweight.workflow.writing import write_behind


def join() -> bool:
    """Meet the other processes of the run, where there are some, before anything can fail in one of them alone.

    Returns:
        Whether this one follows.
    """
    if launch.place().is_alone:
        return False
    from featherweight.engine import fleet

    return fleet.join().rank > 0


@contextmanager
def in_step(console: Console) -> Iterator[None]:
    """Within this context all processes compute alike; what is built once a machine, one of them builds."""
    if launch.place().is_alone:
        yield
        return
    from featherweight.engine import fleet
    from featherweight.engine.fast import kernels, machine_speed

    processes, here = fleet.join(), launch.place()
    processes.first_here(kernels.load)
    console.say(f"{here.size} processes, {here.local_size} on this machine; {launch.said()}")
    with machine_speed.agreeing(processes):
        yield


def prepared(recipe: Recipe, console: Console, stop: Stop, once: Once | None = None) -> Prepared:
    """What a run needs, made ready in every process.

    Raises:
        ConfigError: they have not the same rows, settings, versions or model.
    """
    with stop.at_once("preparing"):
        found = prepare(recipe, console, once)
        tokens = {f"tokens of {name}": one.key for name, one in found.encodings.items()}
        alike.require_same_facts({**package_versions(), **tokens, **found.identity()}, found.execution.fleet)
        alike.require_same_answers(found.model, found.execution)
    return found


def end(found: Prepared, record: RunRecord) -> RunRecord:
    """Let the others go, with what the run gave."""
    found.execution.fleet.announce("end", metrics=record.metrics)
    found.execution.fleet.barrier()
    return record


def follow(recipe: Recipe, directory: RunDirectory, continue_with: str | None) -> RunRecord:
    """Take part in the run that rank 0 runs.

    Args:
        directory: of rank 0; this machine may not have it.
        continue_with: the command that a stopped run tells the user to give.
    """
    console = Console(quiet=True)
    with stop_on_signals(console.say) as stop, explained(directory, continue_with), in_step(console):
        found = prepared(recipe, console, stop)
        while (order := found.execution.fleet.share(None))["work"] != "end":
            with _rank_0_judges():
                _WORK[order.pop("work")](found, console, stop, **order)
        found.execution.fleet.barrier()
    return RunRecord(str(directory.path), order["metrics"])


@contextmanager
def _rank_0_judges() -> Iterator[None]:
    """Errors that every process has end here: rank 0 has them too, and says what becomes of them."""
    from featherweight.engine.running.passes import is_told

    try:
        yield
    except DivergedError:
        return
    except Exception as error:
        if not is_told(error):
            raise


def _model(found: Prepared) -> Any:
    """As it is by now."""
    return found.model if found.adapted is None else found.adapted.model


def _measure(found: Prepared, console: Console, stop: Stop, split: str) -> None:
    measure(found, _model(found), "measuring", console, stop, split)


def _answer(found: Prepared, console: Console, stop: Stop, kind: str, facts: dict[str, Any], rows: list[Any]) -> None:
    from featherweight.engine import Watch

    told, watch = [Tokens(*row) for row in rows], Watch("answering", console.observe, stop)
    tokens_answered(found, _model(found), ANSWERS[kind].of_facts(facts), told, watch)


def _write(found: Prepared, console: Console, stop: Stop, prompts: list[list[int]]) -> None:
    write_behind(found, _model(found), prompts, "writing", console, stop)


def _features(found: Prepared, console: Console, stop: Stop, modules: list[str], split: str, rows: list[int]) -> None:
    frozen_features(found, modules, split, np.asarray(rows, dtype=np.int64), console, stop)


def _hold(found: Prepared, console: Console, stop: Stop, split: str, values: list[float]) -> None:
    hold(found, split, np.asarray(values, dtype=np.float32))


def _multiply(found: Prepared, console: Console, stop: Stop, precision: str) -> None:
    found.execution.multiply_in(precision)


def _train(found: Prepared, console: Console, stop: Stop) -> None:
    from featherweight.engine.training.checkpoints import Shared

    train(found, Shared(found.execution.fleet, None), None, lambda event: None, console, stop)


_WORK: dict[str, Callable[..., Any]] = {
    "measure": _measure,
    "answer": _answer,
    "write": _write,
    "features": _features,
    "reference": lambda found, console, stop, split: reference(found, split, console, stop),
    "hold": _hold,
    "multiply": _multiply,
    "adapt": lambda found, console, stop: adapt(found, console),
    "trunk": cache_trunk,
    "rehearse": lambda found, console, stop: rehearse(found),
    "train": _train,
}
