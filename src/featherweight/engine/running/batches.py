"""Rows as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.records.rows import Encoding


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, padded on the right to the longest. All tensors int64: ``input_ids`` and ``attention_mask``
    (rows, length), ``labels`` (rows,)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def collate(
    encoding: Encoding, rows: Sequence[int] | NDArray[np.int64], pad: int, device: torch.device, step: int = 1
) -> Batch:
    """The batch of the given rows, in that order, as long as the longest and then up to a multiple of ``step``."""
    tokens = [encoding.row(int(row)) for row in rows]
    length = -(-max(len(row) for row in tokens) // step) * step
    input_ids = np.full((len(tokens), length), pad, dtype=np.int64)
    mask = np.zeros((len(tokens), length), dtype=np.int64)
    for index, row in enumerate(tokens):
        input_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    labels = encoding.labels[np.asarray(rows)]
    return Batch(*(torch.from_numpy(array).to(device) for array in (input_ids, mask, labels)))
