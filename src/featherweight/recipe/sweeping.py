"""The ``[sweep]`` table: which keys of a recipe are tried at which values, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from featherweight.errors import ConfigError
from featherweight.recipe.section import Section
from featherweight.recipe.values import Duration, PositiveFloat, PositiveInt
from featherweight.registry import METHODS, TASKS, did_you_mean

if TYPE_CHECKING:
    from featherweight.recipe.sections import Recipe

SECTIONS = ("model", "data", "method", "training")
# Of [data] what leaves the measured rows as they are.
_OF_DATA = ("max_length", "max_train_samples", "drop_train_twins", "drop_suspects", "long_texts", "stride", "pool")
_OF_TOKENS = ("model.name", "model.revision", "data.max_length")
_OF_ALL = ("evidence", "evaluation", "name", "task", "sweep")
_COMPARED = ("training.metric_for_best_model", "training.greater_is_better")


class Range(Section):
    """Every number from ``low`` to ``high``, both included; whole ones where both are whole."""

    low: int | float = Field(description="the least")
    high: int | float = Field(description="the greatest")
    log: bool = Field(False, description="draw on a logarithmic scale, as rates want it")
    step: PositiveInt | PositiveFloat | None = Field(None, description="only low, low + step, ...")

    @model_validator(mode="after")
    def _is_one(self) -> Range:
        if not self.low < self.high:
            raise ValueError("'low' has to be below 'high'")
        if self.log and self.low <= 0:
            raise ValueError("'low' has to be above 0 where 'log' is true")
        if self.log and self.step is not None:
            raise ValueError("give 'log' or 'step', not both")
        if self.is_whole and isinstance(self.step, float):
            raise ValueError("'step' has to be whole, as 'low' and 'high' are")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these numbers."""
        is_number = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            return False
        return self.step is None or abs((value - self.low) / self.step % 1 - 0.5) > 0.5 - 1e-9


def _kind(value: Any) -> str:
    return "range" if isinstance(value, Range | dict) else "choices"


def _require_parameter(value: Any) -> Any:
    """In one line, where it is nothing of the kind."""
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty list; give the values to choose from")
        if any(one in value[:place] for place, one in enumerate(value)):
            raise ValueError("names one value twice")
    elif not isinstance(value, Range | dict):
        raise ValueError("a list of values, or { low = 1e-5, high = 1e-2, log = true }, was expected")
    return value


def flat(value: Any) -> Any:
    """Tables within tables by dotted keys, so that ``[sweep.parameters.training]`` reads as ``[training]`` does."""
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, one in value.items():
        inner = one if isinstance(one, dict) and one and not one.keys() & Range.model_fields.keys() else None
        found |= {key: one} if inner is None else {f"{key}.{name}": value for name, value in flat(inner).items()}
    return found


Parameter = Annotated[
    Annotated[Annotated[Range, Tag("range")] | Annotated[list[Any], Tag("choices")], Discriminator(_kind)],
    BeforeValidator(_require_parameter),
]


class SweepSection(Section):
    """What ``featherweight sweep`` tries; ``run`` does not look at it."""

    parameters: Annotated[dict[str, Parameter], BeforeValidator(flat)] = Field(
        {},
        description="dotted key of the recipe to a list of values, or to a range such as { low = 1e-5, high = 1e-2, "
        "log = true }, of whole numbers where both ends are whole",
    )
    first: list[Annotated[dict[str, Any], BeforeValidator(flat)]] = Field(
        [], description="settings to try before any others, each a table of dotted keys"
    )
    trials: Annotated[int, Field(ge=2)] | None = Field(
        None, description="how many, the recipe as it stands among them; 20 if neither this nor time_limit is set"
    )
    time_limit: Duration | None = Field(None, description="such as '15 min', for all of it")
    prune: bool = Field(
        True, description="end a trial whose validation figure is below the median of those before it at the same epoch"
    )


def applies(key: str, method: str) -> bool:
    """Whether a key means something with this method: the options of others do not."""
    section, _, name = key.partition(".")
    return section != "method" or name.partition(".")[0] in METHODS[method].Options.model_fields


def problems(recipe: Recipe, lay: Callable[[Recipe, Mapping[str, Any], str], Recipe]) -> list[str]:
    """A line for each parameter that the recipe does not have, or that can't take one of its values.

    Args:
        lay: gives the recipe with other values, or raises ConfigError with lines that begin with its last argument.
    """
    found: list[str] = []
    sweep = recipe.sweep or SweepSection()
    for key, parameter in sweep.parameters.items():
        found += _refused(key, recipe.task) or [
            line for one in _laid(recipe, key, parameter) for line in _tried(recipe, one, lay)
        ]
    for one in sweep.first:
        unknown = [key for key in one if key not in sweep.parameters]
        found += [
            f"sweep.first: {key!r} is none of 'parameters'{did_you_mean(key, sweep.parameters)}" for key in unknown
        ]
        found += [] if unknown or found else _tried(recipe, one, lay)
    return list(dict.fromkeys(found))


def _refused(key: str, task: str) -> list[str]:
    """Why all trials have to have the same value of this key."""
    section, _, name = key.partition(".")
    if not name or section not in SECTIONS:
        if section in _OF_ALL:
            return [f"sweep.parameters: {key!r} is the same for all trials; leave it out"]
        guess = did_you_mean(section, SECTIONS)
        return [f"sweep.parameters: {key!r} is no section.key of {', '.join(SECTIONS)}{guess}"]
    if key in _COMPARED:
        return [f"sweep.parameters: {key!r} is what trials are compared by, so it is the same for all; leave it out"]
    if TASKS[task].scores_tokens and key in _OF_TOKENS:
        return [
            f"sweep.parameters: {key!r} decides which tokens there are, and {task} is measured by the token, so trials "
            "could not be compared; leave it out"
        ]
    if section == "data" and name not in _OF_DATA:
        return [
            f"sweep.parameters: {key!r} decides which rows there are or what is measured, so trials could not be "
            f"compared; leave it out{did_you_mean(name, _OF_DATA)}"
        ]
    return []


def _laid(recipe: Recipe, key: str, parameter: Range | list[Any]) -> Iterator[dict[str, Any]]:
    """The settings that show whether a parameter's values can be: each choice, or both ends, with a method that has the
    key, where another may be chosen."""
    values: Sequence[Any] = [parameter.low, parameter.high] if isinstance(parameter, Range) else parameter
    for value in values:
        yield {**_with_method(recipe, key), key: value}


def _with_method(recipe: Recipe, key: str) -> dict[str, Any]:
    """The method to try an option with, where the recipe's own does not have it and another that may be chosen does."""
    if key == "method.name" or applies(key, recipe.method.name):
        return {}
    assert recipe.sweep is not None
    choices = recipe.sweep.parameters.get("method.name", [])
    named = [one for one in choices if isinstance(one, str) and one in METHODS] if isinstance(choices, list) else []
    return next(({"method.name": one} for one in named if applies(key, one)), {})


def _tried(
    recipe: Recipe, values: Mapping[str, Any], lay: Callable[[Recipe, Mapping[str, Any], str], Recipe]
) -> list[str]:
    try:
        lay(recipe, values, "sweep.parameters")
    except ConfigError as error:
        return error.problems
    return []
