"""AdamW and its schedule with the Trainer's meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from featherweight.recipe import TrainingSection
from featherweight.tasks.heads import within

# The Trainer's own list (transformers.Trainer.get_decay_parameter_names): biases and norms don't decay.
_NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def build_optimizer(model: Any, settings: TrainingSection, head: Sequence[str] = ()) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, 2019) over the parameters that train, with decay where the Trainer decays.

    Args:
        head: names of the modules that ``head_learning_rate`` is the rate of, where it is set.
    """
    from transformers.trainer_pt_utils import get_parameter_names

    decays = set(get_parameter_names(model, [torch.nn.LayerNorm], _NO_DECAY))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    rate = settings.learning_rate if settings.learning_rate is not None else 0.0
    of_head = set()
    if settings.head_learning_rate is not None:
        of_head = {name for name, _ in trained if within(name, head)}
    groups = [
        {
            "params": [value for name, value in trained if (name in of_head, name in decays) == (is_head, does_decay)],
            "weight_decay": settings.weight_decay if does_decay else 0.0,
            "lr": settings.head_learning_rate if is_head else rate,
        }
        for is_head in ([False, True] if of_head else [False])
        for does_decay in (True, False)
    ]
    return torch.optim.AdamW(
        groups,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )


def build_scheduler(optimizer: torch.optim.Optimizer, settings: TrainingSection, steps: int) -> Any:
    """The schedule that ``lr_scheduler_type`` names, over ``steps`` optimizer steps, warm-up included."""
    from transformers import get_scheduler

    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * steps)
    return get_scheduler(settings.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
