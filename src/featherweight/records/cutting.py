"""What becomes of a text that is longer than a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

LongTexts = Literal["cut", "head-tail", "stride"]
Pool = Literal["mean", "max"]

LONGEST = 512  # tokens of a text where nobody says how many
LONGEST_REPLY = 128  # of what a decoder gives, as transformers' scripts have it


@dataclass(frozen=True)
class Cutting:
    """How long texts are cut.

    Attributes:
        max_length: the most tokens of a sequence, special ones among them.
        long_texts: ``cut`` keeps one side of the text; ``head-tail`` its first quarter of the room and its end;
            ``stride`` all of it, as windows of ``max_length``, whose answers are pooled.
        stride: tokens that neighbouring windows share, as tokenizers of transformers have it.
        pool: how windows' outputs become a row's, entry by entry.
        max_target_length: the most tokens of what a decoder is to give, special ones among them; None where the model
            answers with no decoder, or nobody says.
    """

    max_length: int
    long_texts: LongTexts = "cut"
    stride: int = 0
    pool: Pool = "mean"
    max_target_length: int | None = None

    @classmethod
    def of(cls, known: Mapping[str, Any], max_length: int) -> Self:
        """As ``featherweight.json`` has it.

        Args:
            max_length: what the model was found to take.
        """
        keys = ("long_texts", "stride", "pool", "max_target_length")
        return cls(max_length, **{key: known[key] for key in keys if key in known})

    def facts(self) -> dict[str, Any]:
        """For ``featherweight.json``: what is not said is cut."""
        found: dict[str, Any] = {"max_length": self.max_length}
        if self.long_texts != "cut":
            found["long_texts"] = self.long_texts
        if self.makes_windows:
            found |= {"stride": self.stride, "pool": self.pool}
        return found if self.max_target_length is None else found | {"max_target_length": self.max_target_length}

    @property
    def makes_windows(self) -> bool:
        """Whether a text may become several sequences."""
        return self.long_texts == "stride"

    @property
    def most(self) -> int | None:
        """The most tokens of a text that the model sees; None where it sees all."""
        return None if self.makes_windows else self.max_length


def pooled(values: NDArray[Any], offsets: NDArray[np.int64], pool: Pool) -> NDArray[Any]:
    """A row's outputs from those of its windows.

    Args:
        values: shape (windows, ...), row by row.
        offsets: int64, shape (rows + 1,); row ``i`` has those from ``offsets[i]`` to ``offsets[i + 1]``, one at least.

    Returns:
        Shape (rows, ...).
    """
    if pool == "max":
        return np.asarray(np.maximum.reduceat(values, offsets[:-1], axis=0))
    sums = np.add.reduceat(values, offsets[:-1], axis=0, dtype=np.float64)
    counts = np.diff(offsets).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(sums / counts, dtype=values.dtype)
