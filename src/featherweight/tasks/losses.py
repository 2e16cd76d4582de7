"""What training lowers where a recipe asks for more than a task's own loss: weights, smoothed labels, other losses.

Evaluations always have the task's own loss, so that runs can be compared whatever each of them lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ConfigError
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Column, numbers_of
from featherweight.registry import did_you_mean

if TYPE_CHECKING:
    import torch

    from featherweight.recipe import TrainingSection

Loss = Callable[[Outputs, "torch.Tensor"], "torch.Tensor"]

FOCAL, HUBER = "focal", "huber"
_CROSS_ENTROPY, _SQUARED = "cross-entropy", "mse"
_HEAVIEST = 100.0  # of a label's own rows: a heavier one would let a handful of rows decide every step
_LEAST_WRONG = 1e-6  # below it the slope of a power under 1 grows without bound
_MOST_SAID = 10


@dataclass(frozen=True)
class Objective:
    """What training lowers.

    Attributes:
        loss: summed over the rows' items, in fp32, as :class:`featherweight.engine.Task` has it.
        is_own: whether it is the task's own loss.
        said: what a person is told of it; empty for nothing.
        weight: the mean weight of some targets, where they are weighted.
    """

    loss: Loss
    is_own: bool = True
    said: str = ""
    weight: Callable[[Column], float] | None = None


def own(loss: Loss, training: TrainingSection, known: Sequence[str] = (), *, classes: bool = False) -> Objective:
    """A task's own loss.

    Args:
        known: what ``training.loss`` may name.
        classes: whether the task has classes, which can be weighted and smoothed.

    Raises:
        ConfigError: the recipe asks for what the task does not have.
    """
    if training.loss is not None and training.loss not in known:
        names = f"{did_you_mean(training.loss, known)}; known: {', '.join(known)}" if known else "; leave it out"
        raise ConfigError(f"training.loss: this task has no loss {training.loss!r}{names}")
    for key in () if classes else ("class_weights", "label_smoothing_factor"):
        if getattr(training, key):
            raise ConfigError(f"training.{key}: this task has no classes; leave it out")
    return Objective(loss)


def of_classes(loss: Loss, training: TrainingSection, names: Sequence[str], counts: NDArray[np.int64]) -> Objective:
    """For one class out of several, of rows or of words.

    With q the one-hot label, of which ``label_smoothing_factor`` is spread over all classes (Szegedy et al., 2016), w
    the weights and p the probabilities, an item's loss is the sum over classes of w q (1 - p)^gamma (-log p); gamma is
    0 but for ``focal`` (Lin et al., "Focal Loss for Dense Object Detection", 2017).

    Args:
        loss: the task's own, of which this is the plain case.
        counts: items of each class in train, for ``class_weights = "auto"``: those that let every class weigh the same
            and an item 1 on average (scikit-learn's ``balanced``).
    """
    plain = own(loss, training, (_CROSS_ENTROPY, FOCAL), classes=True)
    present = np.maximum(counts, 1)
    balanced = np.where(counts > 0, counts.sum() / (np.count_nonzero(counts) * present), 1.0)
    weights = _weights(training, names, balanced)
    gamma = training.focal_gamma if training.loss == FOCAL else 0.0
    smoothing = training.label_smoothing_factor
    if weights is None and not gamma and not smoothing:
        return plain

    def lowered(outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import log_softmax, one_hot

        logs = log_softmax(outputs.values.float(), dim=-1)
        wanted = one_hot(targets.long(), len(names)).to(logs.dtype)
        wanted = (1 - smoothing) * wanted + smoothing / len(names)
        each = -wanted * logs
        if gamma:
            each = each * (-torch.expm1(logs)).clamp(min=_LEAST_WRONG) ** gamma
        if weights is not None:
            each = each * torch.as_tensor(weights, dtype=logs.dtype, device=logs.device)
        items = each.sum(dim=-1)
        return (items if outputs.seen is None else items * outputs.seen).sum()

    weight = None if weights is None else lambda targets: float(weights[numbers_of(targets)].mean())
    return Objective(lowered, False, _said(training, names, weights), weight)


def of_sets(loss: Loss, training: TrainingSection, names: Sequence[str], truth: NDArray[np.bool_]) -> Objective:
    """For a yes or no of each label: the same with two classes, where the weight is that of a yes.

    ``class_weights = "auto"`` gives the rows that have a label the weight of those that lack it, 100 times at most.

    Args:
        truth: of train; shape (rows, labels).
    """
    plain = own(loss, training, (_CROSS_ENTROPY, FOCAL), classes=True)
    yes = truth.sum(axis=0)
    weights = _weights(training, names, np.minimum((len(truth) - yes) / np.maximum(yes, 1), _HEAVIEST))
    gamma = training.focal_gamma if training.loss == FOCAL else 0.0
    smoothing = training.label_smoothing_factor
    if weights is None and not gamma and not smoothing:
        return plain

    def lowered(outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import logsigmoid

        logits = outputs.values.float()
        wanted = (1 - smoothing) * targets.to(logits.dtype) + smoothing / 2
        yes, no = -wanted * logsigmoid(logits), -(1 - wanted) * logsigmoid(-logits)
        if gamma:
            shares = logits.sigmoid()
            yes = yes * (1 - shares).clamp(min=_LEAST_WRONG) ** gamma
            no = no * shares.clamp(min=_LEAST_WRONG) ** gamma
        if weights is not None:
            yes = yes * torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)
        return (yes + no).mean(dim=1).sum()

    weight = None if weights is None else lambda targets: float(np.where(numbers_of(targets), weights, 1.0).mean())
    return Objective(lowered, False, _said(training, names, weights), weight)


def of_numbers(
    loss: Loss, training: TrainingSection, standardised: Callable[[torch.Tensor], torch.Tensor]
) -> Objective:
    """For a number: squared error, or ``huber`` (Huber, 1964), which is half of it up to a standard deviation and grows
    with the error itself from there on, so that single rows that are far off pull less.

    Args:
        standardised: targets as the model gives them.
    """
    plain = own(loss, training, (_SQUARED, HUBER))
    if training.loss != HUBER:
        return plain

    def lowered(outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import huber_loss

        return huber_loss(outputs.values[:, 0].float(), standardised(targets), reduction="sum")

    return Objective(lowered, False, "loss: huber; evaluations have the squared error")


def _weights(
    training: TrainingSection, names: Sequence[str], balanced: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """A weight for each name; None where there are none."""
    asked = training.class_weights
    if asked is None:
        return None
    if asked == "auto":
        return balanced
    if unknown := [name for name in asked if name not in names]:
        raise ConfigError(
            f"training.class_weights: {unknown[0]!r} is no label of the data{did_you_mean(unknown[0], names)}; known: "
            f"{', '.join(map(repr, names[:_MOST_SAID]))}"
        )
    return np.asarray([asked.get(name, 1.0) for name in names])


def _said(training: TrainingSection, names: Sequence[str], weights: NDArray[np.float64] | None) -> str:
    parts = [f"loss: {FOCAL}, gamma {training.focal_gamma:g}"] if training.loss == FOCAL else []
    if training.label_smoothing_factor:
        parts.append(f"{training.label_smoothing_factor:g} of each label spread over all")
    if weights is not None:
        heaviest = np.argsort(-weights, kind="stable")[:_MOST_SAID]
        more = f" and {len(names) - _MOST_SAID} more" if len(names) > _MOST_SAID else ""
        parts.append(f"weights {', '.join(f'{names[one]} {weights[one]:.3g}' for one in heaviest)}{more}")
    return "; ".join([*parts, "evaluations have the plain loss"])
