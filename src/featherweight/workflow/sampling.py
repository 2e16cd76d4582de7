"""A few rows of train, for methods that begin with what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.records.rows import Encoding

if TYPE_CHECKING:
    from featherweight.engine import Lowered
    from featherweight.engine.running.execution import Execution

_ROWS = 256  # as many as CorDA's authors took
_TOGETHER = 16


@dataclass(frozen=True)
class TrainSample:
    """Rows from the whole length of train, the same in every run of the same data.

    Attributes:
        encoding: of train.
        task: has the loss that training lowers.
    """

    encoding: Encoding
    task: Lowered
    execution: Execution

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.unique(np.linspace(0, len(self.encoding) - 1, _ROWS).astype(np.int64))

    def inputs(self) -> list[dict[str, Any]]:
        """What transformers' ``forward`` takes, in padded batches; int64, shape (rows, length)."""
        return [self._collated(self._sequences(rows)) for rows in self._batches()]

    def read(self, model: Any) -> None:
        """Let the model read the rows, one at a time and so without padding."""
        for row in self.rows:
            for sequence in self._sequences(np.asarray([row])):
                model(**self._collated(np.asarray([sequence])))

    def lower(self, model: Any) -> None:
        """Add up the gradients of the rows' mean loss in what requires them."""
        from featherweight.engine.running.batches import targets_of

        self.execution.start(0)
        items = max(self.encoding.items(self.rows), 1)
        for rows in self._batches():
            outputs = self.execution.outputs(model, self.encoding, rows)
            loss = self.task.loss(outputs, targets_of(self.encoding, rows, outputs.values.device)) / items
            loss.backward()  # type: ignore[no-untyped-call]

    def _batches(self) -> list[NDArray[np.int64]]:
        rows = self.rows
        return [rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER)]

    def _sequences(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of the rows: themselves, or what is compared."""
        return self.encoding.windows_of(rows).values if self.encoding.compares else rows

    def _collated(self, sequences: NDArray[np.int64]) -> dict[str, Any]:
        return self.execution.padded.inputs(self.encoding.flat, sequences)
