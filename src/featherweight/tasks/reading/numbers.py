"""From a column to numbers, refusing everything that is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.records.rows import Split
from featherweight.tasks.reading.labels import row_ids


def read(split: Split, column: str) -> NDArray[np.float64] | None:
    """The number of each row; float64, shape (rows,). None where no row has one.

    Raises:
        DataError: some rows have no number, or something that is none.
    """
    found: list[float] = []
    missing: list[int] = []
    for batch in split.rows.select_columns(column).with_format("arrow").iter(batch_size=100_000):
        for cell in batch.column(column).to_pylist():
            number = _number(cell)
            if number is None:
                missing.append(len(found))
            elif not math.isfinite(number):
                raise DataError(
                    f"{split.origin}: row {_row(split, len(found))}: {str(cell)!r} in the column {column!r} is no "
                    "number; mend the row, or name another column in data.label"
                )
            found.append(math.nan if number is None else number)
    if len(missing) == len(found):
        return None
    if missing:
        raise DataError(
            f"{split.origin}: row {_row(split, missing[0])}: no number in column {column!r} ({len(missing)} of "
            f"{len(found)} rows); give these rows one or take them out"
        )
    return np.asarray(found, dtype=np.float64)


def _number(cell: Any) -> float | None:
    """None where there is nothing; NaN where what is there is no number."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, str) and "_" in cell:  # which Python alone reads as a number
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def _row(split: Split, place: int) -> int:
    """The number in the source, counted from 1."""
    return int(row_ids(split.rows)[place]) + 1
