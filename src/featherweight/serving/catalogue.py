"""Which models a server answers for, by name: loaded at the start, or while it runs where that is allowed."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from featherweight.engine.hardware import give_back_freed_memory
from featherweight.engine.running.many_adapters import AdapterWeights
from featherweight.errors import ConfigError, ModelError
from featherweight.inference.backends import Answerer, OwnModel
from featherweight.inference.loading import LoadedModel, Origin, load_tuned, load_untuned, origin_of
from featherweight.inference.predictor import Predictor, load_predictor
from featherweight.inference.shared_base import SharedBase, shared_base_of, untuned_heads, weights_of
from featherweight.inference.torch_backend import TorchBackend
from featherweight.sources.hub import split_revision
from featherweight.storage.cache import file_hash, key_of
from featherweight.storage.names import exists
from featherweight.tasks import Task

BASE = "@base"  # behind a run's name: its untuned model, as the run measured it
_log = logging.getLogger("featherweight.serving")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


@dataclass
class Served:
    """One name that answers.

    Attributes:
        name: what clients call it.
        key: what its backend calls it, never given twice.
        base_of: the run whose untuned model this is; None for a run itself.
        in_use: requests that wait for it; it stays in memory until there are none.
        unloaded: nobody new may ask for it.
    """

    name: str
    key: str
    backend: Answerer
    base_of: str | None = None
    in_use: int = 0
    unloaded: bool = False

    @property
    def task(self) -> Task:
        return self.backend.task(self.key)


def is_name(name: str) -> bool:
    """Whether a model may be named so: never a path, a hidden file or a device."""
    return _NAME.fullmatch(name) is not None and name.partition(".")[0].casefold() not in _DEVICES


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """The name that each path is served under: the last part of it, without the revision of a hub's.

    Raises:
        ConfigError: two have the same, or one is no name.
    """
    named: dict[str, str] = {}
    for path in paths:
        name = (Path(path) if exists(Path(path)) else Path(split_revision(path)[0])).resolve().name
        if not is_name(name):
            raise ConfigError(f"{path}: {name!r} can't be a model's name (A-Z a-z 0-9 . _ -, at most 64); rename it")
        if name in named:
            raise ConfigError(f"{path}: {named[name]} has the name {name!r} too; rename one of them")
        named[name] = path
    return named


class Catalogue:
    """All that answers. Loading and unloading is for one thread at a time, the rest for any.

    Args:
        base_model: where the adapters' base model is on this machine; where they say themselves if None.
    """

    def __init__(self, base_model: str | None = None) -> None:
        self._base_model = base_model
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
            made = loader.submit(self._make, name, path).result()
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

    def _make(self, name: str, path: str) -> list[Served]:
        """All that answers for a path: itself and, of a run, its untuned model."""
        origin = origin_of(path, self._base_model)
        if origin is None:
            predictor = load_predictor(path)
            return [Served(name, name, OwnModel(predictor))]
        _seed(origin)
        loaded = load_tuned(path, origin)
        weights = weights_of(loaded) if origin.is_adapter else None
        place = self._place(path, origin, loaded) if weights or origin.run else None
        key = f"{name}#{next(self._numbers)}"
        if place and weights and place.base.is_under(loaded, weights):
            place.base.add(key, loaded, weights)
            made = [Served(name, key, place.base)]
        else:
            made = [Served(name, key, OwnModel(Predictor(TorchBackend(loaded))))]
        if place and origin.run:
            place.base.add(key + BASE, loaded, place.heads)
            made.append(Served(name + BASE, key + BASE, place.base, base_of=name))
        if place and any(one.backend is place.base for one in made):
            self._bases[place.key] = place.base
        return made

    def _place(self, path: str, origin: Origin, loaded: LoadedModel) -> _Place | None:
        """Where a run or an adapter stands; None where a run that needs no base has lost it."""
        try:
            key = _key(origin, loaded.task)
            base = self._bases.get(key)
            if base is not None and origin.is_adapter:
                return _Place(key, base, untuned_heads(loaded))
            _seed(origin)
            untuned = load_untuned(path, origin)
        except (ConfigError, ModelError) as error:
            if origin.is_adapter:
                raise
            _log.warning(f"its untuned model is not served: {error}")
            return None
        heads = untuned_heads(untuned)
        return _Place(key, base or shared_base_of(untuned), heads)


@dataclass(frozen=True)
class _Place:
    """What a run or an adapter stands on.

    Attributes:
        key: of the base model, among all.
        heads: those of the run's untuned model.
    """

    key: str
    base: SharedBase
    heads: AdapterWeights


def _key(origin: Origin, task: Task) -> str:
    """One for all models of the same weights, held alike, of one configuration and tokenizer, and the same kind of
    head, that writes the same language."""
    source = origin.base
    others = sorted(path for end in ("json", "txt", "model") for path in source.folder.glob(f"*.{end}"))
    hashes = {path.name: file_hash(path) for path in others}
    head = task.head()
    return key_of(source.fingerprint, origin.holding, head.kind, head.languages or (), hashes)


def _seed(origin: Origin) -> None:
    """Let what a run drew be drawn again: the head that it began with, and what a random initialisation computes."""
    import transformers

    if origin.run is not None:
        transformers.set_seed(origin.run.training.seed)
