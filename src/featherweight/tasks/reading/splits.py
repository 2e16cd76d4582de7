"""Which rows of train are held out, and which are sampled: by row and class, or by whole groups of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.errors import DataError
from featherweight.records.grouping import in_random_order, units_of
from featherweight.records.rows import Examples, Split

if TYPE_CHECKING:
    from featherweight.recipe import DataSection

HELD_OUT = " (held out)"  # after the name of the file that a split was carved from
_NEAR = 2  # a split has at least a half of the rows that were asked for, and at most twice as many


def require_train(splits: Mapping[str, Split]) -> None:
    if "train" not in splits:
        raise DataError(f"{next(iter(splits.values())).origin}: there is no train split; set data.train_file")


def require_labelled(splits: Mapping[str, Split], unlabelled: Sequence[str], section: DataSection) -> None:
    """Raises DataError where a split that is trained on or chooses is unlabelled; test may be."""
    for name in ("train", "validation"):
        if name in unlabelled:
            raise DataError(
                f"{splits[name].origin}: the {name} split is unlabelled (every label in "
                f"{', '.join(map(repr, section.truths))} is missing or -1); give labelled rows"
            )


def complete(examples: Mapping[str, Examples], kind: Answer, section: DataSection, seed: int) -> dict[str, Examples]:
    """The splits with a validation split that is carved out of train where there is none, and a test split where that
    is asked for; then sampled as the section says.

    Args:
        seed: of the sample of train.
    """
    found = dict(examples)
    whole = len(found["train"]) + found["train"].dropped
    if "validation" not in found:
        found |= carve(
            found["train"], "validation", section.validation_fraction, section.split_seed, kind, section.group
        )
    if "test" not in found and section.test_fraction is not None:
        share = section.test_fraction * whole / len(found["train"])  # of what validation left
        found |= carve(found["train"], "test", share, section.split_seed, kind, section.group)
    for name, split in found.items():
        if name == "train":
            found[name] = sample(split, section.max_train_samples, seed, section.group)
        else:
            found[name] = sample(split, section.max_eval_samples, section.split_seed)
    return found


def carve(
    train: Examples, name: str, fraction: float, seed: int, kind: Answer, group: str | None = None
) -> dict[str, Examples]:
    """Hold out the same share of every class, or other part of the data, chosen by the seed; where rows have groups,
    whole groups.

    Args:
        name: of the split that is held out.
        kind: of answer, which says what parts there are.
        group: the column whose equal values keep rows together; shares are then as near as groups allow.

    Returns:
        ``train`` without the rows that are held out, and the split of these.

    Raises:
        DataError: a class has too few rows, or a group too many, to be on both sides.
    """
    if group is None:
        chosen = _by_row(train, name, fraction, seed, kind)
    else:
        chosen = _Groups(train, name, fraction, kind, group).choose(seed)
    rest = np.setdiff1d(np.arange(len(train)), chosen)
    held_out = {"name": name, "dropped": 0, "skipped": 0, "reading": None, "origin": train.origin + HELD_OUT}
    return {"train": train.select(rest), name: train.select(chosen, **held_out)}


def sample(examples: Examples, limit: int | None, seed: int, group: str | None = None) -> Examples:
    """So many rows, drawn by the seed; where rows have groups, one group after the other and the last one in part."""
    if limit is None or limit >= len(examples):
        return examples
    if group is None:
        chosen = np.random.default_rng(seed).choice(len(examples), size=limit, replace=False)
    else:
        chosen = in_random_order(units_of(examples.groups(group)), seed)[:limit]
    return examples.select(np.sort(chosen))


def _wanted(labels: NDArray[np.int64], fraction: float, classes: int) -> NDArray[np.int64]:
    """Rows of each class to hold out: its share, and at least one of each class that is there."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, np.maximum(np.round(fraction * counts), 1), 0).astype(np.int64)


def _by_row(train: Examples, name: str, fraction: float, seed: int, kind: Answer) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    labels, classes = kind.strata(train.truth)
    wanted = _wanted(labels, fraction, len(classes))
    held_out = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if wanted[label] >= len(members):
            raise DataError(
                f"{train.origin}: {classes[label]} with {len(members)} row can't be divided into train and "
                f"{name}; set data.{name}_file, or add rows"
            )
        held_out.append(members[: wanted[label]])
    return np.sort(np.concatenate(held_out))


class _Groups:
    """Whole groups for a split: drawn at random, and taken where that brings the classes nearer to their shares."""

    def __init__(self, train: Examples, name: str, fraction: float, kind: Answer, group: str) -> None:
        from scipy import sparse

        self.where, self.name, self.fraction, self.group = train.origin, name, fraction, group
        self.groups = train.groups(group)
        self.labels, self.classes = kind.strata(train.truth)
        classes = self.classes
        self.units = units_of(self.groups)
        self.rows = np.bincount(self.labels, minlength=len(classes))
        self.wanted = _wanted(self.labels, fraction, len(classes))
        shape = int(self.units.max()) + 1, len(classes)
        cells = np.ones(len(self.units), dtype=np.int64), (self.units, self.labels)
        self.counts = sparse.csr_array(cells, shape=shape)  # rows of each group and class
        self.sizes = np.bincount(self.units)
        self.held = np.zeros(len(classes), dtype=np.int64)
        self.taken: list[int] = []

    def choose(self, seed: int) -> NDArray[np.int64]:
        """The rows to hold out, ascending."""
        self._refuse_large_groups()
        generator = np.random.default_rng(seed)
        self._take_groups(generator)
        self._take_lone_rows(generator)
        for label in map(int, np.flatnonzero(self.rows)):
            if self.held[label] == 0:
                self._take_nearest_with(label)
        if self.held.sum() * _NEAR < self.wanted.sum():
            self._take_smallest()
        self._refuse_far_off()
        return np.flatnonzero(np.isin(self.units, self.taken))

    def _take_groups(self, generator: np.random.Generator) -> None:
        """Groups of several rows, for as much of each class as is in such groups."""
        in_groups = np.bincount(self.labels[self.sizes[self.units] > 1], minlength=len(self.classes))
        target = self.wanted * in_groups / np.maximum(self.rows, 1)
        for unit in generator.permutation(np.flatnonzero(self.sizes > 1)):
            if self._gain(unit, target) > 0 and self._leaves_train_whole(unit):
                self._take(unit)
                if (target - self.held).max() <= 1 / 2:  # one row more of any class would be further away
                    return

    def _take_lone_rows(self, generator: np.random.Generator) -> None:
        """Rows without company, for what is still missing of each class."""
        rows = generator.permutation(np.flatnonzero(self.sizes[self.units] == 1))
        rows = rows[np.argsort(self.labels[rows], kind="stable")]
        labels, starts = np.unique(self.labels[rows], return_index=True)
        for label, start in zip(labels, starts, strict=True):
            left = self.rows[label] - self.held[label] - 1
            missing = max(min(self.wanted[label] - self.held[label], left), 0)
            members = rows[start : start + missing]
            members = members[self.labels[members] == label]
            self.held[label] += len(members)
            self.taken += self.units[members].tolist()

    def _take_nearest_with(self, label: int) -> None:
        """The group with this class that disturbs the shares least."""
        having = np.unique(self.units[self.labels == label])
        found = [unit for unit in having if self._leaves_train_whole(unit)]
        if not found:
            raise DataError(
                f"{self.where}: no group of {self.group!r} can be held out so that train and {self.name} both "
                f"have rows of {self.classes[label]}; set data.{self.name}_file, or another data.group"
            )
        self._take(max(found, key=lambda unit: self._gain(unit, self.wanted)))

    def _take_smallest(self) -> None:
        """One more group, where every one is so large that the shares seem better without it."""
        left = np.setdiff1d(np.arange(len(self.sizes)), self.taken)
        for unit in left[np.argsort(self.sizes[left], kind="stable")]:
            if self._leaves_train_whole(unit):
                self._take(unit)
                return

    def _of(self, unit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes of a group, and its rows of each."""
        start, end = self.counts.indptr[unit : unit + 2]
        return self.counts.indices[start:end], self.counts.data[start:end]

    def _gain(self, unit: int, target: NDArray[Any]) -> float:
        """How much nearer to the target shares the split comes with this group, in squares over the wanted rows."""
        labels, rows = self._of(unit)
        short = target[labels] - self.held[labels]
        return float(((short**2 - (short - rows) ** 2) / self.wanted[labels]).sum())

    def _leaves_train_whole(self, unit: int) -> bool:
        labels, rows = self._of(unit)
        return bool((self.rows[labels] - self.held[labels] - rows > 0).all())

    def _take(self, unit: int) -> None:
        labels, rows = self._of(unit)
        self.held[labels] += rows
        self.taken.append(int(unit))

    def _refuse_large_groups(self) -> None:
        """Where all but a few rows, of all or of a class, are in one group, there is nothing to hold out."""
        columns = self.counts.tocsc()
        parts = [("rows", self.sizes, np.arange(len(self.sizes)), int(self.wanted.sum()))]
        for label in map(int, np.flatnonzero(self.rows)):
            cells = slice(*columns.indptr[label : label + 2])
            what = f"rows of {self.classes[label]}"
            parts.append((what, columns.data[cells], columns.indices[cells], int(self.wanted[label])))
        for what, counts, units, wanted in parts:
            most, rows = int(counts.max()), int(counts.sum())
            if (rows - most) * _NEAR < wanted:
                raise DataError(
                    f"{self.where}: {self._called(units[counts.argmax()])} holds {most:,} of the {rows:,} {what}, "
                    f"so train and {self.name} can't both have some; set data.{self.name}_file, or another data.group"
                )

    def _refuse_far_off(self) -> None:
        held, wanted, rows = int(self.held.sum()), int(self.wanted.sum()), len(self.units)
        if not wanted / _NEAR <= held <= wanted * _NEAR:
            largest = int(self.sizes.argmax())
            raise DataError(
                f"{self.where}: whole groups of {self.group!r} come no nearer to {self.name}'s {self.fraction:.0%} "
                f"than {held / rows:.0%} ({self._called(largest)} has {self.sizes[largest]:,} of {rows:,} rows); set "
                f"data.{self.name}_fraction = {held / rows:.2f}, or data.{self.name}_file"
            )

    def _called(self, unit: int) -> str:
        found = self.groups[int(np.argmax(self.units == unit))]
        return f"the group {found!r}" if found is not None else "one row"
