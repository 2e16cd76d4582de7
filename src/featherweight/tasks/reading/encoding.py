"""A split as the engine sees it: tokenised once, into the cache, and memory-mapped from there."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from featherweight.records.cutting import Cutting
from featherweight.records.rows import Column, Encoding, Examples, Ragged
from featherweight.storage.cache import cached, key_of
from featherweight.tasks.reading import tokens


def of_rows(examples: Examples, tokenizer: Any, cutting: Cutting, targets: Column | None = None) -> Encoding:
    """Tokens of each row, and where its words are read.

    Args:
        targets: what the loss is about; the truth if None.
    """
    rows = hashlib.sha256(examples.ids.tobytes()).hexdigest()
    words = () if examples.words is None else (hashlib.sha256(examples.words.values.tobytes()).hexdigest(),)
    identity = tokens.identity(tokenizer)
    key = key_of(examples.fingerprint, rows, *examples.text_columns, *words, identity, *cutting.facts().values())
    folder = cached("encoded", key, lambda aside: tokens.write(examples.questions(), tokenizer, cutting, aside))
    offsets = np.load(folder / "offsets.npy")
    ids: Any = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r", shape=(int(offsets[-1]),))
    reads = None if examples.words is None else Ragged(*(np.load(folder / name) for name in ("reads.npy", "words.npy")))
    kinds: Any = None
    if (folder / tokens.KINDS).is_file() and (folder / tokens.KINDS).stat().st_size:
        kinds = Ragged(np.memmap(folder / tokens.KINDS, dtype=np.int8, mode="r", shape=ids.shape), offsets)
    windows = np.load(folder / tokens.WINDOWS) if cutting.makes_windows else None
    cut, lost = np.load(folder / "truncated.npy")
    truth = examples.truth if targets is None else targets
    return Encoding(
        Ragged(ids, offsets), truth, reads, kinds, windows, cutting.pool, cut=int(cut), lost=int(lost), key=key
    )
