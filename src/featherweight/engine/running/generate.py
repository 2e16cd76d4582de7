"""Writing: token after token behind a prompt, by transformers' own ``generate`` and its cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from featherweight.process.quiet import quiet
from featherweight.records.batching import TOKEN_BUDGET, by_tokens

Heard = Callable[[int], None]


@dataclass(frozen=True)
class Sampling:
    """How is written, by ``GenerationConfig``'s names.

    Attributes:
        max_new_tokens: at most; fewer where the model has no position for as many.
        temperature: 0 always takes the likeliest token.
        top_p: draw among the likeliest tokens that have so much of the probability together.
        seed: of what is drawn.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        return cls(**{key: value for key, value in options.items() if key in cls.__dataclass_fields__})


@torch.no_grad()
def write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    pad_token_id: int,
    how: Sampling,
    heard: Heard | None = None,
) -> list[list[int]]:
    """What the model writes behind each prompt, up to and with the first of ``ends``. Greedily, in fp32, a prompt gets
    the same alone and in a batch, which is padded on the left.

    Args:
        model: in evaluation mode, on its device.
        prompts: ids, none empty.
        heard: is told each token as it comes, of a prompt alone.
    """
    found: list[list[int]] = [[] for _ in prompts]
    lengths = np.asarray([len(prompt) for prompt in prompts], dtype=np.int64)
    for rows in by_tokens(lengths + how.max_new_tokens, TOKEN_BUDGET):
        for row, ids in zip(
            rows, _together(model, [prompts[row] for row in rows], ends, pad_token_id, how, heard), strict=True
        ):
            found[row] = ids
    return found


def _together(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    pad_token_id: int,
    how: Sampling,
    heard: Heard | None,
) -> list[list[int]]:
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_token_id)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
    real = torch.arange(longest) >= torch.tensor([[longest - len(prompt)] for prompt in prompts])
    streamer = None if heard is None else _Streamer(heard)
    with quiet("transformers"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        written = model.generate(
            input_ids=ids.to(device),
            attention_mask=real.long().to(device),
            generation_config=_config(model, ends, pad_token_id, how, longest),
            streamer=streamer,
        )
    return [_until_end(row.tolist(), ends) for row in written[:, longest:].cpu()]


def _config(model: Any, ends: Collection[int], pad_token_id: int, how: Sampling, longest: int) -> Any:
    from transformers import GenerationConfig

    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = how.max_new_tokens if positions is None else min(how.max_new_tokens, positions - longest)
    drawn = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=max(room, 1),
        eos_token_id=sorted(ends) or None,
        pad_token_id=pad_token_id,
        **(drawn if how.temperature > 0 else {"do_sample": False}),
    )


def _until_end(ids: list[int], ends: Collection[int]) -> list[int]:
    stop = next((place for place, one in enumerate(ids) if one in ends), None)
    return ids if stop is None else ids[: stop + 1]


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
