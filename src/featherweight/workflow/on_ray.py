"""Work on a Ray cluster. Ray Train starts the processes of a run wherever there is room, Ray Tune the trials of a
sweep, and again where one of them or its machine is gone; each goes on from its newest checkpoint.

Folders have to be where every machine of the cluster sees them, under the same path.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from featherweight import errors
from featherweight.errors import ConfigError, FeatherweightError, Interrupted, first_line
from featherweight.process.signals import stop_on_signals
from featherweight.recipe import Recipe
from featherweight.records.runs import RunRecord
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.resuming import explained
from featherweight.workflow.running import finish, run

Wrong: TypeAlias = tuple[str, str]  # the kind of an error, and what it says

LOCAL = "local"
_PATIENCE = 7 * 24 * 3600  # seconds: rank 0 fits the baselines while the others wait
_LOOK = 1.0  # seconds between looks at a run's history
# Ray Train's present form; folders stay what they are; a signal is ours to hear; and nothing is logged or said besides.
_SETTLED = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@dataclass(frozen=True)
class Cluster:
    """Where on Ray work is done.

    Attributes:
        address: of the cluster; ``local`` starts one on this machine, ``auto`` takes the one that runs here.
        workers: processes of a run, or trials of a sweep at a time; each gets as many processors as there are for all
            of them, and a GPU where there is one for each.
        max_failures: how often work goes on by itself after a process or a machine is gone.
    """

    address: str
    workers: int
    max_failures: int = 3


def run_on_ray(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    cluster: Cluster,
    resume: bool | str = False,
    force: bool = False,
    console: Console | None = None,
    continue_with: str | None = None,
) -> RunRecord:
    """:func:`featherweight.workflow.run` in several processes of a Ray cluster.

    Raises:
        ConfigError: Ray is not installed; there is no such cluster, or no room in it.
        Interrupted: a signal, or more failures than ``max_failures``; ``resume`` goes on.
        FeatherweightError: what the run itself raises.
    """
    console = console or Console(quiet=True)
    directory = RunDirectory(Path(output_dir or Path("runs") / recipe.name).resolve())
    directory.require_free(bool(resume))
    given = {"recipe": recipe, "output_dir": str(directory.path), "resume": resume or True, "force": force,
             "continue_with": continue_with, "cwd": str(Path.cwd()), "taken_up": _taken_up(directory)}  # fmt: skip
    with (
        explained(directory, continue_with),
        stop_on_signals(console.say) as stop,
        connected(cluster, console),
        TemporaryDirectory() as beside,
        _followed(directory, console),
        stop.at_once("running on Ray"),
    ):
        wrong = _fit(given, cluster, Path(beside))
    if wrong is not None:
        kind, said = wrong
        raise getattr(errors, kind)(said)
    require_seen(directory)
    return finish(directory, console)


def require_seen(directory: RunDirectory) -> None:
    """Raises ConfigError where a folder that is written on the cluster is not to be seen from here."""
    if not directory.environment.is_file():
        raise ConfigError(
            f"{directory.path}: nothing of what was done on the cluster is to be seen here; --output-dir has to be a "
            "folder that every machine of it sees"
        )


def require_package() -> Any:
    """Ray. Raises ConfigError with what installs it."""
    for key, value in _SETTLED.items():
        os.environ.setdefault(key, value)
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray: Ray is not installed; pip install 'featherweight[ray]'") from None
    return ray


@contextmanager
def connected(cluster: Cluster, console: Console) -> Iterator[None]:
    """Within this context there is the cluster.

    Raises:
        ConfigError: none answers at its address.
    """
    ray = require_package()
    own = {"include_dashboard": False} if cluster.address == LOCAL else {}
    console.begin(f"connecting with Ray at {cluster.address}")
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"--ray {cluster.address}: no cluster answers there ({first_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def resources(cluster: Cluster) -> dict[str, int]:
    """``CPU`` and ``GPU`` that each of the workers gets. Raises ConfigError where there is no room for all of them."""
    import ray

    machines = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    if (each := processors_each([int(one.get("CPU", 0)) for one in machines], cluster.workers)) < 1:
        there = sum(int(one.get("CPU", 0)) for one in machines)
        raise ConfigError(f"--workers {cluster.workers}: the cluster has {there} processors; give fewer workers")
    gpus = sum(int(one.get("GPU", 0)) for one in machines)
    return {"CPU": each, "GPU": int(gpus >= cluster.workers)}


def processors_each(machines: Sequence[int], workers: int) -> int:
    """The most processors that each of so many workers can have, on machines with so many; 0 where there is no room
    for all.

    >>> processors_each([4, 2], 2), processors_each([4, 2], 3), processors_each([1], 2)
    (2, 2, 0)
    """
    fits = (each for each in range(max(machines, default=0), 0, -1) if sum(one // each for one in machines) >= workers)
    return next(fits, 0)


def _fit(given: dict[str, Any], cluster: Cluster, beside: Path) -> Wrong | None:
    """Let Ray Train run :func:`_work` in every worker, and give what the first of them returns."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    each = resources(cluster)
    trainer = TorchTrainer(
        _work,
        train_loop_config=given,
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if each["GPU"] else "gloo", timeout_s=_PATIENCE),
        scaling_config=ScalingConfig(
            num_workers=cluster.workers, use_gpu=bool(each["GPU"]), resources_per_worker={"CPU": each["CPU"]}
        ),
        run_config=RunConfig(
            name="run", storage_path=str(beside), failure_config=FailureConfig(max_failures=cluster.max_failures)
        ),
    )
    try:
        returned: Wrong | None = trainer.fit().return_value
    except TrainingFailedError as error:
        why = next(iter(getattr(error, "worker_failures", {}).values()), error)
        raise Interrupted(f"its processes failed {cluster.max_failures + 1} times ({first_line(why)})") from error
    return returned


def _work(given: Mapping[str, Any]) -> Wrong | None:
    """One of the run's processes. What is wrong with the run itself is returned, for beginning again would not help."""
    go_to(given["cwd"])
    asked = {key: given[key] for key in ("resume", "force", "continue_with")}
    if _taken_up(RunDirectory(given["output_dir"])) != given["taken_up"]:
        asked["resume"] = True  # a checkpoint that was named was gone on from before a machine was lost
    try:
        run(given["recipe"], given["output_dir"], console=Console(quiet=True), **asked)
    except Interrupted:
        raise
    except FeatherweightError as error:
        return type(error).__name__, str(error)
    return None


def _taken_up(directory: RunDirectory) -> list[int]:
    """After which steps the run was taken up, each time."""
    return [event["step"] for event in directory.read_history() if event["event"] == "resume"]


def go_to(folder: str) -> None:
    """Where the command was given, where this machine has it: paths of a recipe may count from there."""
    if Path(folder).is_dir():
        os.chdir(folder)


@contextmanager
def _followed(directory: RunDirectory, console: Console) -> Iterator[None]:
    """Within this context what a run elsewhere writes into its history is shown."""
    done, seen = threading.Event(), len(directory.read_history())

    def follow() -> None:
        known = seen
        while not done.wait(_LOOK):
            events = directory.read_history()
            for event in events[known:]:
                console.observe(event)
            known = max(known, len(events))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()
