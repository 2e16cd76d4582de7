"""From cells to words with a tag each: lists of words and tags, CoNLL files, and entities by their characters.

IOB1, IOB2 and IOBES (BILOU) are told apart and read as IOB2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from featherweight.answers.entities import OUTSIDE
from featherweight.errors import DataError
from featherweight.records.rows import Split
from featherweight.sources import cells
from featherweight.tasks.reading import words as wording
from featherweight.tasks.reading.labels import row_ids

_ENTITY_TAG = re.compile(r"[BIESLU]-.+", re.DOTALL)
_SINGLE, _ENDS = "SU", "EL"  # of IOBES and BILOU
_STARTS = ("start", "start_offset")
_BEHIND = ("end", "end_offset")
_TYPES = ("label", "labels", "entity_group", "type", "tag")


@dataclass(frozen=True)
class TaggedRow:
    """One row as it was read.

    Attributes:
        words: where they are in the text.
        tags: of the words; None where the row has none.
    """

    text: str
    words: Sequence[tuple[int, int]]
    tags: Sequence[str] | None


@dataclass(frozen=True)
class TagColumn:
    """One split's rows, their tags in IOB2 where they make up entities.

    Attributes:
        said: what a person has to be told of how they were read.
    """

    split: Split
    rows: Sequence[TaggedRow]
    said: str | None

    @property
    def is_unlabelled(self) -> bool:
        return all(row.tags is None for row in self.rows)

    @property
    def tags(self) -> set[str]:
        """All that occur."""
        return {tag for row in self.rows for tag in row.tags or ()}

    def refuse(self, place: int, problem: str) -> DataError:
        """An error about a row, by its number in the source."""
        return _problem(self.split, place, problem)


def are_entities(tags: set[str]) -> bool:
    """Whether tags make up entities, rather than stand for themselves."""
    return all(tag == OUTSIDE or _ENTITY_TAG.fullmatch(tag) for tag in tags) and tags != {OUTSIDE}


def read(split: Split, text: str, label: str) -> TagColumn:
    """Read and check one split.

    Raises:
        DataError: naming the row, where a cell is nothing to tag, words and tags are not as many, entities overlap, or
            tags make up no sequence of any scheme.
    """
    rows: list[TaggedRow] = []
    widened = 0
    for place, (words, tags) in enumerate(_cells(split, text, label)):
        try:
            row, moved = _row(words, tags, split.label_names)
        except ValueError as error:
            raise _problem(split, place, str(error)) from None
        rows.append(row)
        widened += moved
    missing = [place for place, row in enumerate(rows) if row.tags is None]
    if missing and len(missing) < len(rows):
        raise _problem(split, missing[0], f"no tags in column {label!r}; tag the row or take it out")
    found = TagColumn(split, rows, None)
    if not are_entities(found.tags):
        return found
    scheme, rows = _as_iob2(found)
    lines = [f"the tags in {label!r} are {scheme} and read as IOB2"] if scheme != "IOB2" else []
    lines += [f"{widened:,} entities begin or end within a word and are taken as the whole word"] if widened else []
    return TagColumn(split, rows, "; ".join(lines) or None)


def _cells(split: Split, text: str, label: str) -> Iterator[tuple[Any, Any]]:
    for batch in split.rows.select_columns([text, label]).with_format("arrow").iter(batch_size=10_000):
        columns = (batch.column(name).to_pylist() for name in (text, label))
        yield from zip(*columns, strict=True)


def _row(words: Any, tags: Any, names: Sequence[str] | None) -> tuple[TaggedRow, int]:
    """A row, and how many of its entities were widened to whole words. Raises ValueError."""
    words, tags = cells.parsed(words), cells.parsed(tags, "[{")
    if isinstance(words, list):
        if not all(isinstance(word, str) for word in words):
            raise ValueError("a list of words was expected")
        text, spans = wording.joined(words)
        return TaggedRow(text, spans, _tags(tags, len(words), names)), 0
    if not isinstance(words, str):
        raise ValueError("a text or a list of words was expected")
    if isinstance(tags, str) or (isinstance(tags, list) and tags and all(isinstance(one, str) for one in tags)):
        text, spans = wording.joined(words.split())
        return TaggedRow(text, spans, _tags(tags, len(spans), names)), 0
    spans = wording.of_text(words)
    if tags is None:
        return TaggedRow(words, spans, None), 0
    found, moved = _from_spans(tags, spans, len(words))
    return TaggedRow(words, spans, found), moved


def _tags(cell: Any, words: int, names: Sequence[str] | None) -> list[str] | None:
    if cell is None:
        return None
    found = cell.split() if isinstance(cell, str) else cell
    if not isinstance(found, list):
        raise ValueError("a list of tags was expected")
    if len(found) != words:
        raise ValueError(f"{words} words and {len(found)} tags; give each word one")
    if names is not None:
        found = [_name(one, names) for one in found]
    if not all(isinstance(one, str | int) and one != "" for one in found):
        raise ValueError("a tag is missing")
    return [str(one) for one in found]


def _name(tag: Any, names: Sequence[str]) -> Any:
    """What a number stands for. Raises ValueError where it is the number of no tag."""
    if not isinstance(tag, int):
        return tag
    if not 0 <= tag < len(names):
        raise ValueError(f"the tag {tag} is none of the {len(names)} that the data set names; mend the row")
    return names[tag]


def _from_spans(given: Any, spans: Sequence[tuple[int, int]], length: int) -> tuple[list[str], int]:
    """Tags of words from entities by their characters."""
    if not isinstance(given, list):
        raise ValueError("a list of entities with their places in the text was expected")
    tags = [OUTSIDE] * len(spans)
    moved = 0
    for start, end, name in sorted(map(_span, given)):
        if not 0 <= start < end <= length:
            raise ValueError(f"the entity {name!r} from {start} to {end} is not within the text of {length} characters")
        within = [place for place, (first, behind) in enumerate(spans) if first < end and behind > start]
        if not within:
            raise ValueError(f"the entity {name!r} from {start} to {end} holds no word")
        if any(tags[place] != OUTSIDE for place in within):
            raise ValueError(f"the entity {name!r} from {start} to {end} overlaps another; a word has one tag")
        moved += spans[within[0]][0] < start or spans[within[-1]][1] > end
        for place in within:
            tags[place] = f"{'B' if place == within[0] else 'I'}-{name}"
    return tags, moved


def _span(entity: Any) -> tuple[int, int, str]:
    if isinstance(entity, Mapping):
        start, end, name = (_first(entity, keys) for keys in (_STARTS, _BEHIND, _TYPES))
    else:
        start, end, name = entity if isinstance(entity, list) and len(entity) == 3 else (None, None, None)
    if isinstance(name, list) and len(name) == 1:  # as Label Studio has it
        (name,) = name
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(name, str) and name):
        raise ValueError("an entity has a start, an end and a label")
    return start, end, name


def _first(entity: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((entity[key] for key in keys if key in entity), None)


def _as_iob2(column: TagColumn) -> tuple[str, list[TaggedRow]]:
    """The scheme that all rows are written in, and the rows in IOB2."""
    if any(tag[0] in _SINGLE + _ENDS for tag in column.tags if tag != OUTSIDE):
        return "IOBES", [_from_iobes(column, place, row) for place, row in enumerate(column.rows)]
    starts = list(_inner_starts(column))
    if not starts:
        return "IOB2", list(column.rows)
    if any(_begins_elsewhere(row.tags or ()) for row in column.rows):
        place, before, tag = starts[0]
        raise column.refuse(
            place, f"{tag!r} follows {before!r}, which no entity has; one begins with {'B' + tag[1:]!r}"
        )
    return "IOB1", [_from_iob1(row) for row in column.rows]


def _inner_starts(column: TagColumn) -> Iterator[tuple[int, str, str]]:
    """Where an entity begins with I-: the row, the tag before, and the tag."""
    for place, row in enumerate(column.rows):
        for before, tag in pairwise([OUTSIDE, *(row.tags or ())]):
            if tag[:2] == "I-" and before[2:] != tag[2:]:
                yield place, before, tag


def _begins_elsewhere(tags: Sequence[str]) -> bool:
    """Whether B- stands where IOB1 has I-: not right behind an entity of the same type."""
    return any(tag[:2] == "B-" and before[2:] != tag[2:] for before, tag in pairwise([OUTSIDE, *tags]))


def _from_iob1(row: TaggedRow) -> TaggedRow:
    tags = row.tags or ()
    found = [
        f"B-{tag[2:]}" if tag[:2] == "I-" and before[2:] != tag[2:] else tag
        for before, tag in pairwise([OUTSIDE, *tags])
    ]
    return TaggedRow(row.text, row.words, found if row.tags is not None else None)


def _from_iobes(column: TagColumn, place: int, row: TaggedRow) -> TaggedRow:
    if row.tags is None:
        return row
    found: list[str] = []
    is_open = ""
    for tag in [*row.tags, OUTSIDE]:
        first, name = tag[0], tag[2:]
        goes_on = first in "I" + _ENDS
        if goes_on != bool(is_open) or (goes_on and name != is_open):
            before = row.tags[len(found) - 1] if found else OUTSIDE
            raise column.refuse(place, f"{tag!r} can't follow {before!r} in IOBES")
        is_open = name if first in "BI" else ""
        found.append(tag if tag == OUTSIDE else f"{'B' if first in 'B' + _SINGLE else 'I'}-{name}")
    return TaggedRow(row.text, row.words, found[:-1])


def _problem(split: Split, place: int, problem: str) -> DataError:
    return DataError(f"{split.origin}: row {int(row_ids(split.rows)[place]) + 1}: {problem}")
