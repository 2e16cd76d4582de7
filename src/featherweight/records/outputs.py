"""What a model's head gave for some rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featherweight.records.rows import Column, Ragged, places_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Outputs:
    """The head's outputs, read by read in the order of the rows.

    Attributes:
        values: shape (reads, width), on the model's device.
        ends: where each row's reads start, and where the last one's end: int64, shape (rows + 1,), on the processor.
        seen: bool, shape (reads,), false for what had nothing to read, whose values are 0; None where all had.
    """

    values: torch.Tensor
    ends: torch.Tensor
    seen: torch.Tensor | None = None

    @classmethod
    def one_each(cls, values: torch.Tensor) -> Outputs:
        """Of rows with one read each."""
        import torch

        return cls(values, torch.arange(len(values) + 1))

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """The rows of all parts, one part after the other; there is at least one."""
        import torch

        counts = torch.cat([part.ends.diff() for part in parts])
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(torch.cat([part.values for part in parts]), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, rows: NDArray[np.int64]) -> Outputs:
        """These rows, in this order. Reads behind the last row's are left out."""
        import torch

        places = places_of(self.ends.numpy(), rows)
        index = torch.from_numpy(places.values).to(self.values.device)
        return Outputs(self.values[index], torch.from_numpy(places.offsets))

    def column(self, ragged: bool) -> Column:
        """The values on the processor, in fp32, NaN for what had nothing to read.

        Args:
            ragged: whether a row may have any number of reads; else each has one, and the result a row for each.
        """
        values = self.values.detach().float()
        if self.seen is not None:
            values = values.masked_fill(~self.seen[:, None], float("nan"))
        found = values.cpu().numpy()
        return Ragged(found, self.ends.numpy()) if ragged else found
