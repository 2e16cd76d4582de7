"""Training and evaluation. Knows no task and no method by name: it asks them, and reports events as they happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Watch:
    """Whoever waits for a pass over some rows.

    Attributes:
        what: names the pass in progress events, as in "evaluating the base model".
        observer: is told how far it is.
        stop: is asked between batches whether to stop.
    """

    what: str
    observer: Observer
    stop: StopRequested = lambda: False

    def tell(self, done: int, total: int) -> None:
        """How many rows are done."""
        self.observer({"event": "evaluating", "what": self.what, "rows": done, "total": total})


NOBODY = Watch("answering", lambda event: None)


@dataclass(frozen=True)
class Lowered:
    """A task as training has it: with what a recipe makes of its loss.

    Attributes:
        loss: as :meth:`Task.loss`.
        weight: the mean weight of some targets in it, where they are weighted.
    """

    answer: Answer
    loss: Callable[[Outputs, torch.Tensor], torch.Tensor]
    weight: Callable[[Column], float] | None = None


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
