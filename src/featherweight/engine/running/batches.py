"""Rows as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.records.rows import Encoding, Ragged


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, padded on the right to the longest. All tensors int64, shape (rows, length); no
    ``token_type_ids`` where every row is one text."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor | None


def collate(
    encoding: Encoding, rows: Sequence[int] | NDArray[np.int64], pad: int, device: torch.device, step: int = 1
) -> Batch:
    """The batch of the given rows, in that order, as long as the longest and then up to a multiple of ``step``."""
    chosen = np.asarray(rows, dtype=np.int64)
    tokens = encoding.tokens[chosen]
    length = -(-int(tokens.lengths.max()) // step) * step
    real = np.arange(length) < tokens.lengths[:, None]

    def tensor(values: NDArray[np.integer], outside: int) -> torch.Tensor:
        padded = np.full(real.shape, outside, dtype=np.int64)
        padded[real] = values
        return torch.from_numpy(padded).to(device)

    kinds = None if encoding.kinds is None else tensor(encoding.kinds[chosen].values, 0)
    mask = torch.from_numpy(real.astype(np.int64)).to(device)
    return Batch(tensor(tokens.values, pad), mask, kinds)


def targets_of(encoding: Encoding, rows: Sequence[int] | NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """The targets of the given rows, end to end in that order; shape (items, ...)."""
    targets = encoding.targets[np.asarray(rows, dtype=np.int64)]
    return torch.from_numpy(targets.values if isinstance(targets, Ragged) else targets).to(device)
