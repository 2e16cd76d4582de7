"""From texts to token ids, as the model's own tokenizer makes them, in batches that bound the memory.

Texts are tokenised whole and cut here. Cutting inside the tokenizer gives the same ids, but keeps what is cut off in
pieces of ``max_length`` tokens that hold one another, so that a long document costs the square of its length.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.sources.panics import no_panics
from featherweight.storage.cache import file_hash, key_of

_BATCH_ROWS = 4_096
_BATCH_CHARACTERS = 1 << 20  # of which a tokenizer makes some 100 bytes each while it works


def encode(texts: Sequence[str], tokenizer: Any, max_length: int) -> tuple[list[list[int]], list[int]]:
    """Token ids of each text with the model's special tokens, none empty, and how many tokens were cut off each.

    Args:
        max_length: the most tokens of a text, special ones among them; more than these are.
    """
    whole = _whole(tokenizer)
    ids: list[list[int]] = []
    lost: list[int] = []
    for batch in batches(texts):
        with no_panics():
            encoded = whole(batch)
        for one in encoded:
            found = one.ids  # made anew at each reading
            kept = found if len(found) <= max_length else _cut(one, max_length, tokenizer.truncation_side)
            ids.append(kept or [tokenizer.pad_token_id])
            lost.append(len(found) - len(kept))
    return ids, lost


def write(texts: Iterable[str], tokenizer: Any, max_length: int, folder: Path) -> None:
    """Tokenise into ``tokens.bin`` (int32, end to end), ``offsets.npy`` (int64, shape (rows + 1,)) and
    ``truncated.npy`` (int64: rows that were cut, tokens that were cut off in all)."""
    lengths: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    truncated = cut_off = 0
    with (folder / "tokens.bin").open("wb") as stream:
        for batch in batches(texts):
            ids, lost = encode(batch, tokenizer, max_length)
            truncated, cut_off = truncated + sum(map(bool, lost)), cut_off + sum(lost)
            lengths.append(np.asarray([len(row) for row in ids], dtype=np.int64))
            for row in ids:
                stream.write(np.asarray(row, dtype=np.int32).tobytes())
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)))
    np.save(folder / "truncated.npy", np.asarray([truncated, cut_off], dtype=np.int64))


def identity(tokenizer: Any) -> str:
    """A hash of all that decides token ids, but for the truncation and padding that the last call left set."""
    if not tokenizer.is_fast:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            return key_of(type(tokenizer).__name__, *(file_hash(path) for path in sorted(Path(folder).iterdir())))
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return key_of({key: value for key, value in content.items() if key not in {"truncation", "padding"}})


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in order, few enough and short enough together for the memory that tokenising takes."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Encoded(Protocol):
    """One text as the fast backend encodes it."""

    ids: list[int]
    special_tokens_mask: list[int]


@dataclass
class _InPython:
    ids: list[int]
    special_tokens_mask: list[int]


def _whole(tokenizer: Any) -> Callable[[list[str]], Sequence[_Encoded]]:
    """What encodes texts as ``tokenizer(texts)`` does, and cuts and pads nothing."""
    if not tokenizer.is_fast:
        return partial(_in_python, tokenizer)
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend.encode_batch_fast  # type: ignore[no-any-return]


def _in_python(tokenizer: Any, texts: list[str]) -> list[_Encoded]:
    """By a tokenizer that has no fast version."""
    encoded = tokenizer(texts, verbose=False, return_special_tokens_mask=True)
    return [_InPython(*one) for one in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)]


def _cut(encoded: _Encoded, max_length: int, side: str) -> list[int]:
    """``max_length`` of the ids: the special tokens that were put around the text, and one side of the text."""
    ids = np.asarray(encoded.ids)
    text = np.flatnonzero(np.asarray(encoded.special_tokens_mask) == 0)
    excess = len(ids) - max_length
    gone = text[:excess] if side == "left" else text[-excess:]
    return [int(one) for one in np.delete(ids, gone)]
