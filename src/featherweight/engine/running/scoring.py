"""How likely the next token is, of a vocabulary's logits that are never held for more than a few tokens.

With 49,152 tokens in a vocabulary the logits of 1,000 tokens are 200 MB, their gradient as much again. So the layer
that gives them hands on what it reads, and a few tokens' logits at a time become two numbers each. The model's own code
gets zeros in their place, in which what it adds to every token's logits is seen. Where nothing of the layer trains, the
gradient of those numbers is at hand while the logits are (as in Hsu et al., "Liger Kernel", 2024), so they are computed
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint

from featherweight.engine.fast.linear import product, weight_of
from featherweight.methods.peft import adapters
from featherweight.methods.peft.targets import is_linear
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding

Forward = Callable[[Any, Encoding, NDArray[np.int64]], Outputs]

_MOST_BYTES = 32 << 20  # of logits at a time
_TOLERANCE = 1e-4


@dataclass
class _Handed:
    """What one pass hands on.

    Attributes:
        states: what the last layer read; (rows, reads, hidden size).
        added: what the model's code adds to its logits; (1, 1, vocabulary).
    """

    states: torch.Tensor | None = None
    added: torch.Tensor | None = None


_handed: ContextVar[_Handed | None] = ContextVar("handed", default=None)


def handed_on(logits: torch.Tensor) -> torch.Tensor:
    """What the model's last layer read, where it hands that on instead of the logits that the model gives."""
    handed = _handed.get()
    if handed is None or handed.states is None:
        return logits
    handed.added = logits
    return handed.states.to(logits.dtype)


class Scoring:
    """Of what a model gives for the tokens that are read, the log-probability of the token behind each, in nats, and
    whether it is the likeliest; fp32, shape (reads, 2).

    Args:
        model: one whose head gives the logits of a vocabulary.
    """

    def __init__(self, model: Any) -> None:
        self.fused = True
        self.install(model)

    def install(self, model: Any) -> None:
        """Let the model's last layer hand on what it reads where that is asked for."""
        layer = output_layer(model)
        if layer is None:
            self.fused = False
        elif not isinstance(layer.forward, _HandingOn):
            layer.forward = _HandingOn(layer.forward, _width(layer))

    def prove(self, model: Any, forward: Forward, texts: Encoding) -> None:
        """From now on compute the logits as the model's own code does, all at once, where it makes more of them than
        its last layer gives: caps them, scales them, ..."""
        if not self.fused:
            return
        rows = np.arange(len(texts))
        wanted = torch.from_numpy(texts.scored(rows)).to(next(model.parameters()).device)
        expected = of_logits(forward(model, texts, rows).values, wanted)[:, 0]
        try:
            found = self(forward, model, texts, rows).values[:, 0]
        except Exception:  # noqa: BLE001 - whatever the model's own code then meets
            self.fused = False
            return
        scale = max(1.0, float(expected.abs().max()))
        self.fused = bool((found - expected).abs().max() <= _TOLERANCE * scale)

    def __call__(self, forward: Forward, model: Any, encoding: Encoding, rows: NDArray[np.int64]) -> Outputs:
        wanted = torch.from_numpy(encoding.scored(rows))
        if not self.fused:
            outputs = forward(model, encoding, rows)
            return replace(outputs, values=of_logits(outputs.values, wanted.to(outputs.values.device)))
        with _handing_on() as handed:
            outputs = forward(model, encoding, rows)
        wanted = wanted.to(outputs.values.device)
        return replace(outputs, values=_scores(outputs.values, output_layer(model), handed.added, wanted))


class _HandingOn:
    """A layer's forward that hands on what it reads, where that is asked for, and gives a single token's zeros."""

    def __init__(self, own: Callable[[torch.Tensor], torch.Tensor], width: int) -> None:
        self._own, self._width = own, width

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        handed = _handed.get()
        if handed is None:
            return self._own(states)
        handed.states = states
        return states.new_zeros(1, 1, self._width)


def output_layer(model: Any) -> Any:
    """What gives the logits of a vocabulary; None where nobody knows."""
    return adapters.base_of(model).get_output_embeddings()


def of_logits(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The same from logits, shape (reads, vocabulary), with a gradient."""
    logits = logits.float()
    of_wanted = logits.gather(1, wanted[:, None])[:, 0]
    likeliest = of_wanted.detach() >= logits.detach().amax(dim=1)
    return torch.stack([of_wanted - logits.logsumexp(dim=1), likeliest.float()], dim=1)


@contextmanager
def _handing_on() -> Iterator[_Handed]:
    handed = _Handed()
    token = _handed.set(handed)
    try:
        yield handed
    finally:
        _handed.reset(token)


def _width(layer: Any) -> int:
    """Of the vocabulary."""
    return int(getattr(layer, "out_features", None) or layer.weight.shape[0])


def _scores(states: torch.Tensor, layer: Any, added: torch.Tensor | None, wanted: torch.Tensor) -> torch.Tensor:
    """From what the layer reads; (reads, hidden size).

    Args:
        added: to every token's logits, behind the layer.
    """
    if len(states) == 0:
        return states.new_zeros(0, 2, dtype=torch.float32) + 0 * states.sum()
    more = None if added is None or not added.any() else added.detach().flatten()
    most = max(_MOST_BYTES // (4 * _width(layer)), 1)
    frozen = not any(parameter.requires_grad for parameter in layer.parameters())
    # Under autocast states come in 16 bits, and the layer's own forward sees to it.
    if torch.is_grad_enabled() and frozen and is_linear(layer) and states.dtype == layer.weight.dtype:
        bias = more if layer.bias is None else layer.bias if more is None else layer.bias + more
        return _Scores.apply(states, weight_of(layer), bias, wanted, most)  # type: ignore[no-any-return, no-untyped-call]

    def one(part: torch.Tensor, its: torch.Tensor) -> torch.Tensor:
        logits = layer(part)
        return of_logits(logits if more is None else logits + more, its)

    parts = zip(torch.split(states, most), torch.split(wanted, most), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([one(*part) for part in parts])
    return torch.cat([checkpoint(one, *part, use_reentrant=False) for part in parts])


class _Scores(torch.autograd.Function):
    """Of a layer that is frozen, W (hidden size, vocabulary): d log p(t) / d states = (onehot(t) - p) Wᵀ."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        wanted: torch.Tensor,
        most: int,
    ) -> torch.Tensor:
        found = states.new_empty(len(states), 2)
        slopes = torch.empty_like(states)
        for start in range(0, len(states), most):
            these = slice(start, start + most)
            logits = product(states[these], weight, bias)
            places, ids = torch.arange(len(logits), device=logits.device), wanted[these]
            of_wanted, highest = logits[places, ids], logits.amax(dim=1)
            logits.sub_(highest[:, None]).exp_()
            sums = logits.sum(dim=1)
            found[these, 0] = of_wanted - highest - sums.log()
            found[these, 1] = (of_wanted >= highest).float()
            logits.mul_(-1 / sums[:, None])
            logits[places, ids] += 1
            slopes[these] = product(logits, weight.t(), None)
        ctx.save_for_backward(slopes)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return gradient[:, :1] * slopes, None, None, None, None
