"""What is wrong with the entities that are wrong: their type, where they begin and end, or that they are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from featherweight.answers import entities
from featherweight.answers.entities import Entities
from featherweight.answers.tags import TAGS
from featherweight.evidence.exhibits import MODELS, Case
from featherweight.records import parts
from featherweight.records.answers import Answers
from featherweight.records.parts import Brief, Column, Part

_ERRORS = {
    "type": "right words, other type",
    "boundary": "right type, other words",
    "both": "other words and other type",
    "missed": "not found at all",
    "spurious": "found where none is",
}
_MOST_CONFUSED = 20


class EntityErrors:
    title: ClassVar[str] = "Entities"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``entity_errors``: of each model ``right``, how many of each error, and ``confused``, the types that are
        taken for others (``label``, ``prediction``, ``entities``); ``entities``: precision, recall, F1 and support of
        each type, of each model."""
        kind = case.kind
        return {
            "entity_errors": {
                model: _errors(answers, case.truth, kind.possible)
                for model, answers in zip(MODELS, case.pair, strict=True)
            },
            "entities": {
                model: dict(kind.details(answers, case.truth)["entities"])
                for model, answers in zip(MODELS, case.pair, strict=True)
            },
        }

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        found = metrics["entity_errors"]
        rows = [
            parts.row(what, *(f"{found[model][name]:,}" for model in MODELS))
            for name, what in {"right": "right", **_ERRORS}.items()
        ]
        made = [parts.table("Entities of the evaluated rows", ["", "base", "tuned"], rows)]
        before, after = (metrics["entities"][model] for model in MODELS)
        by_type = [
            parts.row(name, f"{one['support']:,}", f"{before[name]['f1']:.4f}", *_figures(one))
            for name, one in after.items()
        ]
        columns = ["type", "entities", "F1 before", "F1 after", "precision", "recall"]
        made.append(parts.table("By type", columns, by_type))
        confused = [
            parts.row(one["label"], one["prediction"], f"{one['entities']:,}") for one in found["tuned"]["confused"]
        ]
        caption = "What the tuned model takes for what, where the words overlap"
        return [*made, *([parts.table(caption, ["type", "taken for", "entities"], confused)] if confused else [])]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        found = metrics["entity_errors"]
        columns = [Column("entities", words=True), Column("base"), Column("tuned")]
        rows = [
            [what, *(f"{found[model][name]:,}" for model in MODELS)]
            for name, what in {"right": "right", **_ERRORS}.items()
        ]
        return [Brief("What is wrong with entities", columns, rows)]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        tuned = metrics["entity_errors"]["tuned"]
        return (
            f"Of the true entities {tuned['right']:,} are found exactly, {tuned['type']:,} with another type, "
            f"{tuned['boundary'] + tuned['both']:,} with other words, and {tuned['missed']:,} are missed; "
            f"{tuned['spurious']:,} are found where none is."
        )


def _figures(one: Mapping[str, float]) -> list[str]:
    return [f"{one[key]:.4f}" for key in ("f1", "precision", "recall")]


def _errors(answers: Answers, truth: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Counts of the true entities, each counted once, and of what is found and overlaps none."""
    found, true = entities.find(answers[TAGS]), entities.find(truth)
    counts: Counter[str] = Counter(dict.fromkeys(("right", *_ERRORS), 0))
    confused: Counter[tuple[int, int]] = Counter()
    by_row = _rows_of(found)
    for row, start, end, kind in zip(
        *(one.tolist() for one in (true.rows, true.starts, true.ends, true.types)), strict=True
    ):
        near = [one for one in by_row.get(row, ()) if one[0] < end and one[1] > start]
        # The nearest by what it shares with the truth: all of it, the words, the type, something.
        said = max(near, key=lambda one: (2 * (one[:2] == (start, end)) + (one[2] == kind), -one[0]), default=None)
        counts[_what(said, (start, end, kind))] += 1
        if said is not None and said[2] != kind:
            confused[kind, said[2]] += 1
    known = _rows_of(true)
    for row, said_here in by_row.items():
        others = known.get(row, ())
        counts["spurious"] += sum(not any(a < end and b > start for a, b, _ in others) for start, end, _ in said_here)
    pairs = [
        {"label": names[one], "prediction": names[other], "entities": count}
        for (one, other), count in confused.most_common(_MOST_CONFUSED)
    ]
    return {**counts, "confused": pairs}


def _what(said: tuple[int, int, int] | None, true: tuple[int, int, int]) -> str:
    if said is None:
        return "missed"
    same_words, same_type = said[:2] == true[:2], said[2] == true[2]
    if same_words:
        return "right" if same_type else "type"
    return "boundary" if same_type else "both"


def _rows_of(found: Entities) -> dict[int, list[tuple[int, int, int]]]:
    """First word, behind the last and type of the entities of each row that has any."""
    rows: dict[int, list[tuple[int, int, int]]] = {}
    columns = (one.tolist() for one in (found.rows, found.starts, found.ends, found.types))
    for row, *entity in zip(*columns, strict=True):
        rows.setdefault(row, []).append((entity[0], entity[1], entity[2]))
    return rows
