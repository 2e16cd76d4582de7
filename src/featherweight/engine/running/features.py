"""What a model's head reads: the frozen features that a linear probe works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine import Watch
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.finite import require_none_broken
from featherweight.engine.running.passes import Pass
from featherweight.records.batching import by_tokens
from featherweight.records.rows import UNSEEN, Column, Encoding, numbers_of
from featherweight.tasks.heads import within

_FEATURES = "features"


def features(
    model: Any,
    head: Sequence[str],
    encoding: Encoding,
    rows: NDArray[np.int64],
    *,
    execution: Execution,
    watch: Watch,
) -> Column:
    """One pass over the rows, as the model runs them, that ends where the head begins.

    Args:
        head: names of the modules that are not part of the pretrained trunk, in the order in which they run.
        rows: of ``encoding``; int64, shape (rows,).

    Returns:
        float32, shape (rows, hidden size), in the order of ``rows``, each up to a positive factor; where the encoding
        says what is read, ragged, with NaN for what had nothing to read.

    Raises:
        Interrupted: a stop was asked for between two batches.
        DivergedError: features are not finite.
    """
    found = Pass(execution.fleet, watch, len(rows), f"stopped while {watch.what}")
    ragged = encoding.reads is not None
    with found, _without_head(model, head), execution.answering(model):
        for chosen in found.of(by_tokens(encoding.lengths[rows])):
            for together in execution.groups(encoding, rows[chosen]):
                places = chosen[together]
                outputs = execution.outputs(model, encoding, rows[places])
                if outputs.values.dim() == 3:
                    # A head that picks its token itself was handed them all, and encoders' heads read the first.
                    outputs = replace(outputs, values=outputs.values[:, 0])
                found.add(places, {_FEATURES: outputs.column(ragged)})
    features = found.answers().columns[_FEATURES]
    require_none_broken(_not_finite(features, encoding, rows), len(rows), watch.what)
    return features


def _not_finite(features: Column, encoding: Encoding, rows: NDArray[np.int64]) -> int:
    """How many features are not finite, of those that were read."""
    finite = np.isfinite(numbers_of(features)).all(axis=1)
    seen = True if encoding.reads is None else encoding.reads[rows].values != UNSEEN
    return int((~finite & seen).sum())


def head_input_size(
    model: Any, head: Sequence[str], encoding: Encoding, rows: NDArray[np.int64], *, execution: Execution
) -> float | None:
    """How much the linear layers of a head read: the mean L1 norm of their input on some rows, of the layer where it is
    largest; None for a head without linear layers.

    An optimizer that moves each weight by its rate, as Adam's first steps do, moves such a layer's output by at most
    that rate times this.
    """
    sizes: dict[str, list[float]] = {}
    handles = []
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and within(name, head):

            def measure(_: Any, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                sizes.setdefault(name, []).extend(inputs[0].float().abs().sum(dim=-1).flatten().tolist())

            handles.append(layer.register_forward_pre_hook(measure))
    try:
        with execution.answering(model):
            for together in execution.groups(encoding, rows):
                execution.outputs(model, encoding, rows[together])
    finally:
        for handle in handles:
            handle.remove()
    return max(map(fmean, sizes.values()), default=None)


class _BothSigns(torch.nn.Module):
    """``x`` and ``-x`` side by side: what a ReLU between two parts of a head takes from one stays in the other."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([states, -states], dim=-1)


class _Difference(torch.nn.Module):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        one, other = states.chunk(2, dim=-1)
        return one - other


@contextmanager
def _without_head(model: Any, head: Sequence[str]) -> Iterator[None]:
    """The model with a head that hands on what it reads, so that its logits are its features."""
    # A module within another of the list goes with it.
    names = [name for name in head if not any(name.startswith(f"{other}.") for other in head)]
    within = sorted(names, key=lambda name: not name.startswith(f"{model.base_model_prefix}."))  # the trunk runs first
    instead: list[torch.nn.Module] = [torch.nn.Identity() for _ in within]
    if len(within) > 1:
        instead[0], instead[-1] = _BothSigns(), _Difference()
    kept = {name: model.get_submodule(name) for name in within}
    try:
        for name, module in zip(within, instead, strict=True):
            model.set_submodule(name, module)
        yield
    finally:
        for name, module in kept.items():
            model.set_submodule(name, module)
