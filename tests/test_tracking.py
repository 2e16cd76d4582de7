"""Observers of a run: told of everything once, whatever is killed; read back by the trackers' own readers; and none ends a
run or changes a byte of it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError
from featherweight.registry import OBSERVERS
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]
Runs = Callable[..., Path]
LAST = 18  # of the steps; evaluations and checkpoints at 6, 12 and 18
ARTEFACT = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


READERS = [
    pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))
    for name in ("tensorboard", "mlflow")
]


class Heard:
    """Keeps what it is told; is interrupted, kills its process, or fails, behind a step."""

    events: ClassVar[list[Mapping[str, Any]]] = []
    stops_at: ClassVar[int | None] = None
    killed_at: ClassVar[int | None] = None
    fails_at: ClassVar[int | None] = None

    def __init__(self, folder: Path, name: str) -> None:
        self.events.clear()

    def observe(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        step = event["step"] if event["event"] == "step" else 0
        if step == self.stops_at:
            raise KeyboardInterrupt
        if step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.fails_at:
            raise ConnectionError("the tracker's server is gone\nand more")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("heard", "again"):
        monkeypatch.setitem(OBSERVERS._targets, name, f"{__name__}:Heard")
    yield
    Heard.stops_at = Heard.killed_at = Heard.fails_at = None


@pytest.fixture(scope="module")
def begin(models: Models, train_csv: Path) -> Runs:
    """Makes or resumes a run; what happens in it is :class:`Heard`'s."""

    def run(folder: Path, report_to: Any, **more: Any) -> Path:
        training = {"max_steps": LAST, "eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps"}
        content = tiny.recipe(
            models("bert"), train_csv, training={**training, "save_steps": 6, "report_to": report_to, "logging_steps": 2},
            data={"max_train_samples": 48}, evidence={"baselines": []},
        )  # fmt: skip
        workflow.run(recipes.parse(content), folder, **more)
        return folder

    return run


@pytest.fixture(scope="module")
def unseen(begin: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin(tmp_path_factory.mktemp("runs") / "unseen", "none")


def killed_and_resumed(begin: Runs, folder: Path, report_to: Any, *steps: int) -> Path:
    """A run that is killed behind each of these steps, and goes on each time."""
    for step in steps:
        Heard.killed_at = step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of later Pythons: a fork beside threads
            child = os.fork()
        if child == 0:
            begin(folder, report_to, resume=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    Heard.killed_at = None
    return begin(folder, report_to, resume=True)


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What the run's own history has: a curve for each name, the untuned model's at step 0."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in RunDirectory(folder).read_history():
        metrics = event.get("metrics", {})
        values = {
            "step": lambda event=event: {key: event[key] for key in ("loss", "learning_rate", "grad_norm", "epoch")},
            "evaluation": lambda metrics=metrics: metrics,
            "base": lambda metrics=metrics: metrics["validation"],
        }.get(event["event"], dict)()
        for key, value in values.items():
            if isinstance(value, float):
                found.setdefault(key, []).append((event.get("step", 0), value))
    return found


def read_tensorboard(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str], dict[str, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    curves = {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    texts = {
        tag.partition("/")[0]: found.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in found.Tags()["tensors"]
    }
    (inner,) = (path.parent for path in (folder / "tensorboard").glob("*/events.*"))
    noted = EventAccumulator(str(inner)).Reload().summary_metadata["_hparams_/session_start_info"].plugin_data.content
    parameters = HParamsPluginData.FromString(noted).session_start_info.hparams
    return curves, texts, {key: getattr(value, value.WhichOneof("kind")) for key, value in parameters.items()}


def read_mlflow(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str], dict[str, Any]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'featherweight'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", f"tiny-{folder.name}")
    curves = {
        key: [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, key)]
        for key in found.data.metrics
    }
    kept = {one.path for one in client.list_artifacts(found.info.run_id)}
    kept |= {one.path for one in client.list_artifacts(found.info.run_id, "adapter")}
    assert {"report.html", "metrics.json", *ARTEFACT} <= kept
    return curves, found.data.tags, dict(found.data.params)


@pytest.mark.parametrize("name", READERS)
def test_the_trackers_own_reader_gives_back_what_was_logged(
    name: str, begin: Runs, unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was killed twice, the second time before it came as far as the first: no step is there twice."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    folder = killed_and_resumed(begin, tmp_path / "run", [name, "heard"], 10, 8)
    curves, texts, parameters = {"tensorboard": read_tensorboard, "mlflow": read_mlflow}[name](folder)
    for key, curve in logged(folder).items():
        assert [step for step, _ in curves[key]] == [step for step, _ in curve], key
        if key not in ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second"):  # measured again
            assert [value for _, value in curves[key]] == pytest.approx([value for _, value in curve], rel=1e-6), key
    assert len(curves["loss"]) == LAST // 2
    assert [step for step, _ in curves["eval_accuracy"]] == [0, 6, 12, 18]
    metrics = RunDirectory(folder).read_metrics()
    for model in ("base", "tuned"):
        assert curves[f"{model}/eval_accuracy"] == [(LAST, pytest.approx(metrics[model]["eval_accuracy"]))]
    assert curves["comparison/p_value"] == [(LAST, pytest.approx(metrics["comparison"]["p_value"]))]
    assert (texts["verdict"], texts["headline"]) == (metrics["comparison"]["verdict"], metrics["headline"])
    assert float(parameters["training.learning_rate"]) == 1e-2
    assert json.loads(parameters["method.target_modules"]), "as resolved"
    assert all((folder / one).read_bytes() == (unseen / one).read_bytes() for one in ARTEFACT)


def test_an_observer_that_fails_is_said_counted_and_off(
    begin: Runs, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Heard.fails_at = 4
    folder = begin(tmp_path / "run", "heard", console=Console())
    said = [line for line in capsys.readouterr().err.splitlines() if "report_to" in line]
    assert said == [
        "training.report_to: heard failed and is told of nothing more: the tracker's server is gone"
    ]  # fmt: skip
    assert [one.get("step") for one in Heard.events if one["event"] == "step"] == [2, 4]
    (off,) = (one for one in RunDirectory(folder).read_history() if one["event"] == "observer_off")
    assert off["observer"] == "heard"
    assert RunDirectory(folder).read_metrics()["reliability"]["failed_observers"] == ["heard"]
    assert "observers that failed" in (folder / "report.html").read_text(encoding="utf-8")
    assert all((folder / one).read_bytes() == (unseen / one).read_bytes() for one in ARTEFACT)


def test_what_an_observer_is_told_and_who_it_is_may_change(begin: Runs, tmp_path: Path) -> None:
    """Names are no part of what a run is, and the start brings what was before."""
    Heard.stops_at = 8
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "run", ["heard", "again"])
    Heard.stops_at = None
    begin(tmp_path / "run", ["heard"], resume=True)
    started, *later, finished = Heard.events
    assert (started["event"], started["step"], started["told"]["step"]) == ("started", 6, 8)
    assert [one["event"] for one in started["history"]][:2] == ["base", "step"]
    assert max(one.get("step", 0) for one in started["history"]) == 6
    assert started["recipe"]["training"]["report_to"] == ["heard"]
    assert {one["event"] for one in later} == {"step", "evaluation", "checkpoint"}
    assert finished["metrics"] == RunDirectory(tmp_path / "run").read_metrics()
    assert all(finished[key].exists() for key in ("report", "metrics_file", "artefact"))


def test_a_failure_is_told_too_and_a_stop_is_75(begin: Runs, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with pytest.raises(ConfigError):
        begin(tmp_path / "run", "heard")
    (failed,) = Heard.events
    assert (failed["event"], failed["exit_code"]) == ("failed", 2)
    assert "choose another --output-dir" in failed["error"]


def test_names_are_checked_and_packages_asked_for_before_anything_loads(begin: Runs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.report_to.*did you mean 'tensorboard'"):
        begin(tmp_path / "run", "tensorbord")
    absent = next((name for name in ("comet_ml", "wandb", "mlflow") if not is_installed(name)), None)
    if absent is None:
        pytest.skip("every tracker is installed")
    with pytest.raises(ConfigError, match=f"{absent} is not installed; run: pip install {absent}"):
        begin(tmp_path / "run", ["heard", absent])
    assert not (tmp_path / "run").exists()
