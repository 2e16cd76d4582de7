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
    kinds = None if encoding.kinds is None else filled_up(encoding.kinds[chosen], 0, step).to(device)
    ones = Ragged(np.ones_like(tokens.values), tokens.offsets)
    return Batch(filled_up(tokens, pad, step).to(device), filled_up(ones, 0, step).to(device), kinds)


def filled_up(rows: Ragged, outside: int, step: int = 1, *, left: bool = False) -> torch.Tensor:
    """Rows of integers, filled up on the right or left, to the longest and then to a multiple of ``step``; int64,
    shape (rows, length), on the processor."""
    lengths = rows.lengths
    length = -(-int(lengths.max()) // step) * step
    found = np.full((len(rows), length), outside, dtype=np.int64)
    places = np.arange(length)
    found[(places[::-1] if left else places) < lengths[:, None]] = rows.values
    return torch.from_numpy(found)


def targets_of(encoding: Encoding, rows: Sequence[int] | NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """The targets of the given rows, end to end in that order; shape (items, ...)."""
    targets = encoding.targets[np.asarray(rows, dtype=np.int64)]
    return torch.from_numpy(targets.values if isinstance(targets, Ragged) else targets).to(device)
