"""From questions to token ids, as the model's own tokenizer makes them, in batches that bound the memory.

Texts are tokenised whole and cut here. Cutting inside the tokenizer gives the same ids, but keeps what is cut off in
pieces of ``max_length`` tokens that hold one another, so that a long document costs the square of its length.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ModelError
from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import UNSEEN, Ragged
from featherweight.sources.panics import no_panics
from featherweight.storage.cache import file_hash, key_of

WINDOWS = "windows.npy"
KINDS = "kinds.bin"  # empty where the model is told nothing of the kind
_BATCH_ROWS = 4_096
_BATCH_CHARACTERS = 1 << 20  # of which a tokenizer makes some 100 bytes each while it works


def encode(asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
    """Token ids of each question with the model's special tokens, none empty. Where questions have words, those are
    what is tokenised, one by one (``is_split_into_words``), and the first token of each is the one that is read.

    Args:
        cutting: what becomes of more tokens than the model takes; a pair loses them from the longer text first
            (``longest_first``).
    """
    found: list[Tokens] = []
    for batch in batches(asked):
        by_word = batch[0].words is not None
        with no_panics():
            encoded = _whole(tokenizer, by_word)([_given(one) for one in batch])
        for one, question in zip(encoded, batch, strict=True):
            found.append(_tokens(one, question, tokenizer, cutting))
    return found


def _given(asked: Question) -> str | list[str] | tuple[str, str]:
    """What a tokenizer takes."""
    if asked.words is not None:
        return asked.spelt()
    return (asked.text, asked.pair) if asked.pair else asked.text  # an empty second text is none, as for transformers


def write(asked: Iterable[Question], tokenizer: Any, cutting: Cutting, folder: Path) -> None:
    """Tokenise into ``tokens.bin`` (int32, end to end), ``offsets.npy`` (int64, shape (sequences + 1,)) and
    ``truncated.npy`` (int64: rows that were cut, tokens that were cut off in all); where questions have words, the
    place of the token that is read for each into ``reads.npy`` (int32) and ``words.npy`` (offsets); where the model is
    told which text of a pair a token is of, that into ``kinds.bin`` (int8, as ``tokens.bin``); where rows may be
    several sequences, where each row's begin into ``windows.npy`` (int64, shape (rows + 1,))."""
    lengths: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    reads: list[Sequence[int]] = []
    windows = [0]
    truncated = cut_off = 0
    with (folder / "tokens.bin").open("wb") as stream, (folder / KINDS).open("wb") as kinds:
        for batch in batches(asked):
            rows = encode(batch, tokenizer, cutting)
            truncated, cut_off = truncated + sum(row.lost > 0 for row in rows), cut_off + sum(row.lost for row in rows)
            sequences = [row.windows() for row in rows]
            windows += map(len, sequences)
            lengths.append(np.asarray([len(one.ids) for row in sequences for one in row], dtype=np.int64))
            reads += [row.reads for row in rows if row.reads is not None]
            for row in rows:
                stream.write(np.asarray(row.ids, dtype=np.int32).tobytes())
                if row.kinds is not None:
                    kinds.write(np.asarray(row.kinds, dtype=np.int8).tobytes())
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)))
    np.save(folder / "truncated.npy", np.asarray([truncated, cut_off], dtype=np.int64))
    if cutting.makes_windows:
        np.save(folder / WINDOWS, np.cumsum(windows, dtype=np.int64))
    if reads:
        words = Ragged.of(reads, np.int32)
        np.save(folder / "reads.npy", words.values)
        np.save(folder / "words.npy", words.offsets)


def identity(tokenizer: Any) -> str:
    """A hash of all that decides token ids, but for the truncation and padding that the last call left set."""
    if not tokenizer.is_fast:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            return key_of(type(tokenizer).__name__, *(file_hash(path) for path in sorted(Path(folder).iterdir())))
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return key_of({key: value for key, value in content.items() if key not in {"truncation", "padding"}})


def batches(asked: Iterable[Question]) -> Iterator[list[Question]]:
    """Questions in order, few enough and short enough together for the memory that tokenising takes."""
    batch: list[Question] = []
    characters = 0
    for one in asked:
        batch.append(one)
        characters += one.characters
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class FileTokenizer:
    """A ``tokenizer.json`` alone, where transformers is not installed: as much of its tokenizers as is asked for here.

    Attributes:
        backend_tokenizer: of the library ``tokenizers``.
        pad_token_id: what a text without any token becomes.
        truncation_side: which end of a long text goes.
        model_input_names: what its model is told.
    """

    backend_tokenizer: Any
    pad_token_id: int
    truncation_side: str = "right"
    model_input_names: Sequence[str] = ()
    split_special_tokens: bool = False
    is_fast: ClassVar[bool] = True


class _Encoded(Protocol):
    """One row as the fast backend encodes it."""

    ids: list[int]
    special_tokens_mask: list[int]
    word_ids: list[int | None]
    sequence_ids: list[int | None]
    type_ids: list[int]


@dataclass
class _InPython:
    ids: list[int]
    special_tokens_mask: list[int]
    word_ids: list[int | None] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)


def _whole(tokenizer: Any, by_word: bool) -> Callable[[list[Any]], Sequence[_Encoded]]:
    """What encodes rows as ``tokenizer(rows)`` does, and cuts and pads nothing.

    Args:
        by_word: rows are lists of words.
    """
    if not tokenizer.is_fast:
        if by_word:
            raise _does_not_say(tokenizer, "word")
        return partial(_in_python, tokenizer)
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens
    if by_word:  # the fast way does not say which word a token is of
        return partial(backend.encode_batch, is_pretokenized=True)
    return backend.encode_batch_fast  # type: ignore[no-any-return]


def _in_python(tokenizer: Any, texts: list[Any]) -> list[_Encoded]:
    """By a tokenizer that has no fast version."""
    if not all(isinstance(text, str) for text in texts):
        raise _does_not_say(tokenizer, "text of a pair")
    encoded = tokenizer(texts, verbose=False, return_special_tokens_mask=True)
    return [_InPython(*one) for one in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)]


def _does_not_say(tokenizer: Any, what: str) -> ModelError:
    return ModelError(
        f"{type(tokenizer).__name__} runs in Python alone and does not say which token is of which {what}; "
        "choose a model with a fast tokenizer"
    )


def _tokens(encoded: _Encoded, asked: Question, tokenizer: Any, cutting: Cutting) -> Tokens:
    """A row as the model takes it."""
    ids = encoded.ids  # made anew at each reading, as the others are
    excess = max(len(ids) - cutting.max_length, 0)
    kept: Sequence[int] = range(len(ids))
    if excess:
        texts = _texts(encoded, asked)
        windows = _WAYS[cutting.long_texts](texts, len(ids), excess, _Side(tokenizer.truncation_side, cutting.stride))
        if len(windows) > 1:
            spelt = [[ids[place] for place in window] for window in windows]
            return Tokens([one for window in spelt for one in window], ends=np.cumsum([*map(len, spelt)]).tolist())
        (kept,) = windows
        ids = [ids[place] for place in kept]
    reads = None if asked.words is None else _first_of_each(encoded.word_ids, kept, len(asked.words))
    kinds = None
    if asked.pair is not None and "token_type_ids" in tokenizer.model_input_names:
        kinds = [encoded.type_ids[place] for place in kept] or [0]
    return Tokens(ids or [tokenizer.pad_token_id], reads, kinds, excess)


def _texts(encoded: _Encoded, asked: Question) -> list[NDArray[np.int64]]:
    """Places of each text's tokens, without the special ones that were put around them."""
    if asked.pair is None:
        return [np.flatnonzero(np.asarray(encoded.special_tokens_mask) == 0)]
    of = np.asarray([-1 if one is None else one for one in encoded.sequence_ids])
    return [np.flatnonzero(of == 0), np.flatnonzero(of == 1)]


def _shares(lengths: Sequence[int], excess: int) -> list[int]:
    """How many tokens each text loses: a pair's longer one first, then both in turn (``longest_first``)."""
    if len(lengths) == 1:
        return [excess]
    room = sum(lengths) - excess
    shorter, longer = sorted(lengths)
    if 2 * shorter > room:
        shorter, longer = room // 2, room - room // 2
    else:
        longer = room - shorter
    left = (shorter, longer) if lengths[0] <= lengths[1] else (longer, shorter)
    return [length - stays for length, stays in zip(lengths, left, strict=True)]


@dataclass(frozen=True)
class _Side:
    """Which end of a text goes (``truncation_side``), and how many tokens neighbouring windows share."""

    truncated: str
    shared: int


Texts = Sequence[NDArray[np.int64]]  # the places of each text's own tokens


def _cut(texts: Texts, length: int, excess: int, side: _Side) -> list[list[int]]:
    """One side of each text."""
    shares = zip(texts, _shares([len(text) for text in texts], excess), strict=True)
    if side.truncated == "left":
        return [_without(length, [text[:share] for text, share in shares])]
    return [_without(length, [text[len(text) - share :] for text, share in shares])]


def _head_tail(texts: Texts, length: int, excess: int, side: _Side) -> list[list[int]]:
    """Of each text as much of its head as a quarter of what stays, and its tail (Sun et al., "How to Fine-Tune BERT
    for Text Classification?", 2019, who take 128 and 382 tokens)."""
    gone = []
    for text, share in zip(texts, _shares([len(text) for text in texts], excess), strict=True):
        head = (len(text) - share) // 4
        gone.append(text[head : head + share])
    return [_without(length, gone)]


def _windows(texts: Texts, length: int, excess: int, side: _Side) -> list[list[int]]:
    """Windows over the one text, as long as they may be, the last one too: it ends where the text does."""
    (text,) = texts
    room = len(text) - excess
    step = max(room - side.shared, 1)
    starts = [*range(0, excess, step), excess]
    return [_without(length, [text[:start], text[start + room :]]) for start in starts]


# What `data.long_texts` names. Each gives the places of the tokens of every sequence that a row becomes.
_WAYS: dict[str, Callable[[Texts, int, int, _Side], list[list[int]]]] = {
    "cut": _cut,
    "head-tail": _head_tail,
    "stride": _windows,
}


def _without(length: int, gone: Sequence[NDArray[np.int64]]) -> list[int]:
    """Places of the tokens that stay, the special ones that were put around the texts among them."""
    places: list[int] = np.delete(np.arange(length), np.concatenate(gone)).tolist()
    return places


def _first_of_each(words: Sequence[int | None], kept: Sequence[int], count: int) -> list[int]:
    """For each of so many words its first token among those kept."""
    reads = [UNSEEN] * count
    for place, token in enumerate(kept):
        word = words[token]
        if word is not None and reads[word] == UNSEEN:
            reads[word] = place
    return reads
