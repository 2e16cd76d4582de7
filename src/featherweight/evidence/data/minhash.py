"""MinHash signatures of texts, kept on disk, so that their number costs disk and not memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5
BANDS, _ROWS_PER_BAND = 21, 6  # finds 93 % of pairs at Jaccard 0.7, 99.8 % at 0.8
_PERMUTATIONS = BANDS * _ROWS_PER_BAND
_MOST_CHARACTERS = 5_000  # of a text for its signature; longer texts that differ only after that count as near
_BLOCK_TEXTS = 2_000
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Shelf:
    """Signatures in ``folder``, by text, and beside them one number for each text and band, by band.

    Args:
        texts: how many there will be.
    """

    def __init__(self, folder: Path, texts: int) -> None:
        self.texts = texts
        self._signatures = (folder / "signatures.bin").open("w+b")
        self._keys = (folder / "keys.bin").open("w+b")

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in (self._signatures, self._keys):
            file.close()
            Path(file.name).unlink()

    def fill(self, texts: Iterable[str]) -> None:
        start = 0
        for block in signatures(texts):
            self._signatures.write(block.tobytes())
            for band, keys in enumerate(_band_keys(block)):
                self._keys.seek(8 * (band * self.texts + start))
                self._keys.write(keys.tobytes())
            start += len(block)
        self._signatures.flush()
        self._keys.flush()

    def keys(self, band: int) -> NDArray[np.uint64]:
        """Equal where two texts agree in the whole band, and else by a chance of 1 in 2^64; shape (texts,)."""
        self._keys.seek(8 * band * self.texts)
        return np.fromfile(self._keys, dtype=np.uint64, count=self.texts)

    def agreement(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the signature in which the texts of each pair agree, which estimates Jaccard; shape (pairs,)."""
        wanted, places = np.unique(pairs, return_inverse=True)
        found = np.empty((len(wanted), _PERMUTATIONS), dtype=np.uint16)
        for row, text in enumerate(wanted):
            self._signatures.seek(int(text) * found.itemsize * _PERMUTATIONS)
            self._signatures.readinto(found[row].data)
        one, other = places.reshape(-1, 2).T
        return np.asarray((found[one] == found[other]).mean(axis=1))


def signatures(texts: Iterable[str]) -> Iterator[NDArray[np.uint16]]:
    """MinHash signatures, 16 bits a permutation; blocks of shape (texts, permutations)."""
    generator = np.random.default_rng(0)
    factors = generator.integers(1, 2**63, _PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
    shifts = generator.integers(0, 2**63, _PERMUTATIONS, dtype=np.uint64)
    iterator = iter(texts)
    while block := list(islice(iterator, _BLOCK_TEXTS)):
        shingles, starts = _shingles(block)
        signature = np.empty((len(block), _PERMUTATIONS), dtype=np.uint16)
        for index in range(_PERMUTATIONS):
            hashed = (shingles * factors[index] + shifts[index]) >> np.uint64(32)
            least = np.minimum.reduceat(hashed, starts)
            signature[:, index] = (least * np.uint64(0x9E3779B1) >> np.uint64(8)) & np.uint64(0xFFFF)
        yield signature


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all texts' character 5-grams end to end, and where each text's begin."""
    encoded = [
        (text[:_MOST_CHARACTERS] or " ").ljust(SHINGLE, "\0").encode("utf-32-le", "surrogatepass") for text in texts
    ]
    lengths = np.asarray([len(one) // 4 for one in encoded])
    characters = np.frombuffer(b"".join(encoded), dtype=np.uint32).astype(np.uint64)
    rolled = np.zeros(len(characters) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        rolled = rolled * np.uint64(0x100000001B3) + characters[offset : offset + len(rolled)]
    rolled ^= rolled >> np.uint64(29)
    rolled *= np.uint64(0xBF58476D1CE4E5B9)
    rolled ^= rolled >> np.uint64(32)
    counts = lengths - SHINGLE + 1
    first = np.cumsum(lengths) - lengths
    starts = np.cumsum(counts) - counts
    picked = np.repeat(first - starts, counts) + np.arange(counts.sum())
    return rolled[picked], starts


def _band_keys(block: NDArray[np.uint16]) -> Iterator[NDArray[np.uint64]]:
    """For each band a hash of its rows of the signatures; shape (texts of the block,)."""
    for band in range(BANDS):
        key = np.zeros(len(block), dtype=np.uint64)
        for row in range(_ROWS_PER_BAND):
            key = (key ^ block[:, band * _ROWS_PER_BAND + row]) * _MIX
            key ^= key >> np.uint64(29)
        yield key
