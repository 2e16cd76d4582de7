"""Which rows something is fitted on, and which it is reported on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featherweight.records.grouping import in_random_order, units_of


def halves(
    rows: int, seed: int, groups: Sequence[str | None] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of the rows, drawn by the seed: one to fit on, one to report on.

    With groups no group is in both, so that the first half may be smaller, and has no row where there is one group.
    """
    middle = rows // 2
    if groups is None:
        order = np.random.default_rng(seed).permutation(rows)
    else:
        units = units_of(groups)
        order = in_random_order(units, seed)
        starts = np.flatnonzero(np.diff(units[order], prepend=-1))  # of each group
        middle = int(starts[starts <= middle][-1])
    return np.sort(order[:middle]), np.sort(order[middle:])
