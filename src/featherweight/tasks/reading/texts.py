"""One split's texts, with the truth about them: rows without a text are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    named = texts_of(section)
    rows = Rows.of(split.rows, {**named, **others(section)})
    for column, name in named.items():
        kind = rows.table.schema.field(name).type
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise DataError(f"{split.origin}: the text column {column!r} holds {kind}, not text; set data.text")
    keep = filled(rows, named.values())
    if len(keep) == 0:
        columns = " or ".join(map(repr, named))
        raise DataError(f"{split.origin}: every text in column {columns} is empty; set data.text")
    dropped = len(rows) - len(keep)
    return Examples(
        name=split.name,
        texts=rows.select(keep) if dropped else rows,
        text_columns=section.texts,
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
    named = {*section.texts, *section.truths, ROW}
    beside = {name: f"column:{name}" for name in split.rows.column_names if name not in named}
    return Examples(
        name=split.name,
        texts=Rows.of(split.rows, {**texts_of(section), **beside}),
        text_columns=section.texts,
        truth=truth,
        ids=np.arange(len(split.rows)),
        dropped=0,
        origin=split.origin,
        fingerprint=split.fingerprint,
    )


def rows_with(
    texts: Mapping[str, Any], split: Split, section: DataSection, places: NDArray[np.int64], whole: bool
) -> Rows:
    """Rows of texts that were made of a split's, with the columns that are kept beside them.

    Args:
        texts: Arrow arrays by what the columns are called.
        places: which rows of the split they are of.
        whole: keep every other column, and not those alone that are sliced or grouped by.
    """
    import pyarrow as pa

    named = {*section.texts, *section.truths, ROW}
    others_too = {name: f"column:{name}" for name in split.rows.column_names if name not in named}
    if beside := others_too if whole else others(section):
        chosen = Rows.of(split.rows, beside).select(places)
        texts = {**texts, **{name: pa.array(list(chosen.values(name))) for name in chosen.column_names}}
    return Rows(pa.table(dict(texts)))


def texts_of(section: DataSection) -> dict[str, str]:
    """The columns of the texts, with what they are called from here on."""
    return dict(zip(section.texts, ("text", "pair"), strict=False))


def others(section: DataSection) -> dict[str, str]:
    """The columns that are kept beside the text, with what they are called then."""
    return {name: f"column:{name}" for name in [*section.slices, *([section.group] if section.group else [])]}


def filled(rows: Rows, columns: Iterable[str]) -> NDArray[np.int64]:
    """The rows with a text in each of these columns."""
    import pyarrow.compute as pc

    found = [np.empty(0, dtype=bool)]
    for batch in rows.batches(*columns):
        trimmed = (pc.utf8_trim_whitespace(pc.fill_null(column, "")) for column in batch.columns)
        found.append(np.all([pc.not_equal(one, "").to_numpy(zero_copy_only=False) for one in trimmed], axis=0))
    return np.flatnonzero(np.concatenate(found))
