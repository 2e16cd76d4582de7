"""What does not train at ``training.learning_rate``: the head where it has a rate of its own, and LoRA+."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featherweight.methods.peft import loraplus
from featherweight.recipe import TrainingSection
from featherweight.records.training import OwnRate
from featherweight.tasks.heads import within


def own_rates(model: Any, head: Sequence[str], settings: TrainingSection) -> list[OwnRate]:
    """Those that the recipe asks for; each has parameters, and no parameter has two.

    Args:
        head: names of the modules that ``head_learning_rate`` is the rate of, where it is set.
    """
    found: list[OwnRate] = []
    of_head: frozenset[str] = frozenset()
    if settings.head_learning_rate is not None:
        names = [name for name, value in model.named_parameters() if value.requires_grad]
        of_head = frozenset(name for name in names if within(name, head))
        found.append(OwnRate(settings.head_learning_rate, of_head))
    if settings.loraplus_lr_ratio is not None and settings.learning_rate is not None:
        theirs = loraplus.own_rates(model, settings.learning_rate, settings.loraplus_lr_ratio)
        found += [OwnRate(one.rate, one.names - of_head) for one in theirs]
    return [one for one in found if one.names]
