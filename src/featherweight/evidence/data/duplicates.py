"""Texts that occur twice: to the byte, but for case, white space and punctuation, or nearly.

Texts are streamed and kept as 8-byte digests in memory and as MinHash signatures on disk, so that ten million take what
one does but for some 50 bytes each. Near duplicates are texts whose sets of character 5-grams overlap (Jaccard) by
:data:`NEAR` or more, estimated by MinHash (Broder 1997) over candidates from locality-sensitive hashing (Indyk and
Motwani 1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.evidence.data.minhash import BANDS, SHINGLE, Shelf
from featherweight.records import words
from featherweight.records.questions import JOINT

Digests = NDArray[np.uint64]

NEAR = 0.7
_BLOCK_PAIRS = 100_000


def normal_form(text: str) -> str:
    """Of each of a row's texts; where one ends is no matter of form."""
    return JOINT.join(map(words.normal_form, text.split(JOINT)))


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of a split's texts.

    Attributes:
        exact: uint64, shape (rows,), digest of the text.
        normal: uint64, shape (rows,), digest of its normal form.
        words: int64, shape (rows,), how many it has.
    """

    exact: Digests
    normal: Digests
    words: NDArray[np.int64]

    def select(self, rows: NDArray[np.int64]) -> Fingerprints:
        return Fingerprints(self.exact[rows], self.normal[rows], self.words[rows])


def fingerprints(texts: Iterable[str]) -> Fingerprints:
    """Digests of every text; 64 bits, so that among a million texts a clash has a chance of 1 in 30 million."""
    kept = np.fromiter(
        ((_digest(text), _digest(normal_form(text)), len(text.replace(JOINT, " ").split())) for text in texts),
        dtype=[("exact", np.uint64), ("normal", np.uint64), ("words", np.int64)],
    )
    return Fingerprints(*(np.ascontiguousarray(kept[name]) for name in ("exact", "normal", "words")))


def repeated(digests: Digests) -> int:
    """How many rows repeat an earlier one."""
    return int(len(digests) - len(np.unique(digests)))


def twins(of: NDArray[Any], among: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of the one split also stand in the other, by digest or by group; shape (rows of the first,)."""
    return np.isin(of, among)


def conflicting(normal: Digests, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose text, but for its form, also stands there with another label; those of one text side by side."""
    order = np.lexsort((labels, normal))
    keys, values = normal[order], labels[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, dtype=np.int64)
    lows, highs = (np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)) if len(keys) else ([], [])
    mixed = np.asarray(lows) != np.asarray(highs)
    sizes = np.diff(np.append(starts, len(keys)))
    return np.asarray(order[np.repeat(mixed, sizes)], dtype=np.int64)


def near_groups(texts: Iterable[str], count: int, folder: Path) -> NDArray[np.int64]:
    """A number for each text, the same for texts that are near duplicates of one another, or linked by such.

    Args:
        texts: normal forms; pass each only once for speed.
        count: how many they are.
        folder: where some 420 bytes a text are kept meanwhile.

    Returns:
        int64, shape (texts,).
    """
    if count == 0:
        return np.empty(0, dtype=np.int64)
    groups = np.arange(count, dtype=np.int64)
    with Shelf(folder, count) as shelf:
        shelf.fill(texts)
        for band in range(BANDS):
            pairs = _candidates(shelf.keys(band))
            pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]  # not yet linked
            for start in range(0, len(pairs), _BLOCK_PAIRS):
                part = pairs[start : start + _BLOCK_PAIRS]
                groups = _linked(groups, part[shelf.agreement(part) >= NEAR])
    return groups


def jaccard(one: str, other: str) -> float:
    """Overlap of two texts' sets of character 5-grams, exactly."""
    sets = [
        {text[start : start + SHINGLE] for start in range(max(len(text) - SHINGLE + 1, 1))} for text in (one, other)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def _digest(text: str) -> int:
    raw = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _candidates(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of texts whose keys are equal: each with the first and with the next of its bucket; shape (pairs, 2)."""
    ordered = np.sort(keys)
    shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(shared) == 0:
        return np.empty((0, 2), dtype=np.int64)
    places = np.minimum(np.searchsorted(shared, keys), len(shared) - 1)
    members = np.flatnonzero(shared[places] == keys)
    order = members[np.argsort(places[members], kind="stable")]
    same = places[order][1:] == places[order][:-1]
    heads = np.maximum.accumulate(np.where(np.append(True, ~same), np.arange(len(order)), 0))
    inner = np.flatnonzero(same) + 1
    pairs = np.concatenate(
        [order[heads[inner]] * len(keys) + order[inner], order[inner - 1] * len(keys) + order[inner]]
    )
    return np.stack(np.divmod(np.unique(pairs), len(keys)), axis=1)


def _linked(groups: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups with those of each pair made one; numbered in the order in which they first occur."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    if len(pairs) == 0:
        return groups
    ends = groups[pairs]
    size = int(groups.max()) + 1
    graph = sparse.coo_array((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(size, size))
    joined: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return joined[groups]
