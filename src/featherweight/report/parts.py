"""What sections are made of: text, tables, and how figures are written in them. No markup here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Part = dict[str, Any]


def section(title: str, content: list[Part]) -> dict[str, Any]:
    return {"id": title.lower().replace(" ", "-"), "title": title, "parts": content}


def text(text: str) -> Part:
    return {"kind": "text", "text": text}


def table(caption: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], mark: str = "") -> Part:
    return {"kind": "table", "caption": caption, "columns": columns, "rows": rows, "class": mark}


def row(name: str, *cells: str, mark: str = "", verdict: str = "") -> dict[str, Any]:
    return {"name": name, "cells": list(cells), "class": mark, "verdict": verdict}


def difference(one: Mapping[str, Any]) -> tuple[str, str]:
    low, high = one["confidence_interval"]
    return f"{one['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}"


def seconds(value: float) -> str:
    minutes, rest = divmod(value, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else ""
