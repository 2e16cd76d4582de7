"""Held-out rows whose group has rows in train: what was learned of a document helps with the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.errors import DataError
from featherweight.records.parts import Brief, Part
from featherweight.records.rows import Examples

if TYPE_CHECKING:
    from featherweight.evidence.data.checks import Look

_MOST_NAMED = 5


def find(splits: Mapping[str, Examples], column: str) -> dict[str, dict[str, Any]]:
    """For each held-out split its ``rows``, how many are ``shared``, their ``ids``, and the ``groups`` (a few).

    Rows that were carved out of train share none, for whole groups were carved. A row without a group shares none.
    """
    if "train" not in splits:
        return {}
    in_train = set(splits["train"].groups(column)) - {None}
    found = {}
    for name, split in splits.items():
        if name != "train":
            groups = split.groups(column)
            known = np.asarray([group in in_train for group in groups], dtype=bool)
            found[name] = {
                "rows": len(split),
                "shared": int(known.sum()),
                "groups": sorted({str(groups[row]) for row in np.flatnonzero(known)})[:_MOST_NAMED],
                "ids": split.ids[known].tolist(),
            }
    return found


def refuse(splits: Mapping[str, Examples], column: str, most: float) -> None:
    """Raises DataError where all but the whole of a held-out split belongs to groups of train.

    Args:
        most: the share of rows from which on it does.
    """
    for name, one in find(splits, column).items():
        if one["shared"] >= most * one["rows"]:
            raise DataError(
                f"{splits[name].origin}: {one['shared']} of {one['rows']} {name} rows belong to groups of {column!r} "
                f"that stand in train ({splits['train'].origin}), such as {one['groups'][0]!r}; give rows of other "
                f"groups for {name}, or set data.allow_leak = true"
            )


class SharedGroups:
    def find(self, look: Look) -> Mapping[str, Any]:
        """``shared_groups``: see :func:`find`; empty where rows have no groups."""
        return {"shared_groups": find(look.splits, look.group) if look.group else {}}

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{one['shared']:,} of {one['rows']:,} {name} rows belong to groups that stand in train, such as "
            f"{one['groups'][0]!r}; figures are given without them, too."
            for name, one in found["shared_groups"].items()
            if one["shared"]
        ]

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        return []

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        return []
