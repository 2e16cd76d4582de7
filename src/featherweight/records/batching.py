"""Which rows run together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TOKEN_BUDGET = 4096


def by_tokens(lengths: NDArray[np.int64], budget: int = TOKEN_BUDGET) -> Iterator[NDArray[np.int64]]:
    """All rows in batches of like length, longest first, so that little is padding and memory peaks at the start.

    Args:
        lengths: tokens of each row; shape (rows,).
        budget: rows times longest row of a batch, which has at least one row.
    """
    order = np.argsort(-lengths.astype(np.int32), kind="stable").astype(np.int32)  # rows are many, their places small
    start = 0
    while start < len(order):
        count = max(budget // int(lengths[order[start]]), 1)
        yield order[start : start + count].astype(np.int64)
        start += count


def of_equal(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Where the rows of each value, such as their length, stand, the greatest first; int64 places in ``values``."""
    return [np.flatnonzero(values == value) for value in np.unique(values)[::-1]]
