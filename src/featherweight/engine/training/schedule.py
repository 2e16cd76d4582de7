"""The order of all batches of a run."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class Schedule:
    """The order of all batches of a run, as a function of the step alone, so that resuming needs no iterator state.

    Args:
        lengths: tokens of each row; int64, shape (rows,).
        batch_size: rows of a micro-batch.
        accumulation: micro-batches of an optimizer step.
        seed: with the epoch it decides the order.
        sampling: ``random``, in the order of Accelerate's ``SeedableRandomSampler`` and thus of
            ``transformers.Trainer``, or ``group_by_length``, batches of like length in random order.
    """

    def __init__(
        self, lengths: NDArray[np.int64], batch_size: int, accumulation: int, seed: int, sampling: str = "random"
    ) -> None:
        self.lengths = lengths
        self.rows = len(lengths)
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.seed = seed
        self.batches_per_epoch = -(-self.rows // batch_size)
        self.steps_per_epoch = -(-self.batches_per_epoch // accumulation)
        self._draw = {"random": self._random, "group_by_length": self._grouped}[sampling]
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """A permutation of the rows; int64, shape (rows,)."""
        if epoch != self._epoch:  # every step of an epoch asks for the same one
            self._order = self._draw(torch.Generator().manual_seed(self.seed + epoch))
            self._epoch = epoch
        return self._order

    def step_batches(self, step: int) -> list[NDArray[np.int64]]:
        """Row indices of each micro-batch of the optimizer step ``step``, counted from 0; the last one of an epoch
        may be smaller."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self.epoch_order(epoch)
        first = position * self.accumulation
        last = min(first + self.accumulation, self.batches_per_epoch)
        return [order[index * self.batch_size : (index + 1) * self.batch_size] for index in range(first, last)]

    def _random(self, generator: torch.Generator) -> NDArray[np.int64]:
        return torch.randperm(self.rows, generator=generator).numpy()

    def _grouped(self, generator: torch.Generator) -> NDArray[np.int64]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        step_rows = self.batch_size * self.accumulation
        indices = get_length_grouped_indices(self.lengths.tolist(), step_rows, generator=generator)
        return np.asarray(indices, dtype=np.int64)


def dealt(rows: NDArray[np.int64], lengths: NDArray[np.int64], rank: int, size: int) -> NDArray[np.int64]:
    """The rows of a batch that one of ``size`` processes takes, in the batch's order: as many as the others, or one
    fewer, and about as many tokens.

    They are dealt out by length, back and forth, so that rank 0, which has the longest, has none only where there are
    none.

    Args:
        rows: int64, shape (rows,).
        lengths: tokens of all rows; int64.
    """
    rounds, seats = np.divmod(np.arange(len(rows)), size)
    takers = np.where(rounds % 2 == 0, seats, size - 1 - seats)
    mine = np.argsort(-lengths[rows], kind="stable")[takers == rank]
    return np.asarray(rows[np.sort(mine)])
