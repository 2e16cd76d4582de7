"""Texts of random tokens, framed as a model's own tokenizer frames every text: what a model is tried with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featherweight.errors import ModelError, first_line
from featherweight.records.rows import Encoding, Ragged

_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_CHARACTERS = 256  # models without a vocabulary read characters


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around a text. Models rely on it: encoder-decoders read their answer at the end of text.

    Attributes:
        before: ids of the special tokens in front of every text.
        after: of those behind it.
        reserved: ids of all special tokens, which stand nowhere else.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    reserved: frozenset[int] = frozenset()

    @classmethod
    def of(cls, tokenizer: Any) -> Frame:
        """Seen from what the tokenizer makes of a text."""
        encoded = tokenizer("a", return_special_tokens_mask=True)
        ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
        first = special.index(0) if 0 in special else len(ids)
        last = len(ids) - special[::-1].index(0) if 0 in special else len(ids)
        return cls(tuple(ids[:first]), tuple(ids[last:]), frozenset({*tokenizer.all_special_ids, *ids[:first]}))

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def texts(self, model: Any, lengths: Sequence[int], seed: int = 0) -> Encoding:
        """One text for each length in tokens, the frame's included, which is what a shorter text has."""
        vocabulary = getattr(model.config.get_text_config(), "vocab_size", None) or _CHARACTERS
        words = np.setdiff1d(np.arange(vocabulary), list(self.reserved))
        draw = np.random.default_rng(seed)
        rows = [
            [*self.before, *draw.choice(words, max(length - len(self), 0)).tolist(), *self.after] for length in lengths
        ]
        return Encoding.unlabelled(Ragged.of(rows, np.int32))


NO_FRAME = Frame()


def with_reads(texts: Encoding) -> Encoding:
    """The same texts, read at every second token."""
    return replace(texts, reads=Ragged.of([range(0, length, 2) for length in texts.lengths]))


def with_kinds(texts: Encoding) -> Encoding:
    """The same tokens as rows of two texts, each half a row."""
    return replace(texts, kinds=Ragged.of([[2 * at >= length for at in range(length)] for length in texts.lengths]))


def replies(model: Any) -> bool:
    """Whether the model has a decoder that writes an answer to what its encoder read."""
    return bool(model.config.is_encoder_decoder and model.can_generate())


def with_replies(texts: Encoding, model: Any, seed: int = 1) -> Encoding:
    """The same texts, each with a reply of random tokens, which is read whole."""
    config = model.config.get_text_config()
    vocabulary = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    draw = np.random.default_rng(seed)
    lengths = [1 + 3 * row % 5 for row in range(len(texts))]
    rows = [draw.integers(0, vocabulary, length).tolist() for length in lengths]
    return replace(texts, replies=Ragged.of(rows, np.int32), reads=Ragged.of(list(map(range, lengths))))


def width_step(model: Any, frame: Frame, pad_token_id: int) -> int:
    """The number of tokens that every row has to be a multiple of: 1, but for models that read blocks of tokens.

    Raises:
        ModelError: the model can't read a text at all.
    """
    problem: Exception | None = None
    for step in _STEPS:
        texts = [row_of(model, frame, length, pad_token_id, step) for length in (1, 2, 3)]
        failures = [problem_with(model, *text, training=training) for text in texts for training in (False, True)]
        if not any(failures):
            return step
        problem = problem or next(filter(None, failures))
    assert problem is not None
    raise ModelError(f"{model.config.model_type}: the model can't read a text: {first_line(problem)}") from problem


def row_of(model: Any, frame: Frame, length: int, pad_token_id: int, step: int) -> tuple[Any, Any]:
    """Ids and mask of one text of ``length`` tokens in a row of a multiple of ``step``; (1, tokens), int64."""
    import torch

    text = frame.texts(model, [length]).tokens.row(0)
    row = torch.full((1, -(-len(text) // step) * step), pad_token_id)
    row[0, : len(text)] = torch.from_numpy(text)
    return row, (torch.arange(row.shape[1]) < len(text)).long().unsqueeze(0)


def problem_with(
    model: Any, input_ids: Any, attention_mask: Any, *, training: bool = False, reply: int = 1
) -> Exception | None:
    """What keeps the model from reading a row, as when it answers or as when it is trained.

    Args:
        reply: tokens that its decoder reads beside, where it has one.
    """
    import torch

    device, before = next(model.parameters()).device, model.training
    given = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
    if replies(model):
        given["decoder_input_ids"] = given["input_ids"].new_zeros(len(input_ids), reply)
    try:
        with torch.no_grad(), torch.random.fork_rng():  # what dropout draws now is drawn again
            model.train(training)
            model(**given)
    except Exception as error:  # noqa: BLE001 - each architecture has an error of its own for what it can't read
        return error
    finally:
        model.train(before)
    return None
