"""Training that goes on from an adapter (``model.adapter``): what the adapter settles, and what must agree with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.errors import ConfigError, FeatherweightError
from featherweight.inference.loading import Origin, origin_of
from featherweight.methods import Adapted, Method
from featherweight.methods.peft import adapters
from featherweight.recipe import MethodOptions, Recipe
from featherweight.records.outcome import StartedFrom
from featherweight.registry import METHODS, TASKS, did_you_mean
from featherweight.sources import models
from featherweight.sources.models import ModelSource
from featherweight.storage.cache import file_hash, key_of
from featherweight.storage.names import beside
from featherweight.tasks import Task


@dataclass(frozen=True)
class Start:
    """An adapter that training goes on from.

    Attributes:
        name: as the recipe has it.
        origin: where it lies and what is known of it.
        fingerprint: of its configuration and weights.
        options: of the method that made it, by name; they stay as they are.
    """

    name: str
    origin: Origin
    fingerprint: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, source: ModelSource) -> Start | None:
        """What the recipe says to go on from; None where it begins afresh.

        Raises:
            ConfigError: it is no adapter, was made for another base model or by another method, or the recipe has
                options that it was not made with.
            ModelError: it is damaged or can't be trusted.
        """
        name = recipe.model.adapter
        if name is None:
            return None
        nothing = f"model.adapter: {name} is no run and no adapter{did_you_mean(name, beside(Path(name)))}"
        try:
            models.placed(name)
        except FeatherweightError as error:
            raise type(error)(f"{nothing}: {error}") from None
        origin = origin_of(name)
        if origin is None:
            raise ConfigError(nothing)
        if not origin.is_adapter:
            raise ConfigError(f"model.adapter: {name} was tuned whole; give {origin.folder} as model.name instead")
        if origin.fingerprint not in (None, source.fingerprint):
            raise ConfigError(f"model.adapter: {name} was made for {origin.where!r}, not for {source.name!r}")
        method: type[Method] = METHODS[recipe.method.name]
        if not method.goes_on:
            raise ConfigError(
                f"model.adapter: PEFT loads what {recipe.method.name} learned to answer with it, and not to train it "
                "further; leave it out, and train for longer"
            )
        options = method.options_of(adapters.check(origin.folder))
        if options is None:
            raise ConfigError(f"model.adapter: {name} was not made by the method {recipe.method.name!r}")
        _require_agreement(recipe.method, options, name)
        files = (file_hash(origin.folder / one) for one in (adapters.CONFIG, adapters.WEIGHTS))
        return cls(name, origin, key_of(*files), options)

    def settle(self, recipe: Recipe, reasons: dict[str, str]) -> Recipe:
        """The recipe with what the adapter answers, its length and its kind of head, where it leaves them open.

        Raises:
            ConfigError: the recipe asks for other answers, or nobody says what the adapter's are.
        """
        task: type[Task] = TASKS[recipe.task]
        known = self.origin.known
        if known.get("task", recipe.task) != recipe.task:
            raise ConfigError(
                f"task: the adapter in model.adapter was tuned for {known['task']}, not for {recipe.task}"
            )
        section = task.going_on(recipe.data, known, self.name)
        section = section.model_copy(update={"max_length": recipe.data.max_length or known.get("max_length")})
        reasons |= {f"data.{key}": "the adapter's" for key, value in section if value != getattr(recipe.data, key)}
        held = {key: one for key, one in self.origin.holding.items() if key not in recipe.model.model_fields_set}
        reasons |= {f"model.{key}": "the adapter's" for key in held}
        head = {} if self.origin.run is None else {"head": self.origin.run.model.head}
        model = recipe.model.model_copy(update={**head, **held})
        return recipe.model_copy(update={"data": section, "model": model})

    def load(self, model: Any, fresh: list[str]) -> Adapted:
        """Put the adapter on its base model, ready to train.

        Args:
            fresh: modules that the base model's own checkpoint lacks, so that the adapter must bring them.
        """
        chosen = {key: (value, "the adapter's") for key, value in self.options.items()}
        return Adapted(adapters.load(model, self.origin.folder, fresh, trainable=True), chosen)

    def describe(self) -> StartedFrom:
        return {"adapter": self.name, "revision": self.origin.commit, "fingerprint": self.fingerprint}


def _require_agreement(asked: MethodOptions, made: Mapping[str, Any], name: str) -> None:
    """Raises ConfigError for options that the recipe spells out and the adapter was not made with."""
    given = asked.model_dump(include=asked.model_fields_set - {"name"}, exclude_none=True)
    for key, value in given.items():
        same = (
            set(value) <= set(made.get(key, ())) if key == "modules_to_save" else _plain(value) == _plain(made.get(key))
        )
        if not same:
            raise ConfigError(f"method.{key}: {value!r}, but {name} was made with {made.get(key)!r}; leave it out")


def _plain(value: Any) -> Any:
    """PEFT's files have lists of names in their own order."""
    return sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
