"""From cells to texts and what is written in reply to them, and from those to what an encoder reads and a decoder
gives, as transformers' scripts for summaries and translations have it.

A reply is tokenised as the tokenizer does it for what is written (``text_target``), which may be otherwise than what is
read: Marian's has two vocabularies, others mark the language.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.errors import DataError
from featherweight.records.cutting import LONGEST_REPLY, Cutting
from featherweight.records.dialogues import Dialogue, Replying
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Ragged
from featherweight.sources import cells
from featherweight.sources.panics import no_panics
from featherweight.sources.row_store import as_text
from featherweight.storage.cache import cached, key_of
from featherweight.tasks.reading import tokens
from featherweight.tasks.reading.dialogues import DialogueColumn, digest
from featherweight.tasks.reading.labels import row_ids
from featherweight.tasks.reading.questions import clean

if TYPE_CHECKING:
    from featherweight.recipe import DataSection
    from featherweight.records.rows import Split

_FORMAT = 1  # goes up where the same rows become other tokens
_GIVEN = ({"prompt"}, {"prompt", "completion"})


def read(split: Split, section: DataSection) -> DialogueColumn:
    """Read and check one split: a text and its reply each, of two columns or of one that holds both by their languages.

    Raises:
        DataError: naming the row, where a cell is no text, or has none in one of the languages.
    """
    (text,), label = section.texts, section.label
    rows: list[Dialogue | None] = []
    for place, (asked, answered) in enumerate(_cells(split, text, label)):
        try:
            source, target = _translated(asked, section) if text == label else (as_text(asked), as_text(answered))
            rows.append(_row(source or "", target))
        except ValueError as error:
            number = int(row_ids(split.rows)[place]) + 1
            raise DataError(f"{split.origin}: row {number}: {error}") from None
    return DialogueColumn(split, rows, None)


def _row(source: str, target: str | None) -> Dialogue | None:
    """With nothing to learn where there is nothing to reply to."""
    if target is None:
        return None
    return Dialogue(clean(source), clean(target) if source.strip() else "")


def of_given(given: Any) -> Dialogue:
    """What a predictor is asked: a text, or with the reply that is measured. Raises DataError."""
    if not isinstance(given, Mapping):
        return Dialogue(clean(given))
    if set(given) not in _GIVEN:
        raise DataError(
            'a text, or {"prompt": ..., "completion": ...}, was expected, not an object with '
            f"{', '.join(map(repr, given)) or 'no key'}"
        )
    return Dialogue(clean(given["prompt"]), clean(given["completion"]) if "completion" in given else None)


def _cells(split: Split, text: str, label: str) -> Iterator[tuple[Any, Any]]:
    for batch in split.rows.select_columns(list({text: 0, label: 0})).with_format("arrow").iter(batch_size=10_000):
        yield from zip(batch.column(text).to_pylist(), batch.column(label).to_pylist(), strict=True)


def _translated(cell: Any, section: Any) -> tuple[str | None, str | None]:
    """A text and its translation. Raises ValueError."""
    found = cells.parsed(cell, "{")
    if found is None:
        return None, None
    if not isinstance(found, Mapping):
        raise ValueError(f'a text in each language, such as {{"en": ..., "fr": ...}}, was expected in {section.text!r}')
    return _in_language(found, "source_lang", section), _in_language(found, "target_lang", section)


def _in_language(found: Mapping[str, Any], key: str, section: Any) -> str | None:
    language = getattr(section, key)
    names = [] if language is None else [language, language.partition("_")[0]]  # en_XX is en, as in the scripts
    name = next((one for one in names if one in found), None)
    if name is None:
        said = "set it" if language is None else f"there is no {language!r}"
        raise ValueError(f"data.{key}: {section.text!r} holds {', '.join(map(repr, found))}; {said}")
    return as_text(found[name])


def of_rows(examples: Examples, tokenizer: Any, cutting: Cutting, how: Replying) -> Encoding:
    """Tokens of each row and of its reply, each of which is a target."""
    key = key_of(
        _FORMAT, digest(examples), tokens.identity(tokenizer), tokenizer.eos_token or "", cutting.facts(),
        how.prefix, how.languages or (),
    )  # fmt: skip
    folder = cached("replied", key, lambda aside: _write(examples.questions(), tokenizer, cutting, how.prefix, aside))
    offsets, ends, learned = (np.load(folder / f"{name}.npy") for name in ("offsets", "ends", "learned"))
    ids: Any = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r", shape=(int(offsets[-1]),))
    replies: Any = np.memmap(folder / "replies.bin", dtype=np.int32, mode="r", shape=(int(ends[-1]),))
    reads = Ragged.of([range(count) for count in learned])
    cut, lost = np.load(folder / "truncated.npy")
    found = Encoding(
        Ragged(ids, offsets), reads, reads, replies=Ragged(replies, ends), cut=int(cut), lost=int(lost), key=key
    )
    return replace(found, targets=Ragged(found.scored(np.arange(len(learned))), reads.offsets))


def encode(asked: Sequence[Question], tokenizer: Any, cutting: Cutting, prefix: str) -> list[Tokens]:
    """Each text as the model's encoder reads it, and the reply as its decoder is to give it, where there is one. Both
    lose what is beyond their length and keep the special tokens.

    Raises:
        DataError: messages are among them.
    """
    dialogues = [one.dialogue or Dialogue(one.text) for one in asked]
    if any(one.is_chat for one in dialogues):
        raise DataError("a text was expected, not messages: the model answers each text by itself")
    sources = tokens.encode([Question(prefix + str(one.prompt)) for one in dialogues], tokenizer, cutting)
    given = [str(one.completion) for one in dialogues if one.completion is not None]
    replies = iter(_replies(given, tokenizer, cutting.max_target_length or LONGEST_REPLY))
    return [
        source if one.completion is None else _answered(source, *next(replies))
        for source, one in zip(sources, dialogues, strict=True)
    ]


def _answered(source: Tokens, reply: list[int], lost: int, is_empty: bool) -> Tokens:
    """With nothing to learn where nothing of the reply is left."""
    reads = [*range(0 if is_empty else len(reply))]
    return replace(source, reads=reads, reply=reply, lost=source.lost + lost)


def _replies(texts: Sequence[str], tokenizer: Any, most: int) -> list[tuple[list[int], int, bool]]:
    """Of each its ids, never none, how many were cut off, and whether only special ones are left."""
    if not texts:
        return []
    with no_panics():
        encoded = tokenizer(text_target=list(texts), return_special_tokens_mask=True, verbose=False)
    pairs = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [_reply(ids, special, tokenizer, most) for ids, special in pairs]


def _reply(ids: list[int], special: list[int], tokenizer: Any, most: int) -> tuple[list[int], int, bool]:
    end = tokenizer.eos_token_id
    if end is not None and end not in ids:
        ids, special = [*ids, end], [*special, 1]
    own = np.flatnonzero(np.asarray(special) == 0)
    excess = max(len(ids) - most, 0)
    gone = own[:excess] if tokenizer.truncation_side == "left" else own[len(own) - min(excess, len(own)) :]
    kept: list[int] = np.delete(np.asarray(ids, dtype=np.int64), gone).tolist()
    return kept or [tokenizer.pad_token_id], len(gone), len(gone) == len(own)


def cautions(encoding: Encoding, generation: Any) -> list[str]:
    """What of how a model writes will not suit what it learns.

    Args:
        generation: the model's own ``GenerationConfig``, from which what it is asked to write departs in nothing that
            is not said.
    """
    assert encoding.replies is not None
    least = max(generation.min_new_tokens or 0, (generation.min_length or 0) - 1)  # beside the token it begins by
    shorter = int((encoding.replies.lengths < least).sum())
    if not shorter:
        return []
    return [
        f"The model's generation_config.json lets it write no fewer than {least:,} tokens, and {shorter:,} of "
        f"{len(encoding):,} train rows have shorter replies: set its min_length to 0, or they can't be written."
    ]


def _write(asked: Iterable[Question], tokenizer: Any, cutting: Cutting, prefix: str, folder: Path) -> None:
    """``tokens.bin`` with ``offsets.npy`` and ``replies.bin`` with ``ends.npy`` (int32, end to end; offsets int64,
    (rows + 1,)); ``learned.npy``: how many tokens of each reply are; ``truncated.npy``: rows that were cut, and tokens
    that were cut off in all."""
    lengths, ends, learned = [0], [0], list[int]()
    cut = lost = 0
    with (folder / "tokens.bin").open("wb") as read, (folder / "replies.bin").open("wb") as given:
        for batch in tokens.batches(asked):
            for row in encode(batch, tokenizer, cutting, prefix):
                reply = row.reply or ()
                read.write(np.asarray(row.ids, dtype=np.int32).tobytes())
                given.write(np.asarray(reply, dtype=np.int32).tobytes())
                lengths.append(len(row.ids))
                ends.append(len(reply))
                learned.append(len(row.reads or ()))
                cut, lost = cut + (row.lost > 0), lost + row.lost
    np.save(folder / "offsets.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "ends.npy", np.cumsum(ends, dtype=np.int64))
    np.save(folder / "learned.npy", np.asarray(learned, dtype=np.int64))
    np.save(folder / "truncated.npy", np.asarray([cut, lost], dtype=np.int64))
