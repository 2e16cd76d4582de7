"""Checkpoints that are complete or absent.

A checkpoint is written aside in the same folder, every file flushed to disk, and renamed; its manifest, written last,
holds each file's SHA-256. Tensors are safetensors and everything else is JSON: nothing is a pickle, on either side.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from featherweight.errors import ModelError, ResourceError
from featherweight.sources.cache import file_hash

_MANIFEST = "manifest.json"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: optimizer steps done.
        tensors: group (``trainable``, ``optimizer``, ``rng``) to name to tensor, on the CPU.
        state: JSON-able rest.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds one folder a checkpoint, ``step-000200``.
        keep: how many of the newest to keep besides the best one.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, valid or not, in order."""
        found = [path.name.removeprefix("step-") for path in self.folder.glob("step-*")]
        return sorted(int(step) for step in found if step.isdecimal())

    def save(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        """Write one checkpoint, then remove those that are neither newest nor best.

        Raises:
            ResourceError: the disk is full or can't be written; the checkpoints that were there are untouched.
        """
        aside = self.folder / f".step-{checkpoint.step:06d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            _write(aside, checkpoint)
            target = self._path(checkpoint.step)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            _sync(self.folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise ResourceError(f"{self.folder}: the checkpoint can't be written: {error.strerror}") from error
        kept = {*self.steps()[-self.keep :], best_step}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self._path(step), ignore_errors=True)

    def load(self, step: int) -> Checkpoint:
        """Read and verify one checkpoint. Raises ModelError where it is damaged."""
        return read(self._path(step))

    def newest(self, warn: Any = None) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Args:
            warn: called with a line for each damaged checkpoint that is passed over.

        Raises:
            ModelError: there are checkpoints, and all are damaged.
        """
        steps = self.steps()
        problems = []
        for step in reversed(steps):
            try:
                return self.load(step)
            except ModelError as error:
                problems.append(str(error))
                if warn is not None:
                    warn(f"{error}; trying the one before")
        if problems:
            raise ModelError(f"{self.folder}: no checkpoint is whole: {problems[0]}")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def read(folder: Path) -> Checkpoint:
    """Read and verify the checkpoint in ``folder``. Raises ModelError that says what is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name, digest in manifest["sha256"].items():
            if file_hash(folder / Path(name).name) != digest:
                raise ModelError(f"{folder / name}: damaged (its checksum differs)")
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        names = [name for name in manifest["sha256"] if name.endswith(".safetensors")]
        tensors = {Path(name).stem: load_file(folder / Path(name).name) for name in names}
        return Checkpoint(int(manifest["step"]), tensors, state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({error})") from None


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    from safetensors.torch import save_file

    for group, tensors in checkpoint.tensors.items():
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / f"{group}.safetensors")
    (folder / _STATE).write_text(json.dumps(checkpoint.state, indent=1), encoding="utf-8")
    files = sorted(folder.iterdir())
    manifest = {"step": checkpoint.step, "sha256": {path.name: file_hash(path) for path in files}}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync_tree(folder)


def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder``, and the folder, to the disk."""
    paths: Iterable[Path] = [path for path in folder.rglob("*") if path.is_file()]
    for path in [*paths, folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
