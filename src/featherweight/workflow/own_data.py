"""The data of a finished run, read again: whether it is what the run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.recipe import Recipe
from featherweight.records.rows import Examples, Split
from featherweight.registry import TASKS
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks.reading.splits import HELD_OUT


@dataclass(frozen=True)
class OwnData:
    """A run's splits, carved and sampled as the run's recipe says.

    Attributes:
        examples: by split.
        changed: what is not as it was when the run was made, such as a file.
        kept: the splits whose rows are those of the run.
    """

    examples: Mapping[str, Examples]
    changed: list[str]
    kept: frozenset[str]


def read_own_data(directory: RunDirectory, recipe: Recipe) -> OwnData:
    """Raises DataError where the data is gone, or so changed that it can't be read as the recipe says."""
    try:
        splits = data.load(recipe.data)
    except DataError as error:
        raise DataError(f"{error}; {directory.path} was made with this data, so bring it back as it was") from None
    recorded = {name: one["fingerprint"] for name, one in directory.read_environment().get("data", {}).items()}
    changed = _changed(recorded, splits)
    try:
        examples: Mapping[str, Examples]
        _, examples = TASKS[recipe.task].prepare(splits, recipe.data, recipe.training.seed)
    except DataError as error:
        raise DataError(f"{error} (changed since {directory.path} was made)" if changed else str(error)) from None
    examples = {name: _left(directory, one) for name, one in examples.items()}
    same = {name: one for name, one in examples.items() if recorded.get(name) == one.fingerprint}
    drawn = {name: one for name, one in same.items() if _is_drawn_otherwise(directory, one)}
    changed += [f"how {one.name} rows are drawn from {one.origin.removesuffix(HELD_OUT)}" for one in drawn.values()]
    return OwnData(examples, changed, frozenset(same) - frozenset(drawn))


def holds_train(directory: RunDirectory, examples: Examples) -> bool:
    """Whether rows come from the file that the run was trained on."""
    if not directory.environment.is_file():
        return False
    train = directory.read_environment().get("data", {}).get("train", {})
    return bool(train.get("fingerprint") == examples.fingerprint)


def _changed(recorded: dict[str, str], splits: dict[str, Split]) -> list[str]:
    """Files that differ; a split that was carved has the fingerprint of train's file."""
    now = {name: split.fingerprint for name, split in splits.items()}
    differ = [splits[name].origin for name, found in now.items() if name in recorded and recorded[name] != found]
    gone = {name for name, fingerprint in recorded.items() if name not in now and fingerprint != recorded.get("train")}
    return [*differ, *(f"the {name} split (which is gone)" for name in sorted(gone))]


def _left(directory: RunDirectory, examples: Examples) -> Examples:
    """Without the rows that the run left out once they were tokenised, where those that it kept are all there."""
    kept = _answered(directory, examples.name)
    if kept is None or not np.isin(kept, examples.ids).all():
        return examples
    return examples.select(np.flatnonzero(np.isin(examples.ids, kept)))


def _answered(directory: RunDirectory, split: str) -> NDArray[np.int64] | None:
    """Which rows of a split the run kept its answers to."""
    if not directory.has_predictions("tuned", split):
        return None
    return directory.read_predictions("tuned", split).ids


def _is_drawn_otherwise(directory: RunDirectory, examples: Examples) -> bool:
    """Whether the rows are not those that the run kept its answers to; of train it kept none."""
    kept = _answered(directory, examples.name)
    return kept is not None and not np.array_equal(kept, examples.ids)
