"""What is shown of figures, as data: text, tables, plots, and how numbers are written in them. No markup here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Part = dict[str, Any]
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a plot: ``kind`` 1 to 3 picks its colour and dashes; ``marks`` draws its points."""

    name: str
    points: Sequence[Point]
    kind: int = 1
    marks: bool = False


@dataclass(frozen=True)
class Lines:
    """Lines over two linear axes.

    Attributes:
        description: in words, for who can't see it.
        x: what the horizontal axis is; ``y`` the vertical one.
        unit: both axes run from 0 to 1.
        diagonal: a thin line from 0, 0 to 1, 1.
    """

    title: str
    description: str
    series: Sequence[Series]
    x: str
    y: str
    unit: bool = False
    diagonal: bool = False


@dataclass(frozen=True)
class Intervals:
    """A point and its interval for each row.

    Attributes:
        rows: name, value, lower end, upper end.
        kinds: of line, from 1 to 3, one a row.
    """

    title: str
    description: str
    rows: Sequence[tuple[str, float, float, float]]
    kinds: Sequence[int]
    x: str


@dataclass(frozen=True)
class Axis:
    """What a place along a line means.

    Attributes:
        low, high: what the axis has to reach from and to.
        log: places are those of the logarithms.
        names: of the whole numbers from 0, where places are choices.
    """

    name: str
    low: float
    high: float
    log: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Dot:
    """A point that says what it is. ``kind`` 1 to 3 picks its colour; ``hollow`` marks what did not come to its end."""

    at: Point
    text: str
    kind: int = 1
    hollow: bool = False


@dataclass(frozen=True)
class Dots:
    """Points over two axes.

    Attributes:
        legend: what each kind is, and whether it is hollow.
    """

    title: str
    description: str
    dots: Sequence[Dot]
    x: Axis
    y: Axis
    legend: Sequence[tuple[str, int, bool]] = ()


@dataclass(frozen=True)
class Parallel:
    """An axis beside the other, and a line across them for each of several things (Inselberg, 1985).

    Attributes:
        lines: a value for each axis, None where it has none; what it is; its kind, 1 to 3. Later ones lie above.
        legend: what each kind is.
    """

    title: str
    description: str
    axes: Sequence[Axis]
    lines: Sequence[tuple[Sequence[float | None], str, int]]
    legend: Sequence[tuple[str, int]] = ()


Plot = Lines | Intervals | Dots | Parallel


@dataclass(frozen=True)
class Column:
    """One column of a table in the terminal.

    Attributes:
        name: its head, which may wrap at spaces.
        leaves: the order in which columns go where there is no room: the greatest first, and 0 stays.
        words: its cells are texts or names, which may wrap at spaces; else they are values and stand on one line.
    """

    name: str
    leaves: int = 0
    words: bool = False


@dataclass(frozen=True)
class Brief:
    """A table for the terminal."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def section(title: str, content: list[Part]) -> dict[str, Any]:
    return {"id": title.lower().replace(" ", "-"), "title": title, "parts": content}


def text(text: str) -> Part:
    return {"kind": "text", "text": text}


def plots(*drawn: Plot) -> Part:
    return {"kind": "plots", "plots": list(drawn)}


def table(caption: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], mark: str = "") -> Part:
    return {"kind": "table", "caption": caption, "columns": columns, "rows": rows, "class": mark}


def examples(
    caption: str,
    columns: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]],
    texts: Sequence[int] = (0,),
) -> Part:
    """A table that can be searched, one to a page.

    Args:
        groups: by name, rows of cells.
        texts: places of the columns that hold running text.
    """
    return {"kind": "examples", "caption": caption, "columns": columns, "groups": groups, "texts": texts}


def row(name: str, *cells: str, mark: str = "", verdict: str = "") -> dict[str, Any]:
    return {"name": name, "cells": list(cells), "class": mark, "verdict": verdict}


def difference(one: Mapping[str, Any]) -> tuple[str, str]:
    low, high = one["confidence_interval"]
    return f"{one['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}"


def paired(caption: str, names: tuple[str, str], titles: Mapping[str, str], found: Mapping[str, Any]) -> Part:
    """Two models on the same rows by several statistics.

    Args:
        names: what the models are called.
        titles: of the statistics, by name.
        found: by the statistic's name, what :func:`featherweight.evidence.two_models.by_every_statistic` gives.
    """
    rows = [
        row(
            titles[name],
            f"{one['base']:.4f}",
            f"{one['tuned']:.4f}",
            *difference(one),
            f"{one['p_value']:.3g}",
            f"{one['p_value_holm']:.3g}",
            verdict=one["verdict"],
        )
        for name, one in found.items()
    ]
    columns = ["statistic", *names, "difference", "95 % interval", "p", "p (Holm)", "verdict"]
    return table(caption, columns, rows)


def seconds(value: float) -> str:
    minutes, rest = divmod(value, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else ""


def shortened(text: str, width: int = 90) -> str:
    """Text on one line, cut at a space where it is longer."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    start = text[: width - 1]
    return f"{start.rpartition(' ')[0] or start}…"
