"""What is in a data set that would make its figures lie: the same for ``inspect data`` and for every run.

A check is one class and one line in the ``CHECKS`` table; a kind of answer names those that its truth needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.errors import DataError
from featherweight.evidence.data import duplicates, shared_groups
from featherweight.evidence.data.duplicates import Fingerprints
from featherweight.records.outcome import Truncation
from featherweight.records.parts import Brief, Part
from featherweight.records.rows import Examples
from featherweight.registry import CHECKS
from featherweight.storage.cache import cached, key_of

LEAK = 0.95  # so many rows of a held-out split in train make it train
_MOST_ROWS = 20_000  # what needs words looks at so many
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Look:
    """What checks look at.

    Attributes:
        kind: of the splits' truth.
        prints: digests of each split's texts.
        groups: for each row of each split the number of its group of near duplicates, over all splits.
        seed: of the sample of train that checks of words look at.
        group: the column whose equal values mark rows that are not independent.
    """

    kind: Answer
    splits: Mapping[str, Examples]
    prints: Mapping[str, Fingerprints]
    groups: Mapping[str, NDArray[np.int64]]
    seed: int
    group: str | None

    @cached_property
    def first(self) -> Examples:
        """Train, or the first split where there is none."""
        return self.splits.get("train", next(iter(self.splits.values())))

    def sample(self, most: int = _MOST_ROWS) -> tuple[NDArray[np.int64], list[str]]:
        """Rows of the first split, as many as are looked at, and their texts."""
        rows = np.arange(len(self.first))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(self.seed).choice(len(rows), most, replace=False))
        return rows, list(self.first.select(rows).all_texts())

    def shown(self, split: Examples, row: int, **more: Any) -> dict[str, Any]:
        """A row for people: its number in the source from 1, the start of its text, its truth."""
        text = " ".join(split.text(row).split())
        cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
        return {"row": int(split.ids[row]) + 1, "text": cut, "label": self.kind.said(split.truth, row), **more}

    def shown_of_all(self, row: int) -> dict[str, Any]:
        """The same for a row that is counted over all splits, with the name of its own."""
        for split in self.splits.values():
            if row < len(split):
                return {**self.shown(split, row), "split": split.name}
            row -= len(split)
        raise IndexError(row)


class Check(Protocol):
    """One thing that a data set may have."""

    def find(self, look: Look) -> Mapping[str, Any]:
        """Keys of ``data_checks``."""
        ...

    def warnings(self, found: Mapping[str, Any]) -> list[str]:
        """What of all that was found a reader must know before any figure, one sentence each."""
        ...

    def show(self, found: Mapping[str, Any]) -> list[Part]:
        """What the report has of it."""
        ...

    def brief(self, found: Mapping[str, Any]) -> list[Brief]:
        """What ``inspect data`` shows of it."""
        ...


def fingerprint(splits: Mapping[str, Examples]) -> dict[str, Fingerprints]:
    """Digests of every split's texts, which all checks of duplicates start from."""
    return {name: duplicates.fingerprints(split.all_texts()) for name, split in splits.items()}


def refuse_leaks(splits: Mapping[str, Examples], prints: Mapping[str, Fingerprints], group: str | None = None) -> None:
    """Raises DataError where a held-out split is train, or all but the whole of it stands there or in its groups."""
    if group is not None:
        shared_groups.refuse(splits, group, LEAK)
    train = splits["train"]
    for name, split in splits.items():
        carved = split.fingerprint == train.fingerprint and not np.isin(split.ids, train.ids).any()
        if name == "train" or carved:
            continue
        known = int(duplicates.twins(prints[name].exact, prints["train"].exact).sum())
        if known >= LEAK * len(split):
            raise DataError(
                f"{split.origin}: {known} of {len(split)} {name} rows stand in train ({train.origin}), so it would "
                f"measure memory; give other rows for {name}, or set data.allow_leak = true"
            )


def rows_without_twins(
    kind: Answer, splits: Mapping[str, Examples], prints: Mapping[str, Fingerprints]
) -> NDArray[np.int64]:
    """Rows of train whose text, but for its form, stands in no held-out split; int64.

    Raises DataError where that leaves a class, or another part of the data, without rows.
    """
    held_out = [one.normal for name, one in prints.items() if name != "train"]
    twin = duplicates.twins(prints["train"].normal, np.concatenate(held_out))
    kept = np.flatnonzero(~twin)
    strata, names = kind.strata(splits["train"].truth)
    if lost := set(strata.tolist()) - set(strata[kept].tolist()):
        raise DataError(
            f"{splits['train'].origin}: every train row of {names[min(lost)]} stands in a held-out split too; give "
            "other held-out rows, or set data.drop_train_twins = false"
        )
    return kept


def check(
    kind: Answer,
    splits: Mapping[str, Examples],
    prints: Mapping[str, Fingerprints],
    seed: int,
    group: str | None = None,
) -> dict[str, Any]:
    """Every check that the kind of answer has; nothing is changed and nothing left out.

    Memory grows by some 50 bytes a row; what needs words looks at a seeded sample of 20,000 rows of train.

    Returns:
        ``splits``, ``shared_texts``, what each check finds, and ``warnings``.
    """
    look = Look(kind, splits, prints, _near_groups(splits, prints), seed, group)
    found: dict[str, Any] = {
        "splits": {name: _summary(look, name) for name in splits},
        "shared_texts": _shared(prints),
    }
    for one in checks_of(kind):
        found |= one.find(look)
    found["warnings"] = warnings(kind, found)
    return found


def warnings(kind: Answer | type[Answer], found: Mapping[str, Any]) -> list[str]:
    """What of the findings a reader must know before any figure, one sentence each."""
    return [line for one in checks_of(kind) for line in one.warnings(found)]


def checks_of(kind: Answer | type[Answer]) -> Sequence[Check]:
    """A kind's own checks, and those that third parties registered for it."""
    return [CHECKS[name]() for name in CHECKS.for_kind(kind.checks, kind.name)]


def truncation_warnings(truncation: Mapping[str, Truncation]) -> list[str]:
    """A sentence for each split of which tokens were cut off."""
    return [
        f"{one['rows']:,} {name} rows are cut at data.max_length; {one['share']:.1%} of the split's tokens are lost."
        for name, one in truncation.items()
        if one["rows"]
    ]


def _near_groups(splits: Mapping[str, Examples], prints: Mapping[str, Fingerprints]) -> dict[str, NDArray[np.int64]]:
    """For each row the number of its group of near duplicates, over all splits; each distinct text is signed once.

    Found once for the same texts in the same order, and kept in the cache.
    """
    digests = np.concatenate([prints[name].normal for name in splits])
    key = key_of("near", hashlib.sha256(digests.tobytes()).hexdigest())
    folder = cached("near", key, lambda aside: _write_near_groups(splits, digests, aside))
    ends = np.cumsum([len(split) for split in splits.values()])[:-1]
    return dict(zip(splits, np.split(np.load(folder / "groups.npy"), ends), strict=True))


def _write_near_groups(splits: Mapping[str, Examples], digests: duplicates.Digests, folder: Path) -> None:
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    is_first = np.zeros(len(digests), dtype=bool)
    is_first[first] = True
    texts = (text for split in splits.values() for text in split.all_texts())
    signed = duplicates.near_groups(
        (duplicates.normal_form(text) for text, wanted in zip(texts, is_first, strict=True) if wanted),
        len(first),
        folder,
    )
    of_distinct = np.empty(len(first), dtype=np.int64)
    of_distinct[np.argsort(first, kind="stable")] = signed
    np.save(folder / "groups.npy", of_distinct[inverse])


def _summary(look: Look, name: str) -> dict[str, Any]:
    """Rows, what the truth is like, lengths in words, empty texts, and rows that repeat an earlier one in three
    senses."""
    split, prints, groups = look.splits[name], look.prints[name], look.groups[name]
    words = prints.words
    return {
        "rows": len(split),
        look.kind.described.key: look.kind.describe(split.truth),
        "words": {
            "mean": float(words.mean()),
            "median": float(np.median(words)),
            "95th percentile": float(np.percentile(words, 95)),
            "longest": int(words.max()),
        },
        "empty_texts": int((words == 0).sum()),
        "repeated_texts": duplicates.repeated(prints.normal),
        "exactly_repeated_texts": duplicates.repeated(prints.exact),
        "nearly_repeated_texts": int(len(groups) - len(np.unique(groups))),
    }


def _shared(prints: Mapping[str, Fingerprints]) -> dict[str, int]:
    """How many different texts two splits share, for every pair that shares any; their form does not count."""
    shared = {
        f"{one} and {other}": len(np.intersect1d(prints[one].normal, prints[other].normal))
        for one, other in combinations(prints, 2)
    }
    return {pair: count for pair, count in shared.items() if count}
