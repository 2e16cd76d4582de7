"""What trains at which rate, with decay where the Trainer decays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from featherweight.recipe import TrainingSection
from featherweight.records.training import OwnRate
from featherweight.registry import OPTIMIZERS

# The Trainer's own list (transformers.Trainer.get_decay_parameter_names): biases and norms don't decay.
_NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def build_optimizer(model: Any, settings: TrainingSection, own_rates: Sequence[OwnRate] = ()) -> torch.optim.Optimizer:
    """The optimizer that ``optim`` names, over the parameters that train.

    Args:
        own_rates: of parameters that do not train at ``learning_rate``; none is named twice.
    """
    from transformers.trainer_pt_utils import get_parameter_names

    decays = set(get_parameter_names(model, [torch.nn.LayerNorm], _NO_DECAY))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rate = settings.learning_rate if settings.learning_rate is not None else 0.0
    others = trained.keys() - {name for one in own_rates for name in one.names}
    groups = [
        {
            "params": [value for name, value in trained.items() if name in part.names and (name in decays) == decay],
            "weight_decay": settings.weight_decay if decay else 0.0,
            "lr": part.rate,
        }
        for part in [OwnRate(rate, frozenset(others)), *own_rates]
        for decay in (True, False)
    ]
    made: torch.optim.Optimizer = OPTIMIZERS[settings.optim].build(groups, settings, rate)
    return made
