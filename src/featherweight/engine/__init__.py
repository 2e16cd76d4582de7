"""Training and evaluation. Knows no task and no method by name: it asks them, and reports events as they happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from featherweight.answers import Answer
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Column

Event = dict[str, Any]
Observer = Callable[[Event], None]
StopRequested = Callable[[], bool]

# Events that say how far the work has come and that nobody needs afterwards; all others are the run's history.
TRANSIENT = frozenset({"stepping", "evaluating"})


class Task(Protocol):
    """What the engine asks of a task."""

    @property
    def answer(self) -> Answer: ...

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Of all rows, summed over their items in fp32, a scalar; whoever asks divides by
        :meth:`~featherweight.records.rows.Encoding.items`.

        Args:
            targets: those of the rows, end to end in their order.
        """
        ...

    def answers(self, outputs: Outputs) -> Mapping[str, Column]:
        """What is kept of the rows, by name; few numbers each. A column has one entry a row, or is ragged."""
        ...
