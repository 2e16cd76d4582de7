"""Blocks that are computed once more on the way back, so that a step keeps what enters each block and little else (Chen
et al., "Training deep nets with sublinear memory cost", 2016, arXiv 1604.06174), by transformers' own means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from featherweight.engine.fast.dropout import Masks
from featherweight.errors import ConfigError
from featherweight.methods.peft import adapters
from featherweight.process.quiet import quiet

Known = list[tuple[ContextVar[Any], Any]]


def recompute_blocks(model: Any, masks: Masks, known: Callable[[], Known]) -> None:
    """Let a model's blocks be computed again in the backward pass, with the dropout masks of the first time.

    Args:
        model: transformers', or PEFT's of one.
        masks: where dropout masks come from.
        known: what a forward knows that its modules are not told: the row that it runs, ...

    Raises:
        ConfigError: this architecture can't.
    """
    base = adapters.base_of(model)
    if not base.supports_gradient_checkpointing:
        raise ConfigError(
            f"training.gradient_checkpointing: {base.config.model_type}'s code can't compute its blocks again; leave "
            "it out, and lower per_device_train_batch_size"
        )

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Asked for as a block begins, for the first time and for the second."""
        return nullcontext(), _as_before(masks, masks.place, known())

    enable = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
    with quiet("transformers"):
        enable({"use_reentrant": False, "context_fn": contexts})


@contextmanager
def _as_before(masks: Masks, place: int, known: Known) -> Iterator[None]:
    now, masks.place = masks.place, place
    tokens = [(variable, variable.set(value)) for variable, value in known]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)
        masks.place = now
