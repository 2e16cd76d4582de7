"""Plots as inline SVG: colours are the page's CSS variables, and each has a title and a description in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from featherweight.records.parts import Axis, Dots, Intervals, Lines, Parallel, Plot, Point

_WIDTH, _HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 14, 52
_ROW = 30
_SHORTEST = 12  # characters of a name at a tick
_LONGEST, _CHARACTER = 27, 8  # of a name: characters, and the width of one where the plot is narrowest


def draw(plot: Plot) -> Markup:
    """A plot as a figure with its title, a description in words and its legend."""
    return _DRAWN[type(plot)](plot)


def _lines(plot: Lines) -> Markup:
    title, description, series, x, y = plot.title, plot.description, plot.series, plot.x, plot.y
    shown = [point for one in series for point in one.points if all(map(math.isfinite, point))]
    if not shown:
        return Markup("")
    across = _ticks(*_range([point[0] for point in shown], plot.unit))
    up = _ticks(*_range([point[1] for point in shown], plot.unit))
    scale = _Scale(across, up)
    parts = [_axes(scale, x, y)]
    if plot.diagonal:
        (x1, y1), (x2, y2) = scale.at((0, 0)), scale.at((1, 1))
        parts.append(_tag('<line class="thin" x1="{}" y1="{}" x2="{}" y2="{}"/>', x1, y1, x2, y2))
    for one in series:
        places = [scale.at(point) for point in one.points if all(map(math.isfinite, point))]
        path = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
        parts.append(_tag('<polyline class="line k{}" points="{}"/>', one.kind, path))
        if one.marks:
            parts += [_tag('<circle class="mark k{}" cx="{}" cy="{}" r="3.5"/>', one.kind, *place) for place in places]
    return _picture(title, description, (_WIDTH, _HEIGHT), parts, [_line_key(one.name, one.kind) for one in series])


def _intervals(plot: Intervals) -> Markup:
    title, description, rows, x = plot.title, plot.description, plot.rows, plot.x
    low, high = min(row[2] for row in rows), max(row[3] for row in rows)
    ticks = _ticks(low, high)
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name, *_ in rows]
    left, height = 18 + _CHARACTER * max(map(len, names)), _TOP + _ROW * len(rows) + _BOTTOM
    scale = _Scale(ticks, [0, 1], left=left, height=height)
    parts = []
    for tick in ticks:
        across = scale.at((tick, 0))[0]
        parts.append(_tag('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', across, _TOP, height - _BOTTOM))
        parts.append(_tag('<text x="{}" y="{}" text-anchor="middle">{}</text>', across, height - 31, f"{tick:g}"))
    for index, ((_, value, below, above), kind) in enumerate(zip(rows, plot.kinds, strict=True)):
        up = _TOP + _ROW * (index + 0.5)
        ends = [scale.at((end, 0))[0] for end in (below, above, value)]
        label = '<text class="name" x="{}" y="{}" text-anchor="end">{}</text>'
        parts.append(_tag(label, left - 10, up + 4, names[index]))
        parts.append(_tag('<line class="line k{}" x1="{}" x2="{}" y1="{}" y2="{}"/>', kind, *ends[:2], up, up))
        parts.append(_tag('<circle class="mark k{}" cx="{}" cy="{}" r="4.5"/>', kind, ends[2], up))
    middle = (left + _WIDTH - _RIGHT) / 2
    parts.append(_tag('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>', middle, height - 6, x))
    return _picture(title, description, (_WIDTH, height), parts)


def _dots(plot: Dots) -> Markup:
    across, names = _places(plot.x)
    up, _ = _places(plot.y)
    scale = _Scale(across, up, names=names)
    parts = [_axes(scale, plot.x.name, plot.y.name)]
    for one in plot.dots:
        x, y = scale.at((_place(plot.x, one.at[0]), one.at[1]))
        parts.append(_dot(one.kind, one.hollow, (x, y), one.text))
    keys = [(_dot(kind, hollow, (13.0, 5.0), "", 4.0), name) for name, kind, hollow in plot.legend]
    return _picture(plot.title, plot.description, (_WIDTH, _HEIGHT), parts, keys)


def _dot(kind: int, hollow: bool, place: Point, text: str, radius: float = 5.0) -> Markup:
    title = _tag("<title>{}</title>", text) if text else Markup("")
    mark = '<circle class="mark k{}{}" cx="{}" cy="{}" r="{}">{}</circle>'
    return _tag(mark, kind, " hollow" if hollow else "", *place, radius, title)


def _parallel(plot: Parallel) -> Markup:
    """The axes are as far apart as there is room, their ticks at their left."""
    top, bottom = _TOP + 22, _HEIGHT - 24
    first, last = 64.0, _WIDTH - 40.0
    apart = (last - first) / max(len(plot.axes) - 1, 1)
    scales = [_places(axis) for axis in plot.axes]

    def height(index: int, place: float) -> float:
        ticks = scales[index][0]
        return bottom - (place - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - top)

    parts = []
    for values, text, kind in plot.lines:
        points = [
            (first + index * apart, height(index, _place(plot.axes[index], value)))
            for index, value in enumerate(values)
            if value is not None
        ]
        path = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
        line = '<polyline class="line k{}{}" points="{}"><title>{}</title></polyline>'
        parts.append(_tag(line, kind, " faint" if kind == 1 else "", path, text))
    for index, (axis, (ticks, names)) in enumerate(zip(plot.axes, scales, strict=True)):
        across = first + index * apart
        parts.append(_tag('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', across, top, bottom))
        parts.append(
            _tag('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>', across, top - 14, axis.name)
        )
        for tick, name in zip(ticks, names, strict=True):
            label = '<text class="halo" x="{}" y="{}" text-anchor="end">{}</text>'
            parts.append(_tag(label, across - 6, height(index, tick) + 4, name))
    keys = [_line_key(name, kind) for name, kind in plot.legend]
    return _picture(plot.title, plot.description, (_WIDTH, _HEIGHT), parts, keys)


def _place(axis: Axis, value: float) -> float:
    return math.log10(value) if axis.log else value


def _places(axis: Axis) -> tuple[list[float], list[str]]:
    """Where an axis has its ticks, the first and last at its ends, and what stands there."""
    if axis.names:
        names = [*map(_short, axis.names)]
        return ([0.0, 1.0], [*names, ""]) if len(names) == 1 else ([*map(float, range(len(names)))], names)
    ticks = _log_ticks(axis.low, axis.high) if axis.log else _ticks(axis.low, axis.high)
    return [_place(axis, one) for one in ticks], [f"{one:g}" for one in ticks]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and where these are few 2 and 5 times as much, from at most ``low`` to at least ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) < 4 else (1,))]
    first = max(place for place, one in enumerate(ticks) if one <= low * (1 + 1e-9))
    last = min(place for place, one in enumerate(ticks) if one >= high * (1 - 1e-9) and place > first)
    return ticks[first : last + 1]


def _short(name: str) -> str:
    return name if len(name) <= _SHORTEST else f"{name[: _SHORTEST - 1]}…"


@dataclass(frozen=True)
class _Scale:
    """From values to places in the picture; the first and last tick are the ends. ``names`` stand at the ticks across
    where these are not numbers to read."""

    across: Sequence[float]
    up: Sequence[float]
    left: float = _LEFT
    height: float = _HEIGHT
    names: Sequence[str] = ()

    def at(self, point: Point) -> Point:
        x = (point[0] - self.across[0]) / (self.across[-1] - self.across[0])
        y = (point[1] - self.up[0]) / (self.up[-1] - self.up[0])
        bottom = self.height - _BOTTOM
        return self.left + x * (_WIDTH - _RIGHT - self.left), bottom - y * (bottom - _TOP)


def _axes(plot: _Scale, x: str, y: str) -> Markup:
    parts = []
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in plot.up:
        up = plot.at((plot.across[0], tick))[1]
        parts.append(_tag('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', _LEFT, right, up, up))
        parts.append(_tag('<text x="{}" y="{}" text-anchor="end">{}</text>', _LEFT - 8, up + 4, f"{tick:g}"))
    for index, tick in enumerate(plot.across):
        across = plot.at((tick, plot.up[0]))[0]
        shown = plot.names[index] if plot.names else f"{tick:g}"
        anchor = "end" if tick == plot.across[-1] and len(shown) > 4 else "middle"  # so that it is not cut off
        parts.append(_tag('<text x="{}" y="{}" text-anchor="{}">{}</text>', across, bottom + 21, anchor, shown))
    middle = (_LEFT + right) / 2
    parts.append(_tag('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>', middle, _HEIGHT - 6, x))
    across_text = '<text class="axis" text-anchor="middle" transform="translate(14 {}) rotate(-90)">{}</text>'
    parts.append(_tag(across_text, (_TOP + bottom) / 2, y))
    return Markup("").join(parts)


def _line_key(name: str, kind: int) -> tuple[Markup, str]:
    return _tag('<line class="line k{}" x1="1" x2="25" y1="5" y2="5"/>', kind), name


def _picture(
    title: str,
    description: str,
    size: tuple[float, float],
    parts: Sequence[Markup],
    legend: Sequence[tuple[Markup, str]] = (),
) -> Markup:
    """
    Args:
        legend: what is drawn, in 26 by 10, and what it is.
    """  # fmt: skip
    width, height = size
    name = re.sub(r"\W+", "-", title.lower())
    key = '<li><svg aria-hidden="true" viewBox="0 0 26 10">{}</svg>{}</li>'
    keys = Markup("").join(_tag(key, drawn, label) for drawn, label in legend)
    return Markup(
        '<figure><figcaption>{title}</figcaption><svg class="plot" role="img" viewBox="0 0 {width} {height}" '
        'aria-labelledby="plot-{name}-title plot-{name}-text"><title id="plot-{name}-title">{title}</title>'
        '<desc id="plot-{name}-text">{description}</desc>{parts}</svg>{keys}</figure>'
    ).format(
        title=title,
        description=description,
        width=width,
        height=height,
        name=name,
        parts=Markup("").join(parts),
        keys=_tag('<ul class="legend">{}</ul>', keys) if len(legend) > 1 else "",
    )


def _range(values: Sequence[float], unit: bool) -> tuple[float, float]:
    return (0.0, 1.0) if unit else (min(values), max(values))


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values at equal distances that reach from at most ``low`` to at least ``high``."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(rough))
    step = min((one * size for one in (1, 2, 5, 10)), key=lambda one: abs(one - rough))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _tag(template: str, *values: object) -> Markup:
    """The template with its values escaped, numbers to a tenth of a pixel."""
    return Markup(template).format(*(f"{one:.1f}" if isinstance(one, float) else one for one in values))


_DRAWN: dict[type, Callable[[Any], Markup]] = {
    Lines: _lines, Intervals: _intervals, Dots: _dots, Parallel: _parallel,
}  # fmt: skip
