"""Checkpoints that are complete or absent.

A checkpoint is written aside in the same folder, every file flushed to disk, and renamed; its manifest, written last,
holds each file's SHA-256. Tensors are safetensors and everything else is JSON: nothing is a pickle, on either side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from featherweight.engine.fleet import Fleet
from featherweight.errors import ModelError, ResourceError
from featherweight.storage.cache import file_hash
from featherweight.storage.whole import free_bytes, remove_folder, tidy, write_folder, writing

# Counts up when what a checkpoint holds, or how a step follows from it, changes its meaning.
CONTRACT = 1

_MANIFEST = "manifest.json"
_STATE = "state.json"
_IDENTITY = "identity.json"
_MARGIN = 64 * 1024  # names, JSON and the file system's own blocks


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: optimizer steps done.
        tensors: group (``trainable``, ``optimizer``, ``rng``, of several processes also ``rng-1`` and on) to name to
            tensor, on the CPU.
        state: JSON-able rest.
        identity: flat facts of the run that decide its outcome.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return _MARGIN + sum(value.nbytes for group in self.tensors.values() for value in group.values())


class Kept(Protocol):
    """Where training keeps its checkpoints."""

    def save(self, checkpoint: Checkpoint, best_step: int | None) -> None: ...

    def load(self, step: int) -> Checkpoint: ...


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds one folder a checkpoint, ``step-000200``.
        keep: how many of the newest to keep besides the best one.
        identity: written into each checkpoint.
    """

    def __init__(self, folder: Path, keep: int, identity: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.keep = keep
        self.identity = dict(identity or {})
        self._whole: set[int] = set()  # known to be, since this process wrote or read them

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, valid or not, in order of the step, whatever the files' dates."""
        found = [re.fullmatch(r"step-(\d{6,})", path.name, re.ASCII) for path in self.folder.glob("step-*")]
        return sorted(int(one.group(1)) for one in found if one)

    def save(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        """Write one checkpoint, read it back, and only then remove those that are neither newest nor best.

        Raises:
            ResourceError: the disk is full or can't be written; the checkpoints that were there are untouched.
        """
        step = checkpoint.step
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._whole.discard(step)
        write_folder(self._path(step), lambda aside: _write(aside, checkpoint, self.identity), checkpoint.bytes)
        if not self._is_whole(step):
            raise ResourceError(f"{self._path(step)}: reads back other than it was written; is the disk failing?")
        newest = [one for one in reversed(self.steps()) if self._is_whole(one)][: self.keep]
        for old in self.steps():
            if old not in {*newest, best_step} and old < step:
                remove_folder(self._path(old))

    def load(self, step: int) -> Checkpoint:
        """Read and verify one checkpoint. Raises ModelError where it is damaged."""
        return read(self._path(step))

    def newest(self, warn: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
        """The newest checkpoint from which the run can be finished, or None where there is none at all.

        Args:
            warn: called with a line for each damaged checkpoint that is passed over.

        Raises:
            ModelError: there are checkpoints, and all are damaged.
        """
        tidy(self.folder)
        problems = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step)
                self.require_best(checkpoint)
                return checkpoint
            except ModelError as error:
                problems.append(str(error))
                warn(f"{error}; trying the one before")
        if problems:
            raise ModelError(f"{self.folder}: no checkpoint is whole: {problems[0]}; start anew in another folder")
        return None

    def require_best(self, checkpoint: Checkpoint) -> None:
        """Raises ModelError where the best checkpoint so far, which the end of the run needs, is damaged."""
        best = checkpoint.state.get("best_step")
        if best is not None and best != checkpoint.step and not self._is_whole(best):
            raise ModelError(f"{self._path(checkpoint.step)}: {self._path(best).name}, the best so far, is damaged")

    def require_room(self, size: int, more: int) -> None:
        """Refuse to begin what the disk can't hold.

        Args:
            size: bytes of a checkpoint.
            more: bytes of what is written besides.

        Raises:
            ResourceError: says how much is needed and free.
        """
        there = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        needed = max(disk_bytes(size, self.keep) - there, size) + more
        if (free := free_bytes(self.folder)) < needed:
            raise ResourceError(
                f"{self.folder}: the run needs {needed:,} bytes and {free:,} are free; make room, lower "
                "training.save_total_limit, choose another --output-dir, or take the risk with --force"
            )

    def _is_whole(self, step: int) -> bool:
        if step not in self._whole:
            try:
                _verify(self._path(step))
            except ModelError:
                return False
            self._whole.add(step)
        return self._path(step).is_dir()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


class Shared:
    """The checkpoints of a run of several processes: rank 0 writes and reads, and all get what it reads.

    Args:
        own: rank 0's; None on the others.
    """

    def __init__(self, fleet: Fleet, own: Checkpoints | None) -> None:
        self._fleet = fleet
        self._own = own

    def save(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        """As :meth:`Checkpoints.save`; nobody goes on before it is on the disk."""
        if self._own is not None:
            self._own.save(checkpoint, best_step)
        self._fleet.barrier()

    def load(self, step: int) -> Checkpoint:
        """As :meth:`Checkpoints.load`."""
        found = self.share(None if self._own is None else self._own.load(step))
        assert found is not None
        return found

    def share(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """What rank 0 has."""
        told = None
        if checkpoint is not None:
            forms = {
                group: {name: [str(value.dtype).removeprefix("torch."), [*value.shape]] for name, value in one.items()}
                for group, one in checkpoint.tensors.items()
            }
            told = {**vars(checkpoint), "tensors": forms}
        told = self._fleet.share(told)
        if told is None:
            return None
        if checkpoint is None:
            made = {
                group: {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in one.items()}
                for group, one in told["tensors"].items()
            }
            checkpoint = Checkpoint(**{**told, "tensors": made})
        self._fleet.share_values([value for group in checkpoint.tensors.values() for value in group.values()])
        return checkpoint


def disk_bytes(size: int, keep: int) -> int:
    """The most that checkpoints of ``size`` bytes take: those kept, the best, and the one being written."""
    return (keep + 2) * size


def size_of(model: Any) -> int:
    """Bytes of a checkpoint of ``model``: what trains, and Adam's two moments of it in fp32."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _MARGIN + sum(int(one.nbytes) + 2 * 4 * int(one.numel()) for one in trained)


def read(folder: Path) -> Checkpoint:
    """Read and verify the checkpoint in ``folder``. Raises ModelError that says what is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest = _verify(folder)
    try:
        state, identity = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (_STATE, _IDENTITY))
        names = [name for name in manifest["sha256"] if name.endswith(".safetensors")]
        tensors = {Path(name).stem: load_file(folder / name) for name in names}
        return Checkpoint(int(state["step"]), tensors, state, identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({error})") from None


def _verify(folder: Path) -> dict[str, Any]:
    """The manifest, once every file is what it says and there is no other."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["contract"] != CONTRACT:
            raise ModelError(f"{folder}: written by another version of Featherweight (contract {manifest['contract']})")
        there = {path.name for path in folder.iterdir()} - {_MANIFEST}
        if stranger := min(there - {*manifest["sha256"]}, default=None):
            raise ModelError(f"{folder / stranger}: not part of the checkpoint; it is not opened")
        for name, digest in manifest["sha256"].items():
            if Path(name).name != name or Path(name).suffix not in {".json", ".safetensors"}:
                raise ModelError(f"{folder / _MANIFEST}: names {name!r}, which no checkpoint holds")
            if file_hash(folder / name) != digest:
                raise ModelError(f"{folder / name}: damaged (its checksum differs)")
        return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({error})") from None


def _write(folder: Path, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    for group, tensors in checkpoint.tensors.items():
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / f"{group}.safetensors")
    state = {**checkpoint.state, "step": checkpoint.step}
    for name, content in {_STATE: state, _IDENTITY: identity}.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    sums = {path.name: file_hash(path) for path in sorted(folder.iterdir())}
    manifest = {"contract": CONTRACT, "sha256": sums}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
