"""Rows that are not independent, such as the sentences of one document: what is drawn is their group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def group_names(values: Iterable[Any]) -> list[str | None]:
    """Each row's group as text; None, which is a group of its own, where the value is missing or blank."""
    texts = ("" if value is None or value != value else str(value) for value in values)  # noqa: PLR0124 - NaN is not itself
    return [text if text.strip() else None for text in texts]


def units_of(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Number of each row's group, counted from 0; a row without a group has a number to itself; shape (rows,)."""
    named = np.asarray([group is not None for group in groups], dtype=bool)
    names, codes = np.unique(np.asarray([group for group in groups if group is not None]), return_inverse=True)
    units = np.empty(len(groups), dtype=np.int64)
    units[named] = codes
    units[~named] = len(names) + np.arange(len(groups) - int(named.sum()))
    return units


def in_random_order(units: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows with one group after the other, the groups in an order that the seed decides; shape (rows,).

    Args:
        units: from :func:`units_of`.
    """
    place = np.random.default_rng(seed).permutation(int(units.max()) + 1)
    return np.argsort(place[units], kind="stable")
