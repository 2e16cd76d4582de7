"""From tags to entities, for all rows at once: IOB2, strict, as ``seqeval`` has it (``mode="strict", scheme=IOB2``): an
entity begins with B- and goes on with I- of the same type.

Tags have one order, so that a number says what a tag is: ``O``, then ``B-`` and ``I-`` of each type, sorted by type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featherweight.records.rows import Ragged

Whole = NDArray[np.int64]
OUTSIDE = "O"


def tags_of(types: Iterable[str]) -> tuple[str, ...]:
    """The names of all tags of some entity types, in their order."""
    return (OUTSIDE, *(f"{prefix}-{name}" for name in sorted(types) for prefix in "BI"))


def types_in(names: Iterable[str]) -> tuple[str, ...]:
    """The entity types that some tags are of, sorted."""
    return tuple(sorted({name[2:] for name in names if name[:2] in {"B-", "I-"}}))


@dataclass(frozen=True)
class Entities:
    """Entities of some rows, in their order; int64, shape (entities,) each.

    Attributes:
        rows: which row each is of.
        starts, ends: its first word and behind its last, counted over all rows.
        types: its type's number.
    """

    rows: Whole
    starts: Whole
    ends: Whole
    types: Whole

    def __len__(self) -> int:
        return len(self.rows)

    def within(self, row: int) -> Sequence[tuple[int, int, int]]:
        """Those of a row: first word, behind the last, type."""
        low, high = np.searchsorted(self.rows, [row, row + 1])
        columns = (one[low:high].tolist() for one in (self.starts, self.ends, self.types))
        return list(zip(*columns, strict=True))


def find(tags: Ragged) -> Entities:
    """The entities that tags make up.

    Args:
        tags: of each word the number of its tag.
    """
    flat = np.asarray(tags.values, dtype=np.int64)
    rows = np.repeat(np.arange(len(tags)), tags.lengths)
    types, begins, inside = (flat - 1) // 2, flat % 2 == 1, (flat % 2 == 0) & (flat > 0)
    goes_on = np.zeros(len(flat), dtype=bool)
    goes_on[1:] = inside[1:] & (flat[:-1] > 0) & (types[1:] == types[:-1]) & (rows[1:] == rows[:-1])
    firsts = np.flatnonzero(~goes_on)
    lasts = np.append(firsts[1:], len(flat))[: len(firsts)]
    real = begins[firsts]
    return Entities(rows[firsts[real]], firsts[real], lasts[real], types[firsts[real]])


def matching(found: Entities, truth: Entities, words: int) -> NDArray[np.bool_]:
    """Which of ``found`` are in ``truth``, with the same words and type.

    Args:
        words: of all rows.
    """
    ends, types = np.full(words + 1, -1), np.full(words + 1, -1)
    ends[truth.starts], types[truth.starts] = truth.ends, truth.types
    return np.asarray((ends[found.starts] == found.ends) & (types[found.starts] == found.types))
