"""What is in a data set: labels, lengths, empty and repeated texts, within and between its splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from featherweight.recipe import DataSection
from featherweight.records import Split


def summarise(split: Split, section: DataSection) -> dict[str, Any]:
    """One split's rows, label shares, lengths in words, and how many texts are empty or repeated."""
    labels: Counter[str] = Counter()
    words = []
    empty = 0
    for text, label in _rows(split, section):
        labels[label] += 1
        words.append(len(text.split()))
        empty += not text.strip()
    lengths = np.asarray(words)
    total = len(words)
    return {
        "rows": total,
        "label_shares": {label: count / total for label, count in sorted(labels.items())},
        "words": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "95th percentile": float(np.percentile(lengths, 95)),
            "longest": int(lengths.max()),
        },
        "empty_texts": empty,
        "repeated_texts": total - len(_digests(split, section)),
    }


def overlaps(splits: Mapping[str, Split], section: DataSection) -> dict[str, int]:
    """How many different texts two splits share, for every pair that shares any; case and white space don't count."""
    digests = {name: _digests(split, section) for name, split in splits.items()}
    shared = {f"{one} and {other}": len(digests[one] & digests[other]) for one, other in combinations(splits, 2)}
    return {pair: count for pair, count in shared.items() if count}


def _rows(split: Split, section: DataSection) -> Iterator[tuple[str, str]]:
    for batch in split.rows.select_columns([section.text, section.label]).iter(batch_size=1000):
        for text, label in zip(batch[section.text], batch[section.label], strict=True):
            yield text or "", "" if label is None else _name(label, split)


def _name(label: Any, split: Split) -> str:
    named = split.label_names and isinstance(label, int) and 0 <= label < len(split.label_names)
    return split.label_names[label] if named and split.label_names else str(label)


def _digests(split: Split, section: DataSection) -> set[bytes]:
    """8 bytes a distinct text, so that a million rows take tens of megabytes."""
    return {
        hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=8).digest()
        for text, _ in _rows(split, section)
    }
