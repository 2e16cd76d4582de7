"""Where training stands, and the tensors that a checkpoint holds of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from featherweight.answers import Answer, statistics_of
from featherweight.recipe import TrainingSection
from featherweight.records.training import EpochRecord


@dataclass
class Progress:
    """Where a run stands, apart from its tensors. Everything here goes into a checkpoint.

    ``stalled`` counts the last evaluations that were not better than the best before them by more than
    ``early_stopping_threshold``; ``micro_batch_parts`` is into how many parts each micro-batch is cut since memory ran
    out; ``saves`` counts checkpoints, and ``save_seconds`` is what they took.
    """

    step: int = 0
    evaluated_step: int = 0
    best_step: int | None = None
    best_metric: float | None = None
    stalled: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    seconds: float = 0.0
    micro_batch_parts: int = 1
    saves: int = 0
    save_seconds: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def note(self, record: EpochRecord, settings: TrainingSection, kind: Answer) -> None:
        """An evaluation at this step: whether it is the best so far, and whether it is enough of a gain.

        Args:
            kind: of answer, which knows of which figures less is better.
        """
        self.epochs.append(asdict(record))
        self.loss_sum, self.loss_steps, self.evaluated_step = 0.0, 0, self.step
        value, best = record.metrics[best_metric_name(settings)], self.best_metric
        improves = best is None or (value > best if greater_is_better(settings, kind) else value < best)
        is_enough = best is None or (improves and abs(value - best) > (settings.early_stopping_threshold or 0.0))
        self.stalled = 0 if is_enough else self.stalled + 1
        if improves:
            self.best_metric, self.best_step = value, self.step


def best_metric_name(settings: TrainingSection) -> str:
    """``metric_for_best_model`` as the key that it has among an evaluation's metrics."""
    name = settings.metric_for_best_model or "loss"
    return name if name.startswith("eval_") else f"eval_{name}"


def greater_is_better(settings: TrainingSection, kind: Answer) -> bool:
    """Of ``metric_for_best_model``: as the recipe says, else as the statistic does; of a loss less is better."""
    if settings.greater_is_better is not None:
        return settings.greater_is_better
    name = best_metric_name(settings)
    lesser = {f"eval_{one.name}" for one in statistics_of(kind) if one.less_is_better}
    return name not in {"eval_loss", *lesser}


def taken(
    trained: Mapping[str, torch.Tensor], optimizer: Any
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """Copies of what trains and of what the optimizer remembers; and apart from them what the optimizer remembers that
    is no tensor, which JSON can hold."""
    remembered = {
        f"{index}.{key}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }
    moments = {key: value for key, value in remembered.items() if isinstance(value, torch.Tensor)}
    numbers = {key: value for key, value in remembered.items() if key not in moments}
    groups = {"trainable": trained, "optimizer": moments}
    copies = {
        name: {key: value.detach().cpu().clone() for key, value in group.items()} for name, group in groups.items()
    }
    return copies, numbers


def give_back(remembered: Mapping[str, Any], optimizer: Any, rates: Sequence[float]) -> None:
    """Give an optimizer what it remembered, as :func:`taken` has it, and each of its groups its rate."""
    entries: dict[int, dict[str, Any]] = {}
    for name, value in remembered.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
