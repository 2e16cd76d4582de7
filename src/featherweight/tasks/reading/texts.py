"""One split's texts, with the truth about them: rows without a text are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.records.rows import Column, Examples, Rows, Split
from featherweight.tasks.reading.labels import ROW, row_ids

if TYPE_CHECKING:
    from featherweight.recipe import DataSection


def examples_of(split: Split, section: DataSection, truth: Column, reading: str | None, **more: Any) -> Examples:
    """Keep the text and what to slice and group by, and leave out rows whose text is empty or only white space.

    Args:
        truth: of every row of the split.
        reading: how it was read, where a person has to be told.
        more: further fields of the examples.
    """
    from pyarrow import types

    column = section.text
    rows = Rows.of(split.rows, {column: "text", **others(section)})
    kind = rows.table.schema.field("text").type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"{split.origin}: the text column {column!r} holds {kind}, not text; set data.text")
    keep = filled(rows)
    if len(keep) == 0:
        raise DataError(f"{split.origin}: every text in column {column!r} is empty; set data.text")
    dropped = len(rows) - len(keep)
    return Examples(
        name=split.name,
        texts=rows.select(keep) if dropped else rows,
        text_column=column,
        truth=truth[keep],
        ids=row_ids(split.rows)[keep],
        dropped=dropped,
        origin=split.origin,
        fingerprint=split.fingerprint,
        skipped=split.skipped,
        reading=reading,
        **more,
    )


def all_of(split: Split, section: DataSection, truth: Column) -> Examples:
    """Every row, with every other column beside it, numbered as it comes."""
    named = {section.text, section.label, ROW}
    beside = {name: f"column:{name}" for name in split.rows.column_names if name not in named}
    return Examples(
        name=split.name,
        texts=Rows.of(split.rows, {section.text: "text", **beside}),
        text_column=section.text,
        truth=truth,
        ids=np.arange(len(split.rows)),
        dropped=0,
        origin=split.origin,
        fingerprint=split.fingerprint,
    )


def others(section: DataSection) -> dict[str, str]:
    """The columns that are kept beside the text, with what they are called then."""
    return {name: f"column:{name}" for name in [*section.slices, *([section.group] if section.group else [])]}


def filled(rows: Rows) -> NDArray[np.int64]:
    """The rows with a text."""
    import pyarrow.compute as pc

    found = [np.empty(0, dtype=bool)]
    for batch in rows.batches("text"):
        trimmed = pc.utf8_trim_whitespace(pc.fill_null(batch.column("text"), ""))
        found.append(pc.not_equal(trimmed, "").to_numpy(zero_copy_only=False))
    return np.flatnonzero(np.concatenate(found))
