"""Optimizers, with the options that the Trainer gives them. One is a class here and a line in ``OPTIMIZERS``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from featherweight.recipe import TrainingSection

Groups = Sequence[dict[str, Any]]


class Optimizer(Protocol):
    """What is asked of an optimizer. What it remembers of a parameter has to be tensors and numbers, which is what
    checkpoints hold."""

    @staticmethod
    def build(groups: Groups, settings: TrainingSection, rate: float) -> torch.optim.Optimizer:
        """Over parameter groups that have ``params``, ``lr`` and ``weight_decay``.

        Args:
            rate: peak learning rate of what has none of its own, which some schedules ask the optimizer for.
        """
        ...


class AdamW:
    """AdamW (Loshchilov & Hutter, 2019), fused: one pass over the memory, equal to the unfused but for rounding."""

    @staticmethod
    def build(groups: Groups, settings: TrainingSection, rate: float) -> torch.optim.Optimizer:
        betas = (settings.adam_beta1, settings.adam_beta2)
        return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=settings.adam_epsilon, fused=True)


class Adafactor:
    """Adafactor (Shazeer & Stern, 2018): of a matrix it remembers a number for each row and column, and the rate is the
    recipe's alone."""

    @staticmethod
    def build(groups: Groups, settings: TrainingSection, rate: float) -> torch.optim.Optimizer:
        from transformers.optimization import Adafactor as Theirs

        made: torch.optim.Optimizer = Theirs(groups, lr=rate, scale_parameter=False, relative_step=False)
        return made


class SGD:
    """Gradient descent without momentum, as the Trainer's ``sgd`` is."""

    @staticmethod
    def build(groups: Groups, settings: TrainingSection, rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=rate)
