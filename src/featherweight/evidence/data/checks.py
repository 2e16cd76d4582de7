"""What is in a data set that would make its figures lie: the same for ``inspect data`` and for every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.evidence.data import duplicates, giveaways, label_issues, shared_groups
from featherweight.evidence.data.duplicates import Fingerprints
from featherweight.records.grouping import group_names
from featherweight.records.rows import Examples, Rows, Split
from featherweight.storage.cache import cached, key_of
from featherweight.tasks.reading.labels import as_text, listed

ROW = "__row__"
LEAK = 0.95  # so many rows of a held-out split in train make it train
ONE_SIDED = 0.9
_MOST_SHOWN = 20
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class LabelledTexts:
    """One split, as the checks need it.

    Attributes:
        texts: rows with a column ``text``; the other columns are looked at for giveaways.
        labels: int64, shape (rows,).
        label_names: by class index.
        ids: int64, shape (rows,), the row's number in its source.
    """

    name: str
    origin: str
    texts: Rows
    labels: NDArray[np.int64]
    label_names: Sequence[str]
    ids: NDArray[np.int64]
    fingerprint: str

    @classmethod
    def of_splits(cls, splits: Mapping[str, Split], text: str, label: str) -> dict[str, LabelledTexts]:
        """Splits as read, whatever their labels are worth; a label has one number in all of them."""
        read = {name: Rows.of(split.rows, {label: "label"}).coded("label") for name, split in splits.items()}
        written = {name: [as_text(value, splits[name]) for value in values] for name, (values, _) in read.items()}
        names = sorted({value for values in written.values() for value in values})
        number = {value: index for index, value in enumerate(names)}
        found = {}
        for name, split in splits.items():
            codes = np.asarray([number[value] for value in written[name]], dtype=np.int64)[read[name][1]]
            others = {one: f"column:{one}" for one in split.rows.column_names if one not in {text, label, ROW}}
            texts = Rows.of(split.rows, {text: "text", **others})
            found[name] = cls(name, split.origin, texts, codes, names, np.arange(len(codes)), split.fingerprint)
        return found

    @classmethod
    def of(cls, examples: Examples, label_names: Sequence[str]) -> LabelledTexts:
        return cls(
            examples.name, examples.origin, examples.texts, examples.labels, label_names, examples.ids,
            examples.fingerprint,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[str]:
        return (text or "" for text in self.texts.values("text"))

    def sample(self, most: int, seed: int) -> NDArray[np.int64]:
        """Rows, all of them or as many as asked for, drawn by the seed."""
        if len(self) <= most:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))

    def column(self, name: str, rows: NDArray[np.int64]) -> list[Any]:
        return list(self.texts.select(rows).values(name))

    def groups(self, name: str) -> list[str | None]:
        """What each row belongs to by a column; None, a group of its own, where it says nothing."""
        return group_names(self.texts.values(f"column:{name}"))

    def shown(self, row: int, **more: Any) -> dict[str, Any]:
        """A row for people: its number in the source from 1, the start of its text, its label."""
        text = " ".join((self.texts.value("text", row) or "").split())
        cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
        return {
            "row": int(self.ids[row]) + 1, "text": cut, "label": self.label_names[int(self.labels[row])], **more,
        }  # fmt: skip


def fingerprint(splits: Mapping[str, LabelledTexts]) -> dict[str, Fingerprints]:
    """Digests of every split's texts, which all checks of duplicates start from."""
    return {name: duplicates.fingerprints(split) for name, split in splits.items()}


def refuse_leaks(
    splits: Mapping[str, LabelledTexts], prints: Mapping[str, Fingerprints], group: str | None = None
) -> None:
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


def rows_without_twins(splits: Mapping[str, LabelledTexts], prints: Mapping[str, Fingerprints]) -> NDArray[np.int64]:
    """Rows of train whose text, but for its form, stands in no held-out split; int64.

    Raises DataError where that leaves a class without rows.
    """
    held_out = [one.normal for name, one in prints.items() if name != "train"]
    twin = duplicates.twins(prints["train"].normal, np.concatenate(held_out))
    kept = np.flatnonzero(~twin)
    train = splits["train"]
    if lost := set(train.labels.tolist()) - set(train.labels[kept].tolist()):
        raise DataError(
            f"{train.origin}: every train row of {train.label_names[min(lost)]!r} stands in a held-out split too; give "
            "other held-out rows, or set data.drop_train_twins = false"
        )
    return kept


def check(
    splits: Mapping[str, LabelledTexts], prints: Mapping[str, Fingerprints], seed: int, group: str | None = None
) -> dict[str, Any]:
    """Every check; nothing is changed and nothing left out.

    Memory grows by some 50 bytes a row; what needs words looks at a seeded sample of 20,000 rows of train.

    Returns:
        ``splits``, ``unknown_labels``, ``shared_texts``, ``twins``, ``shared_groups``, ``conflicting_labels``,
        ``giveaways``, ``suspected_label_errors`` and ``warnings``, as described in the functions that fill them.
    """
    groups = _near_groups(splits, prints)
    found: dict[str, Any] = {
        "splits": {name: _summary(split, prints[name], groups[name]) for name, split in splits.items()},
        "unknown_labels": _unknown_labels(splits),
        "shared_texts": _shared(prints),
        "twins": _twins(splits, prints, groups),
        "shared_groups": shared_groups.find(splits, group) if group else {},
        "conflicting_labels": _conflicts(splits, prints),
    }
    first = splits.get("train", next(iter(splits.values())))
    rows = first.sample(label_issues.most_rows(len(first.label_names)), seed)
    texts = [text or "" for text in first.column("text", rows)]
    found["giveaways"] = _giveaways(first, rows, texts, seed)
    found["suspected_label_errors"] = _suspects(first, rows, texts, seed)
    found["warnings"] = warnings(found)
    return found


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What of the findings a reader must know before any figure, one sentence each."""
    lines = []
    one_sided: dict[str, list[str]] = {}
    for name, split in found["splits"].items():
        label, share = max(split["label_shares"].items(), key=lambda item: item[1], default=("", 0.0))
        if share > ONE_SIDED:
            one_sided.setdefault(label, []).append(f"{share:.1%} of {name}")
    for label, parts in one_sided.items():
        lines.append(
            f"{', '.join(parts)} rows are {label!r}: accuracy says little there; read macro-F1 and balanced accuracy."
        )
    lines += [
        f"{sum(labels.values()):,} {name} rows have labels that train lacks: {listed(list(map(repr, labels)))}."
        for name, labels in found["unknown_labels"].items()
    ]
    for name, twins in found["twins"].items():
        if twins["near"]:
            lines.append(
                f"{twins['near']:,} of {twins['rows']:,} {name} rows have a twin in train: {twins['exact']:,} to the "
                f"byte, {twins['normalised'] - twins['exact']:,} but for case, white space and punctuation, "
                f"{twins['near'] - twins['normalised']:,} nearly."
            )
    lines += shared_groups.warnings(found["shared_groups"])
    if conflicts := found["conflicting_labels"]["rows"]:
        lines.append(f"{conflicts:,} rows carry a text that also stands there with another label.")
    giveaway = found["giveaways"]
    if giveaway["identifier"]:
        lines.append("The texts look like identifiers, one word with a digit each; is it the right column?")
    lines += [
        f"A single word gives the label away: {one['share']:.1%} of the {one['rows']:,} rows with {one['word']!r} are "
        f"{one['label']!r}."
        for one in giveaway["words"][:3]
    ]
    lines += [
        f"The column {name!r} alone gives the label of {accuracy:.1%} of rows."
        for name, accuracy in giveaway["columns"].items()
    ]
    return lines


def truncation_warnings(truncation: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence for each split of which tokens were cut off."""
    return [
        f"{one['rows']:,} {name} rows are cut at data.max_length; {one['share']:.1%} of the split's tokens are lost."
        for name, one in truncation.items()
        if one["rows"]
    ]


def _near_groups(
    splits: Mapping[str, LabelledTexts], prints: Mapping[str, Fingerprints]
) -> dict[str, NDArray[np.int64]]:
    """For each row the number of its group of near duplicates, over all splits; each distinct text is signed once.

    Found once for the same texts in the same order, and kept in the cache.
    """
    digests = np.concatenate([prints[name].normal for name in splits])
    key = key_of("near", hashlib.sha256(digests.tobytes()).hexdigest())
    folder = cached("near", key, lambda aside: _write_near_groups(splits, digests, aside))
    ends = np.cumsum([len(split) for split in splits.values()])[:-1]
    return dict(zip(splits, np.split(np.load(folder / "groups.npy"), ends), strict=True))


def _write_near_groups(splits: Mapping[str, LabelledTexts], digests: duplicates.Digests, folder: Path) -> None:
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    is_first = np.zeros(len(digests), dtype=bool)
    is_first[first] = True
    texts = (text for split in splits.values() for text in split)
    signed = duplicates.near_groups(
        (duplicates.normal_form(text) for text, wanted in zip(texts, is_first, strict=True) if wanted),
        len(first),
        folder,
    )
    of_distinct = np.empty(len(first), dtype=np.int64)
    of_distinct[np.argsort(first, kind="stable")] = signed
    np.save(folder / "groups.npy", of_distinct[inverse])


def _summary(split: LabelledTexts, prints: Fingerprints, groups: NDArray[np.int64]) -> dict[str, Any]:
    """Rows, label shares, lengths in words, empty texts, and rows that repeat an earlier one in three senses."""
    words = prints.words
    counts = np.bincount(split.labels, minlength=len(split.label_names))
    return {
        "rows": len(split),
        "label_shares": {
            name: float(count / len(split)) for name, count in zip(split.label_names, counts, strict=True)
        },
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


def _unknown_labels(splits: Mapping[str, LabelledTexts]) -> dict[str, dict[str, int]]:
    """For each held-out split that has any: labels that no row of train has, and their rows."""
    if "train" not in splits:
        return {}
    known = splits["train"].labels
    found = {
        name: np.unique(split.labels[~np.isin(split.labels, known)], return_counts=True)
        for name, split in splits.items()
    }
    return {
        name: {splits[name].label_names[label]: int(rows) for label, rows in zip(labels, counts, strict=True)}
        for name, (labels, counts) in found.items()
        if len(labels)
    }


def _shared(prints: Mapping[str, Fingerprints]) -> dict[str, int]:
    """How many different texts two splits share, for every pair that shares any; their form does not count."""
    shared = {
        f"{one} and {other}": len(np.intersect1d(prints[one].normal, prints[other].normal))
        for one, other in combinations(prints, 2)
    }
    return {pair: count for pair, count in shared.items() if count}


def _twins(
    splits: Mapping[str, LabelledTexts], prints: Mapping[str, Fingerprints], groups: Mapping[str, NDArray[np.int64]]
) -> dict[str, dict[str, Any]]:
    """For each held-out split, how many of its rows stand in train in each sense; each sense includes the stricter.

    ``ids`` are those of the near ones.
    """
    if "train" not in prints:
        return {}
    train = prints["train"]
    found = {}
    for name, one in prints.items():
        if name != "train":
            near = duplicates.twins(groups[name], groups["train"])
            found[name] = {
                "rows": len(near),
                "exact": int(duplicates.twins(one.exact, train.exact).sum()),
                "normalised": int(duplicates.twins(one.normal, train.normal).sum()),
                "near": int(near.sum()),
                "ids": splits[name].ids[near].tolist(),
            }
    return found


def _conflicts(splits: Mapping[str, LabelledTexts], prints: Mapping[str, Fingerprints]) -> dict[str, Any]:
    """Rows of all splits whose text stands there with another label, the first of them with their place."""
    normal = np.concatenate([prints[name].normal for name in splits])
    labels = np.concatenate([split.labels for split in splits.values()])
    rows = duplicates.conflicting(normal, labels)
    ends = np.cumsum([len(split) for split in splits.values()])
    shown = []
    for row in rows[:_MOST_SHOWN]:
        index = int(np.searchsorted(ends, row, side="right"))
        split = list(splits.values())[index]
        shown.append(split.shown(int(row - (ends[index] - len(split))), split=split.name))
    return {"rows": len(rows), "examples": shown}


def _giveaways(split: LabelledTexts, rows: NDArray[np.int64], texts: list[str], seed: int) -> dict[str, Any]:
    labels = split.labels[rows]
    columns: dict[str, float] = {}
    for name in set(split.texts.column_names) - {"text"}:
        accuracy = giveaways.column(split.column(name, rows), labels, seed)
        columns |= {name.removeprefix("column:"): accuracy} if accuracy is not None else {}
    words = [{**one, "label": split.label_names[one["label"]]} for one in giveaways.words(texts, labels)]
    return {"identifier": giveaways.is_identifier(texts), "words": words, "columns": columns}


def _suspects(split: LabelledTexts, rows: NDArray[np.int64], texts: list[str], seed: int) -> dict[str, Any]:
    found = label_issues.find(texts, split.labels[rows], seed)
    shown = [
        split.shown(int(rows[one["row"]]), suggested=split.label_names[one["suggested"]], confidence=one["confidence"])
        for one in found[:100]
    ]
    return {"split": split.name, "rows": len(rows), "suspects": len(found), "examples": shown}
