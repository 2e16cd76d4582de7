"""The rows of a run, as its task sees them: read, checked for leaks, and shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from featherweight.answers import Answer
from featherweight.errors import ConfigError
from featherweight.evidence.data import checks, label_issues
from featherweight.evidence.data.duplicates import Fingerprints
from featherweight.evidence.data.label_issues import Suspects
from featherweight.recipe import Recipe
from featherweight.records.rows import Examples
from featherweight.registry import BASELINES, TASKS
from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import SUSPECTS
from featherweight.sources import data
from featherweight.tasks import Task


@dataclass(frozen=True)
class Rows:
    """The rows as the task sees them, with what the data's checks know of them so far."""

    task: Task
    examples: dict[str, Examples]
    prints: dict[str, Fingerprints]
    dropped_twins: int
    suspects: Suspects | None


def read(recipe: Recipe, console: Console) -> Rows:
    """Read every split, and refuse rows that are measured though they stand in train."""
    splits = data.load(recipe.data)
    task_class: type[Task] = TASKS[recipe.task]
    task, read = task_class.prepare(splits, recipe.data, recipe.training.seed)
    examples = dict(read)
    for name, split in splits.items():
        if name not in examples or examples[name].origin != split.origin:
            console.say(f"{name}: left out, for {split.origin} has no labels")
    kind = task.answer
    _require_own_rivals(recipe, kind)
    prints = checks.fingerprint(examples)
    if not recipe.data.allow_leak:
        checks.refuse_leaks(examples, prints, recipe.data.group)
    dropped = 0
    if recipe.data.drop_train_twins:
        kept = checks.rows_without_twins(kind, examples, prints)
        dropped = len(examples["train"]) - len(kept)
        examples["train"] = examples["train"].select(kept)
        prints["train"] = prints["train"].select(kept)
        console.say(f"train: {dropped:,} rows left out because their text also stands in a held-out split")
    suspects = _drop_suspects(recipe, kind, examples, prints, console) if recipe.data.drop_suspects else None
    rows = Rows(task, examples, prints, dropped, suspects)
    show(rows, console)
    return rows


def show(rows: Rows, console: Console) -> None:
    """What each split is like, and how it was read."""
    kind = rows.task.answer
    console.show(tables.described(kind.described, described(kind, rows.examples), rows.examples))
    for one in rows.examples.values():
        for line in _said_of(one):
            console.say(f"{one.name}: {line}")


def _drop_suspects(
    recipe: Recipe, kind: Answer, examples: dict[str, Examples], prints: dict[str, Fingerprints], console: Console
) -> Suspects:
    """Take out of train, and of nothing else, the rows whose label is suspected to be wrong."""
    if "suspected-label-errors" not in kind.checks:
        raise ConfigError(f"data.drop_suspects: is for one label a row, which {recipe.task} has not; leave it out")
    console.begin("looking for labels that are likely wrong")
    look = checks.Look(kind, {"train": examples["train"]}, prints, {}, recipe.training.seed, None)
    found = label_issues.suspects(look)
    examples["train"] = examples["train"].select(found.kept)
    prints["train"] = prints["train"].select(found.kept)
    console.say(
        f"train: {len(found.found):,} rows left out because their label is suspected to be wrong, of "
        f"{found.looked_at:,} looked at; {SUSPECTS} in the run's folder lists them"
    )
    return found


def described(kind: Answer, examples: Mapping[str, Examples]) -> dict[str, dict[str, float]]:
    """What the truth of each split is like."""
    return {name: kind.describe(one.truth) for name, one in examples.items()}


def _said_of(examples: Examples) -> Iterator[str]:
    """What a person has to be told of how a split was read."""
    if examples.reading:
        yield examples.reading
    if examples.skipped:
        yield f"{examples.skipped} rows left out because they can't be read"
    if examples.dropped:
        yield f"{examples.dropped} rows left out because {examples.dropped_for}"


def _require_own_rivals(recipe: Recipe, kind: Answer) -> None:
    own = BASELINES.for_kind(kind.baselines, kind.name)
    if foreign := [name for name in recipe.evidence.baselines or [] if name not in own]:
        raise ConfigError(
            f"evidence.baselines: {foreign[0]!r} does not answer as {recipe.task} does; known: {', '.join(own)}"
        )
