"""LoRA+ (Hayou et al., "LoRA+: Efficient Low Rank Adaptation of Large Models", 2024, arXiv 2402.12354)."""

from __future__ import annotations

from typing import Any

from featherweight.records.training import OwnRate

_EMBEDDING_RATE = 1e-6  # PEFT's default of loraplus_lr_embedding


def own_rates(model: Any, rate: float, ratio: float) -> list[OwnRate]:
    """What trains at a rate of its own, as ``peft.optimizers.create_loraplus_optimizer`` has it: the B matrices and all
    vectors, such as biases, at ``ratio * rate``; LoRA of embeddings at next to nothing.

    Args:
        rate: of the A matrices and of what else trains.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    embeddings = {name for name in trained if "lora_embedding_" in name}
    faster = {name for name, value in trained.items() if "lora_B" in name or value.ndim == 1} - embeddings
    return [OwnRate(ratio * rate, frozenset(faster)), OwnRate(_EMBEDDING_RATE, frozenset(embeddings))]
