"""What a sweep tried and what that shows: the contract of ``sweep.json``. The text after a key says what it means."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from featherweight.records.outcome import PairedTest


class Evaluated(TypedDict):
    """An evaluation while a trial trained, on validation."""

    epoch: float
    """Passes over train made by then."""
    step: int
    """Optimizer steps made by then."""
    value: float
    """What trials are compared by, ``compared_by``."""


class Trial(TypedDict):
    """One setting of the swept keys, and what came of it."""

    number: int
    """Counted from 0, which is the recipe as it stands."""
    settings: dict[str, Any]
    """Dotted key of the recipe to its value, for each swept key that means something with the trial's method."""
    state: Literal["complete", "pruned", "stopped", "failed"]
    """Whether it trained to its end; was worse than most at the same epoch; had no time left; or failed."""
    reason: str | None
    """Why it did not train to its end; null where it did."""
    value: float | None
    """What trials are compared by, of the weights that would be published; null where none would be."""
    figures: dict[str, float]
    """The same weights' evaluation on validation, as ``eval_<name>``; empty where there are none."""
    candidates: int
    """Evaluations from which those weights were chosen; 1 where the last are published whatever they are."""
    evaluations: list[Evaluated]
    """Every evaluation while it trained."""
    epochs: float
    """Passes over train that it was to make; 0 where it failed before."""
    seconds: float
    """On the clock, from reading its settings to its end; after a kill, from where it was taken up."""


class Budget(TypedDict):
    """What there was to spend, and what was spent."""

    trials: int | None
    """The most trials; null where time alone is the limit."""
    time_limit: str | None
    """The most time; null where there is none."""
    seconds: float
    """What all trials took."""
    ended_by: Literal["trials", "time", "nothing left"]
    """Which limit ended it; ``nothing left`` where every combination was tried."""


class Flattery(TypedDict):
    """By how much the figures that chose the winner flatter it."""

    split: str
    """The split that chose."""
    rows: int
    """Its rows."""
    candidates: int
    """Evaluations, over all trials, from which the winner's was chosen."""
    optimism_at_most: float
    """What choosing adds to the headline's figure there, on average, were all candidates equally good and
    independent."""
    chosen_on: float
    """The winner's headline on the split that chose."""
    untouched: float
    """The winner's headline on the evaluated split, which chose nothing."""


class Winner(TypedDict):
    """The trial that is best on validation."""

    trial: int
    """Its number."""
    settings: dict[str, Any]
    """Its settings."""
    run: str
    """The folder of its complete run, within the sweep's."""
    headline: str
    """What that run says of itself."""


class Compared(PairedTest):
    """The winner against the recipe as it stands, in pairs on the evaluated split, and by each statistic of the kind:
    ``base`` is the recipe, ``tuned`` the winner."""

    withheld: NotRequired[str]
    """Why ``verdict`` says less than the test does."""


class Importance(TypedDict):
    """How much of the trials' scatter each swept key explains."""

    method: str
    """How that is estimated."""
    trials: int
    """Complete trials that it is estimated from."""
    shares: dict[str, float]
    """Dotted key to its share, from 0 to 1."""


class Sweep(TypedDict):
    """The content of ``sweep.json``, written last: where it is, the sweep is complete."""

    schema_version: Literal[1]
    """The version of this contract."""
    recipe: str
    """The recipe's name."""
    task: str
    """The recipe's task."""
    answer: str
    """The kind of answer, which says what ``eval_*`` figures there are."""
    compared_by: str
    """The figure on validation that trials are compared by."""
    less_is_better: bool
    """Whether less of it is better."""
    parameters: dict[str, Any]
    """Dotted key to its list of values, or to its range."""
    budget: Budget
    """What there was to spend, and what was spent."""
    trials: list[Trial]
    """Every trial, in the order in which they were begun."""
    winner: Winner
    """The best trial."""
    default: str | None
    """The folder of the complete run of the recipe as it stands; null where that failed."""
    evaluated_split: str
    """The split that the comparison is of; its rows chose nothing."""
    held_out: float | None
    """The share of train that was held out for that, because the data has no labelled test split; null where it has or
    the recipe says."""
    selection: Flattery
    """By how much the figures that chose the winner flatter it."""
    comparison: Compared | None
    """The winner against the recipe as it stands; null where they are the same, or the recipe failed."""
    importance: Importance | None
    """How much each swept key explains; null where there are too few trials to say."""
    headline: str
    """What the sweep showed, in words."""
