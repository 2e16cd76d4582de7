"""The trials of a sweep on a Ray cluster, several at a time: Ray Tune makes them, and begins one again whose machine is
gone; what to try, what came of it and what it shows stay the sweep's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from featherweight.errors import ConfigError
from featherweight.process.signals import Stop
from featherweight.recipe import Recipe
from featherweight.records.sweeps import Trial
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.on_ray import Cluster, connected, go_to, require_package, resources
from featherweight.workflow.once import Once
from featherweight.workflow.resuming import explained, multiplying_as
from featherweight.workflow.running import Sitting
from featherweight.workflow.sweeping import EndedBy, Sweeping, carry_out_all
from featherweight.workflow.trying import unmade

_once: dict[str, Once] = {}  # what trials of one process have in common, by the sweep's folder


def sweep_on_ray(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    cluster: Cluster,
    defaults: bool = False,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
    continue_with: str | None = None,
) -> dict[str, Any]:
    """:func:`featherweight.workflow.sweep` with trials on a cluster. The first trial, by which the others are laid out,
    and the runs that are published are made here.

    Raises:
        ConfigError: also where Ray is not installed, or there is no such cluster, or no room in it.
    """
    require_package()
    folder = Path(output_dir or Path("runs") / f"{recipe.name}-sweep").resolve()
    sitting = Sitting(console or Console(quiet=True), resume, force, continue_with)

    def others(sweep: Sweeping) -> EndedBy:
        sweep.at_once = cluster.workers
        with explained(sweep.root, continue_with), connected(cluster, sweep.console), TemporaryDirectory() as beside:
            return _make(sweep, cluster, Path(beside))

    return carry_out_all(recipe, folder, sitting, defaults, others)


def _make(sweep: Sweeping, cluster: Cluster, beside: Path) -> EndedBy:
    """Let Ray Tune make all trials but the first."""
    from ray import tune

    search, each = _search(sweep), resources(cluster)
    here = {"sweep": _told(sweep), "cwd": str(Path.cwd())}
    # A process that has made a trial makes the next: it has imported everything, and has the rows in memory.
    config = tune.TuneConfig(
        search_alg=search, num_samples=-1, max_concurrent_trials=cluster.workers, reuse_actors=True
    )
    run = tune.RunConfig(
        name="sweep",
        storage_path=str(beside),
        failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
        verbose=0,
    )
    work = tune.with_resources(tune.with_parameters(_try, here=here), each)
    with sweep.stop.at_once("trying on Ray"):
        tune.Tuner(work, tune_config=config, run_config=run).fit()
    ended_by: EndedBy = search.ended_by
    return ended_by


def _search(sweep: Sweeping) -> Any:
    """The sweep's own, as Ray Tune asks it; ``ended_by`` says in the end why it says no more."""
    from ray.tune.search import Searcher

    class Search(Searcher):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ended_by: EndedBy = "trials"
            self._numbers: dict[str, int] = {}

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            found = sweep.begun()
            if isinstance(found, str):
                self.ended_by = found
                return cast(str, Searcher.FINISHED)
            self._numbers[trial_id], settings = found
            return {"number": found[0], "settings": json.dumps(settings), "seconds": sweep.time_left()}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if (number := self._numbers.pop(trial_id, None)) is not None:
                sweep.end(_lost(sweep, number) if error or not result else json.loads(result["trial"]))

        def save(self, checkpoint_path: str) -> None:
            """The sweep's own records are enough."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing was saved."""

    return Search()


def _told(sweep: Sweeping) -> Sweeping:
    """A sweep as a trial elsewhere has to know it."""
    return replace(sweep, sitting=Sitting(Console(quiet=True), force=sweep.sitting.force), stop=_never(), running={})


def _try(config: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """One trial, in a process of the cluster."""
    from ray import tune

    go_to(here["cwd"])
    sweep: Sweeping = here["sweep"]
    folder = RunDirectory(sweep.root.path)
    if not folder.recipe.is_file():
        raise ConfigError(f"{folder.path}: is not to be seen on every machine of the cluster; choose another folder")
    once = _once.setdefault(str(folder.path), Once(folder.path / "trials"))
    sweep = replace(sweep, root=folder, sitting=replace(sweep.sitting, once=once))
    with multiplying_as(sweep.folder(0)):
        trial = sweep.tried(config["number"], json.loads(config["settings"]), config["seconds"], Console(quiet=True))
    tune.report({"trial": json.dumps(trial)})


def _never() -> Stop:
    """Nobody asks a trial elsewhere to stop: its process ends."""
    return Stop(lambda line: None)


def _lost(sweep: Sweeping, number: int) -> Trial:
    """A trial of which nothing came, as often as it was begun."""
    trial = unmade(number, sweep.running[number].settings)
    trial["state"], trial["reason"] = "failed", "its process ended, as often as it was begun"
    return trial
