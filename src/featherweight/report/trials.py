"""The page of a sweep: what it showed, every trial, and what its keys do to the figure on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.answers import kind_of, statistics_of
from featherweight.records import parts
from featherweight.records.parts import Axis, Dot, Dots, Parallel, Part
from featherweight.report import tables

Found = Mapping[str, Any]

_COMPLETE, _WINNER, _RECIPE = 1, 2, 3
_KINDS = [("trial", _COMPLETE), ("the winner", _WINNER), ("the recipe as it stands", _RECIPE)]
_MOST_AXES = 7


def sections(found: Found) -> list[dict[str, Any]]:
    """All sections, from the content of ``sweep.json``."""
    made = [
        ("The winner", _compared(found)),
        ("Trials", _trials(found)),
        ("What the keys do", _keys(found)),
        ("How it was searched", _how(found)),
    ]
    return [parts.section(title, content) for title, content in made if content]


def _compared(found: Found) -> list[Part]:
    """The winner beside the recipe, on rows that chose nothing."""
    winner = found["winner"]
    other = found["default"] if found["default"] != winner["run"] else None
    where = f"It is a run like any other, in {winner['run']}/, with a report of its own"
    content = [
        parts.text(f"Trial {winner['trial']}: {tables.setting(winner['settings'])}."),
        parts.text(f"{where}; so is the recipe as it stands, in {other}/." if other else f"{where}."),
    ]
    if found["comparison"] is None:
        return content
    titles = {one.name: one.title for one in statistics_of(kind_of(found))}
    caption = f"The same {found['comparison']['n']:,} {found['evaluated_split']} rows"
    content.append(parts.paired(caption, ("recipe", "winner"), titles, found["comparison"]["paired"]))
    content.append(
        parts.text(
            "The interval is that of other rows. What another seed would do to either is not in it: run --seeds with "
            "the winner's recipe.toml shows that."
        )
    )
    return content


def _trials(found: Found) -> list[Part]:
    names = tables.keys(found["parameters"])
    rows = [
        parts.row(*cells, mark="mine" if one["number"] == found["winner"]["trial"] else "")
        for one, cells in zip(found["trials"], tables.trial_rows(found), strict=True)
    ]
    columns = ["trial", *names, tables.figure_title(found["compared_by"]), "seconds", "what came of it"]
    caption = f"Every trial, on {found['selection']['split']}; a column's name sorts by it"
    return [parts.table(caption, columns, rows, mark="sorts"), *_across(found)]


def _across(found: Found) -> list[Part]:
    """Every complete trial as a line across its settings, where these are several and not too many."""
    shown = _complete(found)
    names = list(found["parameters"])
    if not 2 <= len(names) < _MOST_AXES or len(shown) < 2:
        return []
    axes = [_axis(found, name) for name in names]
    lines = [
        ([_value(found, key, one) for key in names] + [one["value"]], _called(one), _kind(found, one)) for one in shown
    ]
    ordered = sorted(lines, key=lambda line: (line[2] == _WINNER, line[2] == _RECIPE))
    plot = Parallel(
        "Trials across their settings",
        f"A line for each of {len(shown)} trials, over {', '.join(tables.keys(names))} and "
        f"{tables.figure_title(found['compared_by'])} on validation.",
        [*axes, _figure_axis(found)],
        ordered,
        _legend(found),
    )
    return [parts.plots(plot)]


def _keys(found: Found) -> list[Part]:
    """What each key does to the figure, as far as so many trials show it."""
    plots = [_scatter(found, key) for key in found["parameters"]]
    content = [parts.plots(*(one for one in plots if one is not None))]
    if found["importance"] is None:
        return content
    rows = [parts.row(key, f"{share:.0%}") for key, share in found["importance"]["shares"].items()]
    shown = tables.importance(found)
    return [
        *content,
        parts.table(shown.title, ["key", "share of the scatter"], rows),
        parts.text(
            "By functional ANOVA (Hutter et al., 2014): the share of the variance of a random forest, fitted to the "
            "complete trials, that each key explains alone. So few trials give a hint, and no more."
        ),
    ]


def _legend(found: Found) -> list[tuple[str, int]]:
    return [*_KINDS[:2], *(_KINDS[2:] if found["winner"]["trial"] > 0 else [])]


def _scatter(found: Found, key: str) -> Dots | None:
    dots = []
    for one in found["trials"]:
        value, place = _last_value(one), _value(found, key, one)
        if value is not None and place is not None:
            dots.append(Dot((place, value), _called(one), _kind(found, one), one["state"] != "complete"))
    if not dots:
        return None
    title, axis = tables.figure_title(found["compared_by"]), _axis(found, key)
    best = next((dot for dot in dots if dot.kind == _WINNER), dots[0])
    return Dots(
        f"{title.capitalize()} by {axis.name}",
        f"{len(dots)} trials by {axis.name}; the best is {best.text}.",
        sorted(dots, key=lambda dot: dot.kind == _WINNER),
        axis,
        _figure_axis(found),
        [*((what, kind, False) for what, kind in _legend(found)), ("ended early: its last figure", _COMPLETE, True)],
    )


def _how(found: Found) -> list[Part]:
    budget = found["budget"]
    spent = f"{len(found['trials'])} trials took {parts.seconds(budget['seconds'])}"
    ends = {"trials": "as many as were asked for", "time": "as many as the time was enough for",
            "nothing left": "which are all combinations"}  # fmt: skip
    pruned, failed = (sum(one["state"] == state for one in found["trials"]) for state in ("pruned", "failed"))
    lines = [
        f"{spent}, {ends[budget['ended_by']]}: {pruned} pruned, {failed} failed. Trial 0 is the recipe as it stands; "
        "the others differ from it in these keys alone. Behind what was to come first, Optuna's TPE chose them, from "
        "the trials before each.",
        "Data, tokens, the untuned model's figures and the cheap rivals were read and measured once for all trials.",
    ]
    if found["held_out"] is not None:
        lines.append(
            f"The data has no labelled test split, so {found['held_out']:.0%} of train was held out for one "
            "(data.test_fraction)."
        )
    rows = [parts.row(key, *_written(one)) for key, one in found["parameters"].items()]
    return [*map(parts.text, lines), parts.table("What was tried", ["key", "values"], rows, mark="wordy")]


def _written(parameter: Any) -> list[str]:
    if isinstance(parameter, list):
        return [", ".join(map(tables.as_text, parameter))]
    scale = ", on a logarithmic scale" if parameter["log"] else ""
    step = f", in steps of {parameter['step']:g}" if "step" in parameter else ""
    return [f"from {parameter['low']:g} to {parameter['high']:g}{scale}{step}"]


def _complete(found: Found) -> list[Mapping[str, Any]]:
    return [one for one in found["trials"] if one["state"] == "complete"]


def _last_value(trial: Mapping[str, Any]) -> float | None:
    """What it is compared by; of one that ended early the last that was measured."""
    if trial["value"] is None and trial["evaluations"]:
        return float(trial["evaluations"][-1]["value"])
    return None if trial["value"] is None else float(trial["value"])


def _kind(found: Found, trial: Mapping[str, Any]) -> int:
    if trial["number"] == found["winner"]["trial"]:
        return _WINNER
    return _RECIPE if trial["number"] == 0 else _COMPLETE


def _called(trial: Mapping[str, Any]) -> str:
    value = _last_value(trial)
    return f"trial {trial['number']} ({tables.setting(trial['settings'])})" + (
        "" if value is None else f": {value:.4f}"
    )


def _choices(found: Found, key: str) -> list[Any]:
    """The values of a key that is chosen from a list, numbers in their order; with the recipe's own."""
    listed: list[Any] = list(found["parameters"][key])
    for one in found["trials"]:
        if key in one["settings"] and one["settings"][key] not in listed:
            listed.append(one["settings"][key])
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed)
    return sorted(listed) if numbers else listed


def _value(found: Found, key: str, trial: Mapping[str, Any]) -> float | None:
    """Where a trial lies on the axis of a key; None where the key means nothing for it."""
    if key not in trial["settings"]:
        return None
    value = trial["settings"][key]
    if isinstance(found["parameters"][key], list):
        return float(_choices(found, key).index(value))
    return float(value) if isinstance(value, int | float) else None


def _axis(found: Found, key: str) -> Axis:
    name = dict(zip(found["parameters"], tables.keys(found["parameters"]), strict=True))[key]
    parameter = found["parameters"][key]
    if isinstance(parameter, list):
        choices = _choices(found, key)
        return Axis(name, 0, len(choices) - 1, names=[*map(tables.as_text, choices)])
    seen = [place for one in found["trials"] if (place := _value(found, key, one)) is not None]
    ends: Sequence[float] = [parameter["low"], parameter["high"], *seen]
    return Axis(name, min(ends), max(ends), log=parameter["log"])


def _figure_axis(found: Found) -> Axis:
    values = [value for one in found["trials"] if (value := _last_value(one)) is not None]
    return Axis(tables.figure_title(found["compared_by"]), min(values), max(values))
