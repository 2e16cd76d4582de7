"""AdaLoRA's ranks in step with training (Zhang et al., 2023, arXiv 2303.10512), by PEFT's own allocator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featherweight.errors import ConfigError


class Allocation:
    """Which ranks are kept, and how important each has shown itself.

    Args:
        model: with PEFT's AdaLoRA layers.
    """

    def __init__(self, model: Any) -> None:
        self.tuner = model.base_model
        self.config = model.peft_config[self.tuner.trainable_adapter_name]
        self.allocator = self.tuner.rankallocator

    def begin(self, steps: int) -> None:
        if self.config.tinit + self.config.tfinal >= steps:
            raise ConfigError(
                f"method.tinit: {self.config.tinit} steps before ranks are taken away and {self.config.tfinal} after "
                f"(tfinal) leave none of the {steps} steps of training to do it; lower them, or train longer"
            )
        self.config.total_step = steps
        self.allocator.set_total_step(steps)

    def penalty(self) -> Any:
        """What keeps the two outer matrices of each update near orthogonal (equation 4), as PEFT adds it to a loss."""
        import torch

        covariances = [
            value @ value.T if ".lora_A." in name else value.T @ value
            for name, value in self.tuner.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        apart = [torch.linalg.norm(one - torch.eye(len(one), device=one.device)) for one in covariances]
        return self.config.orth_reg_weight * torch.stack(apart).mean()

    def after_step(self, step: int) -> None:
        if step > self.config.total_step - self.config.tfinal and self.config.rank_pattern is None:
            return  # the step that was to settle the ranks was skipped, so all of them stay
        self.tuner.update_and_allocate(step)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        tensors = {
            f"{kind}/{name}": value
            for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
            for name, value in getattr(self.allocator, kind).items()
        }
        return tensors, {"rank_pattern": self.config.rank_pattern}

    def load_state(self, tensors: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
        self.allocator.reset_ipt()
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            getattr(self.allocator, kind)[name] = value.clone()
        self.config.rank_pattern = numbers["rank_pattern"]
