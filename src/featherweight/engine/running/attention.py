"""Attention over a packed row: texts end to end, each attending to itself alone, without mask, padding or gather.

The texts of a packed row lie in order of length, so that texts of equal length form a *run*: a plain view of shape
(texts, heads, length, head size). Registered with transformers as the attention implementation ``NAME``, so no model
file is touched; outside of :func:`packed` it is transformers' own ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from featherweight.engine.fast import kernels
from featherweight.engine.fast.dropout import Mask, Masks

NAME = "featherweight"

# Options of attention that change its result in ways that the runs below know. Any other that is set is refused.
_HARMLESS = {
    "position_ids", "output_attentions", "output_hidden_states", "use_cache", "return_dict", "is_causal",
    "cache_position", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "deterministic",
    "token_type_ids",  # of models that hand on whatever they are given; each is tried with them
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """``texts`` texts of ``length`` tokens each."""

    texts: int
    length: int

    @property
    def tokens(self) -> int:
        return self.texts * self.length


class UnsupportedAttention(Exception):
    """The model asks for attention that runs don't do; it takes the padded path."""


@dataclass(frozen=True)
class _Active:
    runs: Sequence[Run]
    masks: Masks
    read: torch.Tensor | None
    last: frozenset[Any]

    def queries_of(self, layer: Any) -> torch.Tensor | None:
        """The one token of each text that is to attend, what fills the row included; None where all are."""
        if self.read is None or layer not in self.last:
            return None
        return torch.cat([self.read, self.starts[len(self.read) : -1]])

    @cached_property
    def lengths(self) -> torch.Tensor:
        """Tokens of each text; int64, shape (texts,), as the next."""
        return torch.tensor([run.length for run in self.runs for _ in range(run.texts)])

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where each text's tokens start, and where the last one's end."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))

    @cached_property
    def squares(self) -> torch.Tensor:
        """How many pairs of tokens the texts before each one have."""
        pairs = self.lengths.square()
        return pairs.cumsum(0) - pairs


# Attention layers give an implementation no other way to know the batch; each thread has its own.
_active: ContextVar[_Active | None] = ContextVar("packed", default=None)


@contextmanager
def packed(
    runs: Sequence[Run], masks: Masks, read: torch.Tensor | None = None, last: frozenset[Any] = frozenset()
) -> Iterator[None]:
    """Within this context every attention layer set to ``NAME`` sees a packed row of these runs.

    Args:
        read: the token of each text that the head reads; int64, shape (texts,). The row may end with texts that
            nobody reads.
        last: layers behind which nothing but those tokens is used, so that only they need attend.
    """
    token = _active.set(_Active(runs, masks, read, last))
    try:
        yield
    finally:
        _active.reset(token)


def known() -> list[tuple[ContextVar[Any], Any]]:
    """What :func:`packed` says, for whoever runs a layer again behind its end."""
    return [(_active, _active.get())]


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface.

    Args:
        query: (1, heads, tokens, head size).
        key: (1, key-value heads, tokens, head size).
        value: (1, key-value heads, tokens, value size), which is the head size or less.

    Returns:
        (1, tokens, heads, value size), and None for the weights.
    """
    active = _active.get()
    if active is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    size = value.shape[-1]
    _require_usual(query.shape[-1], size, options)
    if size < query.shape[-1]:  # latent attention: what is added is 0, and is taken off again
        value = torch.nn.functional.pad(value, (0, query.shape[-1] - size))
    causal = options.get("is_causal")
    settings = _Settings(
        row=active,
        causal=getattr(module, "is_causal", True) if causal is None else causal,
        window=sliding_window or 0,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        mask=active.masks.draw(dropout) if dropout > 0 and active.masks.fast else None,
    )
    states, compiled = (query, key, value), kernels.usable(query, key, value)
    if compiled is None:
        result = _by_runs(*states, settings)
    else:
        result = _CompiledAttention.apply(*states, settings, active.queries_of(module), compiled)  # type: ignore[no-untyped-call]
    return result[..., :size].unsqueeze(0), None


def _require_usual(size: int, value_size: int, options: Mapping[str, Any]) -> None:
    """Raises UnsupportedAttention for what the runs below would get wrong."""
    if unknown := [name for name, given in options.items() if given is not None and name not in _HARMLESS]:
        raise UnsupportedAttention(f"its attention is more than the usual one ({unknown[0]})")
    if value_size > size:
        raise UnsupportedAttention("its attention has values that are wider than its keys")


@dataclass(frozen=True)
class _Settings:
    """How the texts of a packed row attend; ``window`` is 0 where there is none."""

    row: _Active
    causal: bool
    window: int
    scaling: float
    dropout: float
    mask: Mask | None


def _by_runs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: _Settings) -> torch.Tensor:
    """All texts of a packed row by PyTorch's own operations, a run at a time; (tokens, heads, size)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    runs, causal, scaling = settings.row.runs, settings.causal, settings.scaling
    parts = zip(*(torch.split(one[0], [run.tokens for run in runs], dim=1) for one in (query, key, value)), strict=True)
    weights = 0
    outputs = []
    for run, part in zip(runs, parts, strict=True):
        # (heads, texts * length, size) seen as (texts, heads, length, size): views, nothing is copied.
        q, k, v = (states.unflatten(1, (run.texts, run.length)).transpose(0, 1) for states in part)
        seen = _window(run.length, settings.window, causal, query)
        if settings.mask is not None:
            shape = torch.Size((run.texts, query.shape[1], run.length, run.length))
            factors = settings.mask.factors(shape, query, start=weights)
            weights += shape.numel()
            result = _DroppingAttention.apply(q, k, v, seen, causal, scaling, factors)  # type: ignore[no-untyped-call]
        else:
            is_causal = causal and seen is None and run.length > 1
            result = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, seen, settings.dropout, is_causal=is_causal, scale=scaling
            )
        outputs.append(result.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def _window(length: int, window: int, causal: bool, like: torch.Tensor) -> torch.Tensor | None:
    """Additive mask of a sliding window, (length, length), where it cuts anything off."""
    if window == 0 or length <= window:
        return None
    positions = torch.arange(length, device=like.device)
    behind = positions[:, None] - positions[None, :]
    # The flash-attention convention, which the interface follows: a window of 1 is the token itself.
    seen = (behind >= 0) & (behind < window) if causal else behind.abs() < window
    return torch.zeros((), dtype=like.dtype, device=like.device).where(seen, float("-inf"))


class _DroppingAttention(torch.autograd.Function):
    """softmax(q k' * scale) with dropout, times v, with the few passes over memory that a processor needs.

    PyTorch's own attention falls back to a chain of separate operations where there is dropout, and draws its random
    numbers one by one.
    """

    @staticmethod
    # Under autocast, too; decorators of torch's have no types.
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        scaling: float,
        keep: torch.Tensor,
    ) -> torch.Tensor:
        scores = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)
        if mask is not None:
            scores.add_(mask)
        elif causal and scores.shape[-1] > 1:
            length = scores.shape[-1]
            scores.masked_fill_(torch.ones(length, length, dtype=torch.bool).triu_(1), float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(query, key, value, weights, keep)
        ctx.scaling = scaling
        return torch.matmul(weights * keep, value)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, weights, keep = ctx.saved_tensors
        d_value = torch.matmul((weights * keep).transpose(2, 3), gradient)
        d_weights = torch.matmul(gradient, value.transpose(2, 3)).mul_(keep)
        d_weights.sub_((d_weights * weights).sum(-1, keepdim=True)).mul_(weights).mul_(ctx.scaling)
        return torch.matmul(d_weights, key), torch.matmul(d_weights.transpose(2, 3), query), d_value, *(None,) * 4


class _CompiledAttention(torch.autograd.Function):
    """All texts of a packed row in one call; (tokens, heads, size)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        settings: _Settings,
        queries: torch.Tensor | None,
        compiled: kernels.Kernels,
    ) -> torch.Tensor:
        states = [part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value)]
        row, heads = settings.row, query.shape[1]
        starts, firsts = row.starts, row.squares * heads
        shape = kernels.Shape(
            texts=len(row.lengths), heads=heads, groups=heads // key.shape[1], size=query.shape[3],
            longest=max(run.length for run in row.runs), q_token=states[0].stride(2), q_head=states[0].stride(1),
            k_token=states[1].stride(2), k_head=states[1].stride(1), v_token=states[2].stride(2),
            v_head=states[2].stride(1), causal=settings.causal, window=settings.window,
            threads=torch.get_num_threads(), scale=settings.scaling,
            dropout=settings.mask.compiled if settings.mask else kernels.Dropout(),
        )  # fmt: skip
        out, sums = compiled.attention_forward(kernels.PackedRow(shape, starts, firsts, queries, states))
        ctx.save_for_backward(*states, starts, firsts, out, sums)
        ctx.shape, ctx.queries, ctx.compiled = shape, queries, compiled
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        *states, starts, firsts, out, sums = ctx.saved_tensors
        row = kernels.PackedRow(ctx.shape, starts, firsts, ctx.queries, states)
        gradients = ctx.compiled.attention_backward(row, out, sums, gradient.contiguous())
        return *(part.transpose(0, 1).unsqueeze(0) for part in gradients), *(None,) * 3


def _mask(*arguments: Any, **options: Any) -> Any:
    """What transformers asks for a mask: none within a packed row, ``sdpa``'s otherwise."""
    return None if _active.get() is not None else sdpa_mask(*arguments, **options)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, _mask)
