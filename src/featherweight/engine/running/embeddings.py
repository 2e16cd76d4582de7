"""What a model's trunk makes of a text: one vector, by mean pooling, whatever head stands on it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.engine import Watch
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.finite import require_none_broken
from featherweight.errors import Interrupted, ModelError
from featherweight.records.batching import by_tokens
from featherweight.records.rows import Encoding, Ragged


def embeddings(model: Any, encoding: Encoding, *, execution: Execution, watch: Watch) -> NDArray[np.float32]:
    """The mean of the last hidden states over all tokens of a row, special ones among them (mean pooling, as in Reimers
    and Gurevych, "Sentence-BERT", 2019), by one pass that ends where the head begins.

    Returns:
        float32, shape (rows, hidden size).

    Raises:
        Interrupted: a stop was asked for between two batches.
        ModelError: the model has no trunk apart from its head.
        DivergedError: embeddings are not finite.
    """
    trunk, read = _Trunk(model), replace(encoding, reads=_every_token(encoding.tokens))
    found: list[NDArray[np.float32]] = []
    order: list[NDArray[np.int64]] = []
    with execution.answering(model), execution.reading_given_tokens(model) as forward:
        for rows in by_tokens(encoding.lengths):
            if watch.stop():
                raise Interrupted(f"stopped while {watch.what}")
            states = forward(trunk, read, rows).column(ragged=True)
            assert isinstance(states, Ragged)
            sums = np.add.reduceat(states.values, states.offsets[:-1])
            found.append((sums / states.lengths[:, None]).astype(np.float32))
            order.append(rows)
            watch.tell(sum(map(len, order)), len(encoding))
    pooled = np.concatenate(found)[np.argsort(np.concatenate(order))]
    require_none_broken(int((~np.isfinite(pooled).all(axis=1)).sum()), len(encoding), watch.what)
    return pooled


def _every_token(tokens: Ragged) -> Ragged:
    """Places of all tokens of each row, counted from its first."""
    starts = np.repeat(tokens.offsets[:-1], tokens.lengths)
    return Ragged(np.arange(tokens.offsets[0], tokens.offsets[-1]) - starts, tokens.offsets)


class _Trunk:
    """A model without its head, in the form of one whose head reads every token."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        if not hasattr(model, model.base_model_prefix):
            raise ModelError(f"{model.config.model_type}: its head is part of the model that it stands on")
        self._trunk = getattr(model, model.base_model_prefix)

    def __call__(self, **given: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self._trunk(**given).last_hidden_state)
