"""What training gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from featherweight.records.outcome import TrainingCost


class OwnRate(NamedTuple):
    """The peak learning rate of some parameters, by their names in the model."""

    rate: float
    names: frozenset[str]


class Keeper(Protocol):
    """What a method keeps in step with training, such as the ranks of AdaLoRA."""

    def begin(self, steps: int) -> None:
        """Told once how many steps training has. Raises ConfigError where they are too few."""
        ...

    def penalty(self) -> Any:
        """Added to a step's loss; a scalar tensor."""
        ...

    def after_step(self, step: int) -> None:
        """Told after each step, counted from 1, while its gradients are still there."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a checkpoint keeps of it: tensors by name, and what JSON holds."""
        ...

    def load_state(self, tensors: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        ...


@dataclass(frozen=True)
class EpochRecord:
    """One row of the training table: mean training loss since the last row, and the evaluation at its end."""

    epoch: float
    step: int
    training_loss: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What training gave besides the weights, which stay in the model (the best ones, where that was asked for)."""

    epochs: list[EpochRecord]
    best_step: int
    steps: int
    metrics: TrainingCost
