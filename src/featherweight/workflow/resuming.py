"""Taking up a run again: which checkpoint, whether it is this run's, and what is not as it was."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError, Interrupted, OutOfMemory
from featherweight.process import launch
from featherweight.records.outcome import Gate, Reliability, Resume, TrainingCost
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.tracking import OFF

if TYPE_CHECKING:
    from featherweight.engine.training.checkpoints import Checkpoint, Checkpoints


_SHARDS = "--set=training.fsdp=true"


def command_line(arguments: list[str], resume: bool | str) -> str:
    """The command that continues a run, from the one that began it."""
    named = {"--resume", f"--resume={resume}"}
    kept = [one for one in arguments if one not in named and not (isinstance(resume, str) and one == resume)]
    here = launch.place()
    if launch.shards() and _SHARDS not in kept:  # another launcher does not say so
        kept.append(_SHARDS)
    if here.local_size < here.size:
        return f"the launcher's command on every machine, which ends: {shlex.join([*kept, '--resume'])}"
    by_itself = here.is_alone or any(one.startswith("--num-processes") for one in kept)
    started = [] if by_itself else ["torchrun", f"--nproc-per-node={here.size}", "-m"]
    return shlex.join([*started, "featherweight", *kept, "--resume"])


@contextmanager
def explained(directory: RunDirectory, command: str | None) -> Iterator[None]:
    """Say of a stop how to go on, and of the end of the memory what to change.

    Raises:
        Interrupted: with the command that resumes.
        OutOfMemory: instead of whatever a library raises where memory runs out.
    """
    command = command or f"the same command with --resume (the run is in {directory.path})"
    try:
        yield
    except Interrupted as interrupted:
        raise Interrupted(f"{interrupted}; continue with: {command}") from None
    except (MemoryError, RuntimeError) as error:
        from featherweight.engine.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "out of memory; lower data.max_length or training.per_device_train_batch_size, or give the run more; "
            f"continue with: {command}"
        ) from error


def find_checkpoint(
    checkpoints: Checkpoints, directory: RunDirectory, resume: bool | str, console: Console
) -> Checkpoint | None:
    """The checkpoint to go on from; None begins at the beginning.

    Raises:
        ModelError: the one named is damaged, or all are.
        ConfigError: the one named belongs to a run with other settings, each of which is named.
    """
    from featherweight.engine.training.checkpoints import read

    if not resume:
        return None
    if isinstance(resume, str):
        found = read(Path(resume))
        directory.refuse_other(found.identity, checkpoints.identity)
        checkpoints.require_best(found)
    else:
        newest = checkpoints.newest(console.say)
        if newest is None:
            console.say("no checkpoint yet: starting from the beginning")
            return None
        found = newest
    console.say(f"continuing after step {found.step}")
    return found


@contextmanager
def taken(directory: RunDirectory, resume: bool, keep_failed: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Within this context the folder is the run's, which goes on with the products that it began with.

    Raises:
        ConfigError: what is there is no run, or one that is not to be taken up, or not by so many processes.
    """
    with directory.taken(resume, keep_failed):
        if directory.environment.is_file():
            _require_as_many(directory)
        with multiplying_as(directory):
            yield


@contextmanager
def multiplying_as(directory: RunDirectory) -> Iterator[None]:
    """Within this context matrices are multiplied as in a run that has begun, on the processor that it began on."""
    if not directory.environment.is_file():
        yield
        return
    from featherweight.engine.fast.machine_speed import keeping_to
    from featherweight.engine.hardware import describe

    here, began = describe(), directory.read_environment()
    same = all(here[key] == began.get("hardware", {}).get(key) for key in ("processor", "device"))
    with keeping_to(began.get("execution", {}) if same else {}):
        yield


def _require_as_many(directory: RunDirectory) -> None:
    """Raises ConfigError where a run is taken up by another number of processes than it began with."""
    began, now = directory.read_environment().get("processes", 1), launch.place().size
    if began != now:
        raise ConfigError(
            f"{directory.path}: was begun by {began} process{'es' if began > 1 else ''}, and a step is of as many rows "
            f"in each; start {began} again (now {now})"
        )


_NO_SAY = ("platform", "memory_bytes", "threads")  # no bit depends on these; hardware.torch_threads has the last


def record(directory: RunDirectory, step: int, now: Mapping[str, Any], console: Console) -> None:
    """Note in the history that the run was taken up after ``step``, and what is not as when it began.

    Args:
        now: this process's environment, as in ``environment.json``.
    """
    began = directory.read_environment()
    changed = {
        f"{section}.{key}": [began.get(section, {}).get(key), value]
        for section in ("hardware", "versions", "execution")
        for key, value in now[section].items()
        if began.get(section, {}).get(key) != value and key not in _NO_SAY and not key.endswith("reason")
    }
    directory.append_history({"event": "resume", "step": step, "changed": changed})
    if changed:
        console.say(f"{changes(changed)}: the result may differ in the last bits from an uninterrupted run's")


def changes(changed: Mapping[str, Any]) -> str:
    """What differs from when the run began, in words."""
    return "; ".join(f"{key} was {before}, is {now}" for key, (before, now) in changed.items())


def reliability(directory: RunDirectory, resources: TrainingCost, gate: Gate) -> Reliability:
    """Saves, skipped steps, memory and resumes, from the run's own history."""
    history = directory.read_history()
    sizes = [event["bytes"] for event in history if event["event"] == "checkpoint"]
    parts = [event["micro_batch_rows"] for event in history if event["event"] == "out_of_memory"]
    resumes: list[Resume] = [
        {"step": event["step"], "changed": event["changed"], "bit_exact": not event["changed"]}
        for event in history
        if event["event"] == "resume"
    ]
    found: Reliability = {
        "checkpoints": {
            "saves": resources["saves"],
            "seconds": resources["save_seconds"],
            "share_of_training": resources["save_seconds"] / max(resources["train_runtime"], 1e-9),
            "bytes": max(sizes, default=0),
        },
        "skipped_steps": [event["step"] for event in history if event["event"] == "skipped_step"],
        "micro_batch_rows": parts[-1] if parts else None,
        "resumes": resumes,
        "gate": gate,
    }
    if off := [event["observer"] for event in history if event["event"] == OFF]:
        found["failed_observers"] = off
    return found
