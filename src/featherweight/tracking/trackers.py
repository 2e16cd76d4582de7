"""TensorBoard, MLflow, Weights & Biases, Trackio and Comet, each through Accelerate's tracker and its own client.

What is logged: the resolved recipe, flat; loss, learning rate and the like at each logged step; evaluations by their
``eval_*`` names, those of the untuned model at step 0; at the end the figures of both models, the comparison and the
verdict and, where the tracker keeps files, the report, the metrics and the adapter. A run that is resumed goes on where
it is in the tracker; its name there lies in the run's ``trackers.json``. Where a tracker looks for a server, an account
or a project, its own environment variables say so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from featherweight.errors import ConfigError
from featherweight.process.quiet import quiet
from featherweight.storage.whole import write_file
from featherweight.tracking import Event

STATE = "trackers.json"
_PROJECT = "featherweight"
_OF_STEPS = ("loss", "learning_rate", "grad_norm", "epoch", "samples_per_second")
_STOPPED = 75


class Tracker:
    """An observer that logs by one of Accelerate's trackers.

    Attributes:
        called: its name in ``training.report_to``.
        package: what has to be installed.
    """

    called: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, folder: Path, name: str) -> None:
        if find_spec(self.package) is None:
            raise ConfigError(f"training.report_to: {self.called} is not installed; run: pip install {self.package}")
        self.folder = folder
        self.name = name
        self.tracker: Any = None
        self._told: Mapping[str, int] = {}
        self._step = 0

    def observe(self, event: Event) -> None:
        with quiet("accelerate"):
            if event["event"] == "started":
                self._start(event)
            elif self.tracker is not None and (take := _TAKEN.get(event["event"])):
                take(self, event)

    def make(self, known: Mapping[str, Any]) -> Any:
        """Accelerate's tracker, not started.

        Args:
            known: what :meth:`place` gave when the run began; empty for one that begins.
        """
        raise NotImplementedError

    def place(self) -> dict[str, Any]:
        """What finds the run again in the tracker, as JSON has it."""
        return {}

    def say(self, texts: Mapping[str, str]) -> None:
        """Log what is no number."""
        self.tracker.log(texts, step=self._step)

    def keep(self, report: Path, metrics: Path, artefact: Path) -> None:
        """Keep the run's files, where the tracker has a place for files."""

    def finish(self, code: int) -> None:
        """End the run in the tracker.

        Args:
            code: the run's exit code.
        """
        self.tracker.finish()

    def _start(self, event: Event) -> None:
        known = self._state().get(self.called)
        self.tracker = self.make(known or {})
        self.tracker.start()
        if known is not None:
            self._told = event["told"]
            return
        self._remember(self.place())
        self.tracker.store_init_configuration(_flat(event["recipe"]))
        for past in event["history"]:
            self.observe(past)

    def _log(self, event: Event, values: Mapping[str, Any]) -> None:
        """Numbers of a step, unless an earlier process logged them."""
        self._step = max(self._step, event.get("step", 0))
        if event.get("step", 0) > self._told.get(event["event"], -1):
            self.tracker.log(_numbers(values), step=event.get("step", 0))

    def _base(self, event: Event) -> None:
        self._log(event, event["metrics"].get("validation", {}))

    def _logged_step(self, event: Event) -> None:
        self._log(event, {key: event[key] for key in _OF_STEPS if key in event})

    def _evaluation(self, event: Event) -> None:
        self._log(event, {"training_loss": event["training_loss"], **event["metrics"]})

    def _finished(self, event: Event) -> None:
        metrics, compared = event["metrics"], event["metrics"]["comparison"]
        figures = {f"{model}/{key}": metrics[model][key] for model in ("base", "tuned") for key in metrics[model]}
        low, high = compared["confidence_interval"]
        against = {"difference": compared["difference"], "low": low, "high": high, "p_value": compared["p_value"]}
        figures |= {f"comparison/{key}": value for key, value in against.items()}
        self.tracker.log(_numbers(figures), step=self._step)
        self.say({"verdict": compared["verdict"], "headline": metrics["headline"]})
        self.keep(event["report"], event["metrics_file"], event["artefact"])
        self.finish(0)

    def _ended(self, event: Event) -> None:
        self.finish(event.get("exit_code", 0))

    def _state(self) -> dict[str, Any]:
        path = self.folder / STATE
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _remember(self, place: Mapping[str, Any]) -> None:
        content = json.dumps({**self._state(), self.called: place}, indent=2) + "\n"
        write_file(self.folder / STATE, lambda stream: stream.write(content.encode("utf-8")))


_TAKEN = {
    "base": Tracker._base,
    "step": Tracker._logged_step,
    "evaluation": Tracker._evaluation,
    "finished": Tracker._finished,
    "failed": Tracker._ended,
    "left": Tracker._ended,
}


class TensorBoard(Tracker):
    """Files in the run's ``tensorboard``, or in a folder of the run's name where TENSORBOARD_LOGGING_DIR says."""

    called = "tensorboard"
    package = "tensorboard"

    def make(self, known: Mapping[str, Any]) -> Any:
        from accelerate.tracking import TensorBoardTracker

        if elsewhere := os.environ.get("TENSORBOARD_LOGGING_DIR"):
            return TensorBoardTracker(self.name, elsewhere)
        return TensorBoardTracker("tensorboard", str(self.folder))


class MLflow(Tracker):
    called = "mlflow"
    package = "mlflow"

    def make(self, known: Mapping[str, Any]) -> Any:
        from accelerate.tracking import MLflowTracker

        return MLflowTracker(_PROJECT, run_name=self.name, **known)

    def place(self) -> dict[str, Any]:
        return {"run_id": self.tracker.tracker.info.run_id}

    def say(self, texts: Mapping[str, str]) -> None:
        import mlflow

        mlflow.set_tags(dict(texts))

    def keep(self, report: Path, metrics: Path, artefact: Path) -> None:
        import mlflow

        mlflow.log_artifact(str(report))
        mlflow.log_artifact(str(metrics))
        mlflow.log_artifacts(str(artefact), artefact.name)

    def finish(self, code: int) -> None:
        import mlflow

        mlflow.end_run({0: "FINISHED", _STOPPED: "KILLED"}.get(code, "FAILED"))


class WandB(Tracker):
    called = "wandb"
    package = "wandb"

    def make(self, known: Mapping[str, Any]) -> Any:
        from accelerate.tracking import WandBTracker

        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        return WandBTracker(project, name=self.name, resume="allow", **known)

    def place(self) -> dict[str, Any]:
        return {"id": self.tracker.tracker.id}

    def say(self, texts: Mapping[str, str]) -> None:
        self.tracker.tracker.summary.update(dict(texts))

    def keep(self, report: Path, metrics: Path, artefact: Path) -> None:
        import wandb

        kept = wandb.Artifact(f"{self.name}-{artefact.name}", type="model")
        kept.add_dir(str(artefact), name=artefact.name)
        for path in (report, metrics):
            kept.add_file(str(path), name=path.name)
        self.tracker.tracker.log_artifact(kept)

    def finish(self, code: int) -> None:
        self.tracker.tracker.finish(exit_code=code)


class Trackio(Tracker):
    called = "trackio"
    package = "trackio"

    def make(self, known: Mapping[str, Any]) -> Any:
        from accelerate.tracking import TrackioTracker

        project = os.environ.get("TRACKIO_PROJECT", _PROJECT)
        return TrackioTracker(project, name=self.name, resume="must" if known else "never")

    def place(self) -> dict[str, Any]:
        return {"name": self.name}


class Comet(Tracker):
    called = "comet_ml"
    package = "comet_ml"

    def make(self, known: Mapping[str, Any]) -> Any:
        import comet_ml
        from accelerate.tracking import CometMLTracker

        project = os.environ.get("COMET_PROJECT_NAME", _PROJECT)
        return CometMLTracker(project, experiment_config=comet_ml.ExperimentConfig(name=self.name), **known)

    def place(self) -> dict[str, Any]:
        return {"experiment_key": self.tracker.tracker.get_key()}


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys as ``--set`` has them; what is unset is left out, and what is no single value is its JSON."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and not prefix:
            found |= _flat(value, f"{key}.")
        elif value is not None:
            is_single = isinstance(value, bool | int | float | str)
            found[prefix + key] = value if is_single else json.dumps(value, ensure_ascii=False)
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What a curve can hold."""
    kept = {key: value for key, value in values.items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in kept.items() if not isinstance(value, bool) and math.isfinite(value)}
