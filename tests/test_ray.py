"""Runs and sweeps on a Ray cluster of several machines, one of which is gone in the middle; all real, on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, DataError
from featherweight.runs.directory import RunDirectory
from featherweight.workflow import on_ray
from featherweight.workflow.on_ray import Cluster


def test_processors_are_divided_so_that_all_workers_fit() -> None:
    assert on_ray.processors_each([4, 4], 2) == 4
    assert on_ray.processors_each([4, 4], 3) == 2
    assert on_ray.processors_each([3, 1], 2) == 1
    assert on_ray.processors_each([1, 1], 3) == 0
    assert on_ray.processors_each([], 1) == 0


def test_a_checkpoint_that_is_named_is_gone_back_to_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that begin again where a machine is gone go on from the newest."""
    directory, asked = RunDirectory(tmp_path / "run"), []
    directory.path.mkdir()
    directory.append_history({"event": "resume", "step": 60})

    def run(recipe: Any, output_dir: str, *, resume: bool | str, **more: Any) -> None:
        asked.append(resume)
        directory.forget_history_after(40)
        directory.append_history({"event": "resume", "step": 40})

    monkeypatch.setattr(on_ray, "run", run)
    given = {"recipe": None, "output_dir": str(directory.path), "resume": "checkpoint-40", "force": False,
             "continue_with": None, "cwd": str(tmp_path), "taken_up": on_ray._taken_up(directory)}  # fmt: skip
    for _ in range(3):
        on_ray._work(given)
    assert asked == ["checkpoint-40", True, True]


def test_what_does_not_go_together_is_refused_before_anything_is_started(cli: Any) -> None:
    for more, said in {
        ("--workers", "2"): "--workers: goes with --ray ADDRESS",
        ("--ray", "local"): "--ray: say with --workers how many",
        ("--ray", "local", "--workers", "2", "--seeds", "2"): "--ray: goes with --workers, and neither",
    }.items():
        ended = cli("run", "--model", "nowhere", "--data", "nothing.csv", *more)
        assert ended.returncode == 2
        assert said in ended.stderr


class Machines:
    """A cluster of three machines of two processors, by Ray's own for tests."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Made

        self._made = Made(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        self._others = [self._made.add_node(num_cpus=2) for _ in range(2)]
        self.address = self._made.address

    def lose_one(self) -> None:
        """One that works, and is not the one that keeps the cluster together."""
        import ray

        free = ray._private.state.available_resources_per_node()
        busy = next(one for one in self._others if free[one.node_id].get("CPU", 0) < 2)
        self._others.remove(busy)
        self._made.remove_node(busy, allow_graceful=False)

    def close(self) -> None:
        self._made.shutdown()

    @contextmanager
    def losing_one(self, when: Callable[[], bool]) -> Iterator[threading.Event]:
        """Within this context a machine is gone as soon as something is so."""
        lost, over = threading.Event(), threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                if when():
                    self.lose_one()
                    lost.set()
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield lost
        finally:
            over.set()
            watching.join()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    pytest.importorskip("ray", reason="Ray is not installed")
    on_ray.require_package()
    made = Machines()
    yield made
    made.close()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("bert"), "bert")


def content_of(encoder: Path, train_csv: Path, **training: Any) -> dict[str, Any]:
    settings = {"max_steps": 100, "logging_steps": 1, "save_strategy": "steps", "save_steps": 10, "learning_rate": 1e-3}
    evaluated = {"eval_strategy": "steps", "eval_steps": 100}
    return tiny.recipe(encoder, train_csv, training={**settings, **evaluated, **training})


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [event for event in RunDirectory(folder).read_history() if event["event"] == "step"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_a_run_goes_on_where_a_machine_is_gone(
    machines: Machines, encoder: Path, train_csv: Path, tmp_path: Path
) -> None:
    """To what one process makes of it, each step counted once. What is wrong with a run itself is told, and not tried
    again."""
    out, alone = tmp_path / "run", tmp_path / "alone"
    asked = recipes.parse(content_of(encoder, train_csv, per_device_train_batch_size=4))
    with machines.losing_one(lambda: len(steps_of(out)) >= 30) as lost:
        record = workflow.run_on_ray(asked, out, cluster=Cluster(machines.address, 2))
    assert lost.is_set(), "it was over before the machine was gone"
    assert [one["step"] for one in steps_of(out)] == list(range(1, 101))
    assert record.metrics["reliability"]["resumes"], "it went on from a checkpoint"
    workflow.run(recipes.parse(content_of(encoder, train_csv, per_device_train_batch_size=8)), alone)
    losses = [[one["loss"] for one in steps_of(folder)] for folder in (out, alone)]
    assert np.abs(np.subtract(*losses)).max() < 1e-4
    mine, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (out, alone))
    assert max(float(np.abs(mine[name] - other[name]).max()) for name in mine) < 1e-4

    started = time.monotonic()
    wrong = recipes.parse(content_of(encoder, tmp_path / "nothing.csv"))
    with pytest.raises((ConfigError, DataError), match=r"nothing\.csv"):
        workflow.run_on_ray(wrong, tmp_path / "wrong", cluster=Cluster(machines.address, 1))
    assert time.monotonic() - started < 60
    with pytest.raises(ConfigError, match="the cluster has 4 processors"):
        workflow.run_on_ray(asked, tmp_path / "many", cluster=Cluster(machines.address, 5))


@pytest.mark.slow
def test_a_sweep_goes_on_where_a_machine_is_gone(
    machines: Machines, encoder: Path, train_csv: Path, tmp_path: Path
) -> None:
    """No trial is lost, none is begun that was not counted, and the winner is a plain run."""
    out = tmp_path / "sweep"
    rates = {"low": 1e-4, "high": 1e-2, "log": True}
    asked = {"trials": 4, "parameters": {"training.learning_rate": rates}, "prune": False}
    content = content_of(encoder, train_csv, eval_steps=20) | {"sweep": asked}

    def both_train() -> bool:
        return sum(bool(steps_of(folder)) for folder in (out / "trials").glob("00[12]")) == 2

    with machines.losing_one(both_train) as lost:
        found = workflow.sweep_on_ray(recipes.parse(content), out, cluster=Cluster(machines.address, 2))
    assert lost.is_set(), "it was over before the machine was gone"
    assert [(one["number"], one["state"]) for one in found["trials"]] == [(n, "complete") for n in range(4)]
    begun = [event["trial"] for event in RunDirectory(out).read_history() if event["event"] == "begun"]
    assert begun == [1, 2, 3]
    assert RunDirectory(out / found["winner"]["run"]).is_complete
