"""The data of a finished run, read again: whether it is what the run was made with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featherweight.errors import DataError
from featherweight.recipe import Recipe
from featherweight.records import Examples, Split
from featherweight.registry import TASKS
from featherweight.runs import RunDirectory
from featherweight.sources import data
from featherweight.tasks.splits import HELD_OUT


@dataclass(frozen=True)
class OwnData:
    """A run's splits, carved and sampled as the run's recipe says.

    Attributes:
        examples: by split.
        changed: what is not as it was, such as a file; empty where held-out rows are those that the run held out.
    """

    examples: dict[str, Examples]
    changed: list[str]


def read_own_data(directory: RunDirectory, recipe: Recipe) -> OwnData:
    """Raises DataError where the data is gone, or so changed that it can't be read as the recipe says."""
    try:
        splits = data.load(recipe.data)
    except DataError as error:
        raise DataError(f"{error}; {directory.path} was made with this data, so bring it back as it was") from None
    recorded = directory.read_environment().get("data", {})
    changed = _changed({name: one["fingerprint"] for name, one in recorded.items()}, splits)
    try:
        examples: dict[str, Examples]
        _, examples = TASKS[recipe.task].prepare(splits, recipe.data, recipe.training.seed)
    except DataError as error:
        raise DataError(f"{error} (changed since {directory.path} was made)" if changed else str(error)) from None
    changed = changed or _drawn_otherwise(directory, examples)
    if changed:
        examples = {name: replace(one, origin=one.origin.removesuffix(HELD_OUT)) for name, one in examples.items()}
    return OwnData(examples, changed)


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


def _drawn_otherwise(directory: RunDirectory, examples: dict[str, Examples]) -> list[str]:
    """Held-out splits whose rows are not those that the run kept its answers to."""
    found = []
    for name, one in examples.items():
        if (directory.predictions / f"tuned-{name}.parquet").is_file():
            kept = directory.read_predictions("tuned", name).ids
            if not np.array_equal(kept, one.ids):
                found.append(f"how {name} rows are drawn from {Path(one.origin.removesuffix(HELD_OUT)).name}")
    return found
