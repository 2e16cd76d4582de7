"""Writing: token after token behind a prompt, by transformers' own ``generate`` and its cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from featherweight.engine.running.batches import filled_up
from featherweight.process.quiet import quiet
from featherweight.records.batching import by_tokens, of_equal
from featherweight.records.questions import MAX_NEW_TOKENS
from featherweight.records.rows import Ragged

Heard = Callable[[int], None]
TOKENS_TOGETHER = 8192  # prompts and continuations of a batch: only their keys and values are held


@dataclass(frozen=True)
class Sampling:
    """How text is written, by ``GenerationConfig``'s names.

    Attributes:
        max_new_tokens: at most; half as many as the model has positions where that is less, and of a decoder with an
            encoder of its own as many.
        num_beams: texts that are weighed side by side; the model's own number if None.
        temperature: 0 always takes the likeliest token.
        top_p: draw among the likeliest tokens that have so much of the probability together.
        seed: of what is drawn.
        stop: texts that end what is written, which they are no part of.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    num_beams: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        return cls(**{key: value for key, value in options.items() if key in cls.__dataclass_fields__})


@torch.no_grad()
def write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    tokenizer: Any,
    how: Sampling,
    heard: Heard | None = None,
    equal_lengths: bool = False,
) -> list[list[int]]:
    """What the model writes behind each prompt, or its decoder in reply to it, up to and with the first of ``ends``.
    Greedily, in fp32, a prompt gets the same alone and in a batch, which is padded on the side away from what is
    written.

    Args:
        model: in evaluation mode, on its device. What ``how`` does not say is as its own ``generation_config`` has it.
        prompts: ids, none empty.
        tokenizer: has a token to pad with, and spells what is to stop at.
        heard: is told each token as it comes, of a prompt alone; nothing where several texts are weighed.
        equal_lengths: padding would change what is written.
    """
    most, new = room(model, how.max_new_tokens)
    how, kept = replace(how, max_new_tokens=new), [prompt if most is None else prompt[-most:] for prompt in prompts]
    found: list[list[int]] = [[] for _ in prompts]
    lengths = np.asarray([len(prompt) for prompt in kept], dtype=np.int64)
    for batch in by_tokens(lengths + new, max(TOKENS_TOGETHER // (how.num_beams or 1), 1)):
        for rows in [batch[places] for places in of_equal(lengths[batch])] if equal_lengths else [batch]:
            written = _together(model, [kept[row] for row in rows], ends, tokenizer, how, heard)
            for row, ids in zip(rows, written, strict=True):
                found[row] = ids
    return found


def spelt(
    found: Sequence[Sequence[int]], ends: Collection[int], tokenizer: Any, how: Sampling
) -> tuple[list[str], list[bool]]:
    """What was written, as texts up to where they are to stop, and whether the model ended each itself."""
    whole = [tokenizer.decode(list(ids), skip_special_tokens=True) for ids in found]
    texts = [until(text, how.stop) for text in whole]
    ended = [bool(ids) and ids[-1] in ends for ids in found]
    return texts, [one or text != before for one, text, before in zip(ended, texts, whole, strict=True)]


def room(model: Any, new: int) -> tuple[int | None, int]:
    """How many tokens of a prompt the model has positions for beside as many ``new`` ones, and how many of those it
    writes: never fewer for one prompt than for another beside it. None where what is written takes no room from it."""
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return None, new
    if model.config.is_encoder_decoder:
        return None, min(new, max(positions - 1, 1))  # behind the token that the decoder begins by
    new = min(new, max(positions // 2, 1))
    return positions - new, new


def _together(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    tokenizer: Any,
    how: Sampling,
    heard: Heard | None,
) -> list[list[int]]:
    device = next(model.parameters()).device
    replies = model.config.is_encoder_decoder
    asked, left = Ragged.of(prompts), not replies
    ids = filled_up(asked, tokenizer.pad_token_id, left=left)
    real = filled_up(replace(asked, values=np.ones_like(asked.values)), 0, left=left)
    begin = 1 if replies else ids.shape[1]  # a decoder's own first token, or the prompt
    config = _config(ends, tokenizer.pad_token_id, how, model.generation_config)
    with quiet("transformers"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        written = model.generate(
            input_ids=ids.to(device),
            attention_mask=real.to(device),
            generation_config=config,
            streamer=None if heard is None or config.num_beams > 1 else _Streamer(heard),
            stopping_criteria=[_Stops(tokenizer, how.stop, begin)] if how.stop else None,
        )
    return [_until_end(row.tolist(), ends) for row in written[:, begin:].cpu()]


def _config(ends: Collection[int], pad_token_id: int, how: Sampling, own: Any) -> Any:
    from transformers import GenerationConfig

    drawn = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=how.max_new_tokens,
        num_beams=how.num_beams or own.num_beams or 1,
        eos_token_id=sorted(ends) or None,
        pad_token_id=pad_token_id,
        **(drawn if how.temperature > 0 else {"do_sample": False}),
    )


def _until_end(ids: list[int], ends: Collection[int]) -> list[int]:
    stop = next((place for place, one in enumerate(ids) if one in ends), None)
    return ids if stop is None else ids[: stop + 1]


_BROKEN = "\ufffd"  # what a token decodes to that holds a part of a character


class Spoken:
    """What was written so far, told in whole characters and without what it is to stop at.

    Args:
        heard: is told each further part of the text.
    """

    def __init__(self, tokenizer: Any, how: Sampling, heard: Callable[[str], None]) -> None:
        self._tokenizer, self._stop, self._heard = tokenizer, how.stop, heard
        self._held = max((len(one) - 1 for one in how.stop), default=0)
        self._ids: list[int] = []
        self._told = 0

    def add(self, one: int) -> None:
        """A further token."""
        self._ids.append(one)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith(_BROKEN):
            self._tell(until(text, self._stop), self._held)

    def end(self, text: str) -> None:
        """All of it is there."""
        self._tell(text, 0)

    def _tell(self, text: str, held: int) -> None:
        """Up to what may be the beginning of where it stops."""
        end = max(len(text) - held, self._told)
        if end > self._told:
            self._heard(text[self._told : end])
            self._told = end


class _Stops:
    """Whether a row has written one of some texts; transformers' own criterion does not know every tokenizer."""

    def __init__(self, tokenizer: Any, stop: Collection[str], begin: int) -> None:
        self._tokenizer, self._stop, self._begin = tokenizer, stop, begin

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = self._tokenizer.batch_decode(ids[:, self._begin :], skip_special_tokens=True)
        found = [any(one in text for one in self._stop) for text in texts]
        return torch.tensor(found, device=ids.device)


def until(text: str, stop: Collection[str]) -> str:
    """The text before the first of these."""
    return text[: min((text.index(one) for one in stop if one in text), default=len(text))]


class _Streamer:
    """What transformers puts tokens into as they come, the prompt first."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._is_prompt = True

    def put(self, ids: torch.Tensor) -> None:
        if not self._is_prompt:
            for one in ids.flatten().tolist():
                self._heard(one)
        self._is_prompt = False

    def end(self) -> None:
        pass

    def __deepcopy__(self, memo: Any) -> Self:
        """Itself: PEFT copies what it is given, and whoever hears is one."""
        return self
