"""Training and evaluation. Knows no task and no method by name: it asks them, and reports events as they happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from featherweight.answers import Answer

Event = dict[str, Any]
Observer = Callable[[Event], None]
StopRequested = Callable[[], bool]

# Events that say how far the work has come and that nobody needs afterwards; all others are the run's history.
TRANSIENT = frozenset({"stepping", "evaluating"})


class Task(Protocol):
    """What the engine asks of a task."""

    @property
    def answer(self) -> Answer: ...

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor: ...

    def answers(self, logits: torch.Tensor) -> Mapping[str, NDArray[Any]]: ...
