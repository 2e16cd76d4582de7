"""The run directory: the contract between the stages. Whatever is in it under its own name is complete."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ConfigError, Interrupted, ModelError, ResourceError
from featherweight.registry import did_you_mean
from featherweight.runs.predictions import Predictions
from featherweight.storage.names import beside
from featherweight.storage.whole import NEW, empty_folder, link, new_folder, tidy, write_file, write_folder, writing

SCHEMA_VERSION: Final = 1
FACTS = "featherweight.json"
SUSPECTS = "suspects.jsonl"
SWEEP = "sweep.json"
RECORDED_PACKAGES = ("featherweight", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy")
QUANTISES = "bitsandbytes"
TUNED = "tuned"  # how what the tuned model answers is called in predictions/


class RunDirectory:
    """One run's folder.

    Args:
        path: the folder; it may not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.environment = self.path / "environment.json"
        self.checkpoints = self.path / "checkpoints"
        self.history = self.path / "history.jsonl"
        self.predictions = self.path / "predictions"
        self.reference = self.path / "reference"
        self.report = self.path / "report.html"
        self.metrics = self.path / "metrics.json"
        self.observer: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def is_complete(self) -> bool:
        return self.metrics.is_file()

    @contextlib.contextmanager
    def taken(self, resume: bool, keep_failed: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Inside, the folder is one run's. An error before its first checkpoint leaves a folder that was empty empty:
        the next try, with what the error asked for, is not refused as another run. What ``--resume`` takes up stays:
        a stop, a full disk, the end of the memory.

        Args:
            keep_failed: whether what an error leaves stays, too.

        Raises:
            ConfigError: the folder holds something that a new run would overwrite.
        """
        occupied = self.require_free(resume)
        try:
            yield
        except (Interrupted, ResourceError):
            raise
        except Exception:
            if not keep_failed() and not occupied and not any(self.checkpoints.glob("step-*")):
                empty_folder(self.path)
            raise

    def require_free(self, resume: bool) -> bool:
        """Whether something is there already, which is the run's.

        Raises:
            ConfigError: it is another's, or not to be taken up.
        """
        occupied = self.path.is_dir() and any(not path.name.startswith(NEW) for path in self.path.iterdir())
        if occupied and not resume:
            raise ConfigError(
                f"{self.path}: holds a run already; continue it with --resume, or choose another --output-dir"
            )
        if occupied and not self.environment.is_file():
            raise ConfigError(f"{self.path}: holds files but no run to resume; choose another --output-dir")
        return occupied

    def create(self, identity: dict[str, Any], environment: dict[str, Any]) -> None:
        """Make the folder for a run, or take up the same run again.

        Args:
            identity: flat facts that decide the run's outcome: settings, data and model fingerprints.
            environment: recorded beside them.

        Raises:
            ConfigError: the run that is there has another identity; each difference is named.
            ResourceError: the folder can't be written.
        """
        if self.environment.is_file():
            self.refuse_other(self.read_environment().get("identity", {}), identity)
            self.put_right()
            return
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(self.environment, {**environment, "identity": identity})

    def put_right(self) -> None:
        """Take away what a kill left half written."""
        for folder in (self.path, self.predictions, self.reference):
            tidy(folder)
        self._mend_history()

    def refuse_other(self, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Raises ConfigError that names every difference between two runs' identities."""
        if different := sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key)):
            changes = "; ".join(f"{key} was {found.get(key)!r}, is {identity.get(key)!r}" for key in different)
            raise ConfigError(
                f"{self.path}: holds a run with other settings: {changes}; choose another --output-dir{self.going_on()}"
            )

    def going_on(self) -> str:
        """How to train further than a finished run, in words that follow a message; empty where that can't be done."""
        if not (self.is_complete and (self.path / "adapter").is_dir()):
            return ""
        return (
            f"; to go on from what it learned, begin another run with --set model.adapter={shlex.quote(str(self.path))}"
        )

    def write_text(self, path: Path, text: str) -> None:
        """Write a file so that it is there whole or not at all."""
        write_file(path, lambda stream: stream.write(text.encode("utf-8")))

    def write_json(self, path: Path, content: Any) -> None:
        self.write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def append_history(self, event: dict[str, Any]) -> None:
        """Add a line, on the disk when this returns; who observes the run is told of it then."""
        with writing(self.history), self.history.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.tell(event)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell who observes the run of something that its history does not keep."""
        if self.observer is not None:
            self.observer(event)

    def read_history(self) -> list[dict[str, Any]]:
        """Every whole line; a last one that was cut short is left out."""
        events = []
        if self.history.is_file():
            for line in self.history.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    events.append(json.loads(line))
        return events

    def forget_history_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run does again."""
        self._rewrite_history([event for event in self.read_history() if event.get("step", 0) <= step])

    def _mend_history(self) -> None:
        """Take away a last line that was cut short, so that the next one begins a line."""
        if self.history.is_file() and not self.history.read_bytes().endswith(b"\n"):
            self._rewrite_history(self.read_history())

    def _rewrite_history(self, events: Iterable[dict[str, Any]]) -> None:
        self.write_text(self.history, "".join(json.dumps(event) + "\n" for event in events))

    @contextlib.contextmanager
    def trial_folder(self) -> Iterator[Path]:
        """A folder for what is written to be read back and thrown away; a kill leaves it as what is half written.

        Raises:
            ResourceError: the disk is full or can't be written.
        """
        with writing(self.path), new_folder(self.path / "trial") as folder:
            yield folder

    def publish_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Fill a folder aside and give it its name when it is complete."""
        write_folder(self.path / name, fill)
        return self.path / name

    def write_predictions(self, model: str, split: str, predictions: Predictions) -> None:
        """``predictions/<model>-<split>.parquet``."""
        with writing(self.predictions):
            self.predictions.mkdir(exist_ok=True)
        predictions.write(self._predictions_of(model, split))

    def read_predictions(self, model: str, split: str) -> Predictions:
        """Raises DataError where the run has no such predictions."""
        return Predictions.read(self._predictions_of(model, split))

    def has_predictions(self, model: str, split: str) -> bool:
        return self._predictions_of(model, split).is_file()

    def _predictions_of(self, model: str, split: str) -> Path:
        return self.predictions / f"{model}-{split}.parquet"

    def take_measured(self, other: RunDirectory) -> None:
        """Have the answers that another run kept of its model before tuning, and of its rivals. Files there are written
        once, so they need no room of their own."""
        with writing(self.predictions):
            self.predictions.mkdir(exist_ok=True)
            for path in other.predictions.glob("*.parquet"):
                if not path.name.startswith(f"{TUNED}-"):
                    link(path, self.predictions / path.name)

    def write_reference(self, name: str, values: NDArray[np.float32]) -> None:
        """``reference/<name>.npy``: what training is held to."""
        with writing(self.reference):
            self.reference.mkdir(exist_ok=True)
        write_file(self.reference / f"{name}.npy", lambda stream: np.save(stream, values))

    def read_reference(self, name: str) -> NDArray[np.float32] | None:
        """None where it was not written, or can't be read."""
        try:
            found = np.load(self.reference / f"{name}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return np.asarray(found, dtype=np.float32)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Lay over ``environment.json`` what shows once a method is in the model."""
        before = self.read_environment()
        if before != (now := {**before, **facts}):
            self.write_json(self.environment, now)

    def note_batches(self, batches: Mapping[str, Any]) -> None:
        """How batches are run, beside what else is known of the execution."""
        self.note({"execution": {**self.read_environment().get("execution", {}), **batches}})

    def read_environment(self) -> dict[str, Any]:
        """Content of ``environment.json``. Raises ModelError where it can't be read."""
        try:
            content: dict[str, Any] = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.environment}: can't be read: {error}") from error
        return content

    def read_metrics(self) -> dict[str, Any]:
        """What a complete run says of itself. Raises ModelError where it is not complete."""
        if not self.path.is_dir():
            raise ModelError(f"{self.path}: no such run{did_you_mean(str(self.path), beside(self.path))}")
        if (self.path / SWEEP).is_file():
            raise ModelError(f"{self.path}: a sweep, not a run; name its winner, {self.path / 'winner'}")
        if not self.is_complete:
            raise ModelError(f"{self.path}: not a complete run (no metrics.json); finish it with --resume")
        try:
            content: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{self.metrics}: can't be read: {error}") from error
        if content.get("schema_version") != SCHEMA_VERSION:
            raise ModelError(f"{self.metrics}: schema_version {content.get('schema_version')} is not known here")
        return content


def package_versions(names: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str | None]:
    """Installed version of each package, or None."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
