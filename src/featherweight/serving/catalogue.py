"""Which models a server answers for, by name: loaded at the start, or while it runs where that is allowed."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from featherweight import recipe as recipes
from featherweight.engine.hardware import give_back_freed_memory
from featherweight.errors import ConfigError
from featherweight.methods import adapters
from featherweight.runs import FACTS, RunDirectory
from featherweight.serving.adapters import SharedBase, weights_of
from featherweight.serving.backends import Backend, OwnModel
from featherweight.serving.loading import load
from featherweight.serving.predictor import load_predictor
from featherweight.sources import models
from featherweight.sources.models import read_json

BASE = "@base"  # behind a run's name: its untuned model, as the run measured it
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


@dataclass
class Served:
    """One name that answers.

    Attributes:
        name: what clients call it.
        key: what its backend calls it, never given twice.
        labels: in the order of the probabilities.
        base_of: the run whose untuned model this is; None for a run itself.
        in_use: requests that wait for it; it stays in memory until there are none.
        unloaded: nobody new may ask for it.
    """

    name: str
    key: str
    backend: Backend
    labels: tuple[str, ...]
    base_of: str | None = None
    in_use: int = 0
    unloaded: bool = False


def is_name(name: str) -> bool:
    """Whether a model may be named so: never a path, a hidden file or a device."""
    return _NAME.fullmatch(name) is not None and name.partition(".")[0].casefold() not in _DEVICES


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """The name that each path is served under: the last part of it.

    Raises:
        ConfigError: two have the same, or one is no name.
    """
    named: dict[str, str] = {}
    for path in paths:
        name = Path(path).resolve().name
        if not is_name(name):
            raise ConfigError(f"{path}: {name!r} can't be a model's name (A-Z a-z 0-9 . _ -, at most 64); rename it")
        if name in named:
            raise ConfigError(f"{path}: {named[name]} has the name {name!r} too; rename one of them")
        named[name] = path
    return named


class Catalogue:
    """All that answers. Loading and unloading is for one thread at a time, the rest for any."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}
        self._bases: dict[str, SharedBase] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def all(self) -> list[Served]:
        with self._lock:
            return list(self._served.values())

    def find(self, name: str) -> Served | None:
        with self._lock:
            return self._served.get(name)

    def take(self, name: str) -> Served | None:
        """Look a model up for a request, which must :meth:`give_back` it."""
        with self._lock:
            served = self._served.get(name)
            if served is not None:
                served.in_use += 1
            return served

    def give_back(self, served: Served) -> None:
        with self._lock:
            served.in_use -= 1
        self._forget_unused(served)

    def load(self, name: str, path: str) -> None:
        """Load a run, an adapter or a model; from then on ``name`` answers.

        Raises:
            ModelError: it can't be found, read or trusted.
            ConfigError: its recipe can't be read.
        """
        # By a thread that ends: OpenMP keeps a pool for each thread that ever computed, and once they have more members
        # than there are cores, all sleep between any two products and have to be woken, which doubles a text's time.
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
            made = loader.submit(lambda: self._adapter(name, path) or self._own(name, path)).result()
        give_back_freed_memory()  # of the copy of the base model that a further adapter was loaded on
        with self._lock:
            self._served |= {one.name: one for one in made}

    def unload(self, name: str) -> None:
        """Stop answering for a run, its untuned model included; what waits for them is still answered."""
        with self._lock:
            gone = [one for one in self._served.values() if name in (one.name, one.base_of)]
            for one in gone:
                del self._served[one.name]
                one.unloaded = True
        for one in gone:
            self._forget_unused(one)

    def _forget_unused(self, served: Served) -> None:
        with self._lock:
            if not served.unloaded or served.in_use or not isinstance(served.backend, SharedBase):
                return
            if served.backend.remove(served.key) == 0:
                self._bases = {print_: base for print_, base in self._bases.items() if base is not served.backend}

    def _own(self, name: str, path: str) -> list[Served]:
        predictor = load_predictor(path)
        return [Served(name, name, OwnModel(predictor), tuple(predictor.labels))]

    def _adapter(self, name: str, path: str) -> list[Served]:
        """A plain LoRA adapter, on the base model that others share; nothing where it is something else."""
        fingerprint = _base_fingerprint(path)
        if fingerprint is None:
            return []
        run = RunDirectory(path)
        is_run = run.recipe.is_file()
        if is_run:
            import transformers

            transformers.set_seed(recipes.load(run.recipe).training.seed)  # draws the head that the run began with
        loaded = load(path)
        weights = weights_of(loaded)
        if weights is None:
            return []
        tuned, original = weights
        base = self._bases.get(fingerprint) or SharedBase(loaded, original)
        key = f"{name}#{next(self._numbers)}"
        labels = tuple(loaded.task.labels)
        base.add(key, loaded, tuned)
        made = [Served(name, key, base, labels)]
        if is_run:
            base.add(key + BASE, loaded, original)
            made.append(Served(name + BASE, key + BASE, base, labels, base_of=name))
        self._bases[fingerprint] = base
        return made


def _base_fingerprint(path: str) -> str | None:
    """Of the base model that an adapter was made for; None where ``path`` is no adapter."""
    run = RunDirectory(path)
    folder = run.path / "adapter" if run.recipe.is_file() else run.path
    if not (folder / adapters.CONFIG).is_file():
        return None
    known = read_json(folder / FACTS).get("base_model", {}) if (folder / FACTS).is_file() else {}
    if "fingerprint" in known:
        return str(known["fingerprint"])
    config = adapters.check(folder)
    return models.find(str(config.get("base_model_name_or_path")), config.get("revision")).fingerprint
