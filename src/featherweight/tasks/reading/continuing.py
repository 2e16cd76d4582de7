"""From dialogues to token ids, and which of them are learned, as TRL's ``SFTTrainer`` has it.

A prompt and its completion are tokenised together and the prompt alone: what is learned begins where their ids part. A
conversation is rendered by the model's own chat template, and each reply of the assistant is found the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import ASSISTANT, USER, Dialogue, Learning, Turn
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Ragged, next_tokens
from featherweight.sources.panics import no_panics
from featherweight.storage.cache import cached, key_of
from featherweight.tasks.reading.dialogues import digest
from featherweight.tasks.reading.tokens import batches, identity

Encoder: TypeAlias = "Callable[[Sequence[Question], Any, Cutting], list[Tokens]]"

_FORMAT = 1  # goes up where the same rows become other tokens


def of_rows(examples: Examples, tokenizer: Any, cutting: Cutting, learning: Learning) -> Encoding:
    """Tokens of each row; it is read at each token before one that is learned, which is its target."""

    def as_learned(asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        return encode(asked, tokenizer, cutting, learning)

    found = sequences("continued", examples, tokenizer, cutting, as_learned, learning)
    assert found.reads is not None
    return replace(found, targets=next_tokens(found.tokens, found.reads))


def sequences(
    kind: str, examples: Examples, tokenizer: Any, cutting: Cutting, encoder: Encoder, learning: Learning
) -> Encoding:
    """Every sequence that the rows become, tokenised once and memory-mapped, with what is read of it; what the targets
    are is for whoever asks.

    Args:
        kind: of sequences, for the cache.
        encoder: makes tokens of some rows.
    """
    rows = hashlib.sha256(examples.ids.tobytes()).hexdigest()
    key = key_of(
        _FORMAT, examples.fingerprint, rows, *examples.text_columns, identity(tokenizer), tokenizer.chat_template or "",
        tokenizer.eos_token or "", cutting.max_length, learning.prompts, learning.everybody, digest(examples),
    )  # fmt: skip
    folder = cached(kind, key, lambda aside: _write(examples.questions(), tokenizer, cutting, encoder, aside))
    offsets, ends = np.load(folder / "offsets.npy"), np.load(folder / "ends.npy")
    ids: Any = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r", shape=(int(offsets[-1]),))
    reads = Ragged(np.load(folder / "reads.npy"), ends)
    cut, lost = np.load(folder / "truncated.npy")
    return replace(Encoding.unlabelled(Ragged(ids, offsets), reads), cut=int(cut), lost=int(lost), key=key)


def encode(asked: Sequence[Question], tokenizer: Any, cutting: Cutting, learning: Learning) -> list[Tokens]:
    """Each dialogue as its model sees it. One that is to be written ends where the reply begins, and loses its
    beginning where it is too long; others lose their end.

    Raises:
        DataError: the tokenizer has no chat template for a conversation, or it can't be rendered.
    """
    dialogues = [one.dialogue or Dialogue(one.text) for one in asked]
    parts = [_spelt(one, tokenizer, learning) for one in dialogues]
    ids = iter(
        _ids([text for part in parts for text in part.texts], tokenizer, [p.is_chat for p in parts for _ in p.texts])
    )
    return [_tokens(part, [next(ids) for _ in part.texts], tokenizer, cutting) for part in parts]


@dataclass(frozen=True)
class _Spelt:
    """A dialogue as texts.

    Attributes:
        texts: the whole, and then for each piece that is learned what comes before it and what ends with it.
        is_open: it is to be continued.
    """

    texts: list[str]
    is_chat: bool
    is_open: bool


def _spelt(dialogue: Dialogue, tokenizer: Any, learning: Learning) -> _Spelt:
    if not dialogue.is_chat:
        prompt, completion = str(dialogue.prompt), dialogue.completion
        if completion is None:
            return _Spelt([prompt], False, True)
        whole = _ended(prompt + str(completion), tokenizer)
        return _Spelt([whole, "" if learning.prompts else prompt, whole], False, False)
    turns = dialogue.turns
    if dialogue.completion is None:
        return _Spelt([_rendered(turns, tokenizer, True)], True, True)
    whole = _rendered(turns, tokenizer)
    if learning.prompts or learning.everybody:
        asked = dialogue.prompt if isinstance(dialogue.prompt, tuple) and not learning.prompts else ()
        begun = _rendered(asked, tokenizer, True)
        return _Spelt([whole, begun, whole], True, False)
    texts = [whole]
    for place in dialogue.replies():
        ended = whole if place == len(turns) - 1 else _rendered(turns[: place + 1], tokenizer)
        texts += [_rendered(turns[:place], tokenizer, True), ended]
    return _Spelt(texts, True, False)


def _ended(text: str, tokenizer: Any) -> str:
    """With an end of text, where it has none."""
    end = tokenizer.eos_token
    return text if end is None or text.endswith(end) else text + end


def _rendered(turns: Sequence[Turn], tokenizer: Any, replying: bool = False) -> str:
    if not turns:
        return ""
    if tokenizer.chat_template is None:
        raise DataError(
            "the rows are conversations, and the model's tokenizer has no chat template; set data.chat_template, or "
            "choose a model that was made for conversations"
        )
    messages = [turn.as_message() for turn in turns]
    try:
        found = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=replying)
    except Exception as error:
        raise DataError(f"the chat template can't render a conversation: {str(error).splitlines()[0]}") from error
    return str(found)


def _ids(texts: Sequence[str], tokenizer: Any, rendered: Sequence[bool]) -> list[list[int]]:
    """Ids of each text, each distinct one tokenised once; what a template rendered has its special tokens already."""
    found: dict[tuple[str, bool], list[int]] = {}
    for special in (True, False):
        wanted = [text for text, chat in dict.fromkeys(zip(texts, rendered, strict=True)) if chat is not special]
        if wanted:
            with no_panics():
                rows = tokenizer(wanted, add_special_tokens=special, verbose=False)["input_ids"]
            found |= {(text, not special): ids for text, ids in zip(wanted, rows, strict=True)}
    return [found[one] for one in zip(texts, rendered, strict=True)]


def _tokens(spelt: _Spelt, ids: list[list[int]], tokenizer: Any, cutting: Cutting) -> Tokens:
    whole, pieces = ids[0], ids[1:]
    excess = max(len(whole) - cutting.max_length, 0)
    if spelt.is_open:
        return Tokens(whole[excess:] or [_any_token(tokenizer)], None, None, excess)
    learned = np.zeros(len(whole), dtype=bool)
    for before, ended in zip(pieces[::2], pieces[1::2], strict=True):
        learned[_shared(before, whole) : _shared(ended, whole)] = True
    learned[:1] = False  # nothing is read before the first token
    kept = whole[: len(whole) - excess]
    reads = (np.flatnonzero(learned[: len(kept)]) - 1).tolist()
    return Tokens(kept or [_any_token(tokenizer)], reads, None, excess)


def _any_token(tokenizer: Any) -> int:
    """What an empty text becomes."""
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.pad_token_id
    return int(found)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:length]) != np.asarray(other[:length]))
    return int(differ[0]) if len(differ) else length


_SHOWN = 800  # characters of a row as its model sees it
_LOOKED_AT = 200
_LAST = 3  # tokens of a reply among which is one that ends it


def as_seen(encoding: Encoding, tokenizer: Any, row: int = 0) -> str:
    """A row as its model sees it, special tokens and all; what is learned stands in ⟦ ⟧."""
    parts = list[str]()
    for piece, is_learned in _pieces(encoding, row):
        text = tokenizer.decode(piece.tolist(), skip_special_tokens=False)
        parts.append(f"⟦{text}⟧" if is_learned else text)
    whole = ("" if encoding.replies is None else "\n").join(parts)
    if len(whole) <= _SHOWN:
        return whole
    half = _SHOWN // 2
    return f"{whole[:half]} … {whole[-half:]}"


def cautions(encoding: Encoding, tokenizer: Any) -> list[str]:
    """What is likely wrong with how rows become tokens, seen from the first of them."""
    rows = range(min(_LOOKED_AT, len(encoding)))
    special = {*tokenizer.all_special_ids, *(getattr(tokenizer, "added_tokens_decoder", None) or ())}
    begin, found = tokenizer.bos_token_id, []
    twice = sum(encoding.tokens.row(row)[:2].tolist() == [begin, begin] for row in rows) if begin is not None else 0
    if twice:
        found.append(
            f"{twice:,} of the first {len(rows):,} train rows begin with {tokenizer.bos_token!r} twice: the template "
            "or the texts hold one already."
        )
    endless = 0
    for row in rows:
        learned = np.concatenate([ids[:0] if not one else ids for ids, one in _pieces(encoding, row)])
        endless += len(learned) > 0 and special.isdisjoint(learned[-_LAST:].tolist())
    if endless > encoding.cut and endless * 2 > len(rows):
        found.append(
            f"{endless:,} of the first {len(rows):,} train rows end with no token that ends a text or a turn, so the "
            "model does not learn to stop."
        )
    return found


def _pieces(encoding: Encoding, row: int) -> list[tuple[NDArray[np.integer], bool]]:
    """A row's ids in pieces, each with whether it is learned: what a decoder gives in reply is the last."""
    assert encoding.reads is not None
    ids, reads = encoding.tokens.row(row), encoding.reads.row(row)
    if encoding.replies is not None:
        return [(ids, False), (encoding.replies.row(row), len(reads) > 0)]
    is_learned = np.zeros(len(ids), dtype=bool)
    is_learned[reads + 1] = True
    edges = np.flatnonzero(np.diff(is_learned)) + 1
    return [
        (piece, bool(places.any()))
        for piece, places in zip(np.split(ids, edges), np.split(is_learned, edges), strict=True)
    ]


def ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that end what a model writes: its own, its tokenizer's, and what its template puts behind the
    assistant's turn."""
    known = getattr(model.generation_config, "eos_token_id", None)
    found = {*(known if isinstance(known, list) else [known]), tokenizer.eos_token_id}
    if tokenizer.chat_template is not None:
        mark = "featherweight"
        rendered = _rendered([Turn(USER, "a"), Turn(ASSISTANT, mark)], tokenizer)
        behind = tokenizer(rendered.rpartition(mark)[2], add_special_tokens=False)["input_ids"][:1]
        found |= {one for one in behind if one in tokenizer.added_tokens_decoder}
    return frozenset(found - {None})


def _write(asked: Iterable[Question], tokenizer: Any, cutting: Cutting, encoder: Encoder, folder: Path) -> None:
    """``tokens.bin`` (int32, end to end) with ``offsets.npy``, ``reads.npy`` (int64) with ``ends.npy``, both offsets
    int64, (sequences + 1,); and ``truncated.npy``: rows that were cut, and tokens that were cut off in all."""
    lengths, reads, counts = [0], list[int](), [0]
    cut = lost = 0
    with (folder / "tokens.bin").open("wb") as stream:
        for batch in batches(asked):
            for row in encoder(batch, tokenizer, cutting):
                stream.write(np.asarray(row.ids, dtype=np.int32).tobytes())
                for one in row.windows():
                    lengths.append(len(one.ids))
                    reads += one.reads or ()
                    counts.append(len(one.reads or ()))
                cut, lost = cut + (row.lost > 0), lost + row.lost
    np.save(folder / "offsets.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "reads.npy", np.asarray(reads, dtype=np.int64))
    np.save(folder / "ends.npy", np.cumsum(counts, dtype=np.int64))
    np.save(folder / "truncated.npy", np.asarray([cut, lost], dtype=np.int64))
