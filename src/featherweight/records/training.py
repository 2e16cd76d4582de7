"""What training gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from featherweight.records.outcome import TrainingCost


class OwnRate(NamedTuple):
    """The peak learning rate of some parameters, by their names in the model."""

    rate: float
    names: frozenset[str]


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
