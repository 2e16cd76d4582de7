"""Rows padded to the longest of their batch: what every architecture can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine.running.batches import collate, filled_up
from featherweight.engine.running.scoring import handed_on
from featherweight.errors import ModelError
from featherweight.records.batching import of_equal
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding

OUTSIDE = -100  # transformers' mark of what is no label


@dataclass(frozen=True)
class Padded:
    """Rows padded on the right to the longest.

    Attributes:
        reason: why rows are not packed.
        step: rows are padded to a multiple of it.
        equal_lengths: padding would change the answers, so only rows of equal length run together.
        end: the token whose last place the head reads, where rows that run together must have equally many of it; a
            text may spell it. None where it does not matter.
        dependence: what of a text's answer depends on the batch that it is in, in words; empty where nothing does.
        takes_kinds: whether the model is told which text of a row each token is of.
        virtual_tokens: how many a method puts before every text, for which a head that reads tokens answers, too.
        shift: makes what a decoder reads of what it is to give, where the model has one: int64, shape (rows, length),
            :data:`OUTSIDE` behind the end of a reply.
    """

    pad_token_id: int
    device: torch.device
    reason: str
    step: int = 1
    equal_lengths: bool = False
    end: int | None = None
    dependence: str = ""
    takes_kinds: bool = False
    virtual_tokens: int = 0
    shift: Callable[[torch.Tensor], torch.Tensor] | None = None

    def groups(self, encoding: Encoding, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Which of ``rows`` may run together, as places in it."""
        together = [np.arange(len(rows))]
        if self.equal_lengths:
            together = of_equal(encoding.tokens.lengths_of(rows))
        if self.end is not None:
            ends = np.asarray([np.count_nonzero(encoding.tokens.row(int(row)) == self.end) for row in rows])
            together = [places[part] for places in together for part in of_equal(ends[places])]
        return together

    def __call__(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> Outputs:
        """What the head gives for the rows, in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        groups = self.groups(encoding, rows)
        outputs = [self._together(model, encoding, rows[group]) for group in groups]
        if len(outputs) == 1:
            return outputs[0]
        return Outputs.joined(outputs)[np.argsort(np.concatenate(groups))]

    def inputs(self, encoding: Encoding, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """What transformers' ``forward`` takes of the rows; int64, shape (rows, length)."""
        batch = collate(encoding, rows, self.pad_token_id, self.device, self.step)
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self.takes_kinds and batch.token_type_ids is not None:
            given["token_type_ids"] = batch.token_type_ids
        if encoding.replies is not None and self.shift is not None:
            given["decoder_input_ids"] = self.shift(filled_up(encoding.replies[rows], OUTSIDE).to(self.device))
        return given

    def _together(self, model: Any, encoding: Encoding, rows: NDArray[np.int64]) -> Outputs:
        given = self.inputs(encoding, rows)
        logits = handed_on(model(**given).logits)
        if encoding.reads is None:
            return Outputs.one_each(logits)
        if encoding.replies is None:
            logits = logits[:, self.virtual_tokens :]
        if logits.dim() != 3 or logits.shape[1] < given.get("decoder_input_ids", given["input_ids"]).shape[1]:
            raise ModelError(f"{model.config.model_type}: its head does not read every token of a text")
        reads = encoding.reads[rows]
        places = np.maximum(reads.values, 0) + logits.shape[1] * np.repeat(np.arange(len(rows)), reads.lengths)
        values = logits.flatten(0, 1)[torch.from_numpy(places).to(self.device)]
        return Outputs(values, torch.from_numpy(reads.offsets))
