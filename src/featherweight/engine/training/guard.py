"""What training must not run past: a loss or gradient that is not finite or explodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from featherweight.engine.training.loss_scale import LossScale
from featherweight.errors import DivergedError
from featherweight.recipe import TrainingSection

_EXPLODED = 20.0  # times (1 + the first loss)
_PATIENCE = 3  # steps in a row


class Guard:
    """Decides of each step whether its gradient may be applied. Its state travels in the checkpoints.

    Attributes:
        skipped: steps, counted from 1, that were left out because loss or gradient was not finite, apart from those
            that :class:`~featherweight.engine.training.loss_scale.LossScale` explains.
    """

    def __init__(self, settings: TrainingSection) -> None:
        self.settings = settings
        self.skipped: list[int] = []
        self.first_loss: float | None = None
        self.high_losses = 0

    def admits(self, step: int, loss: float, norm: float, scale: LossScale) -> bool:
        """Whether to apply the gradient of ``step``, counted from 1; False leaves this step out.

        Args:
            scale: of the loss; where it was too high for the gradient, it is lowered and the step not counted.

        Raises:
            DivergedError: more steps than ``max_skipped_steps`` were left out, or the loss has exploded.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            if not (scale.lower() and math.isfinite(loss)):
                self._leave_out(step, loss, norm)
            return False
        if self.first_loss is None:
            self.first_loss = loss
        exploded = loss > _EXPLODED * (1 + self.first_loss)
        self.high_losses = self.high_losses + 1 if exploded else 0
        if self.high_losses >= _PATIENCE:
            raise self._diverged(f"the loss is {loss:.4g} at step {step} and was {self.first_loss:.4g} at first")
        return True

    def require_finite(self, step: int, groups: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Raises DivergedError where a tensor that is about to be saved is not finite."""
        for group in groups:
            for name, value in group.items():
                if not torch.isfinite(value).all():
                    raise self._diverged(f"{name} is not finite after step {step}")

    def state(self) -> dict[str, object]:
        return {"skipped": self.skipped, "first_loss": self.first_loss, "high_losses": self.high_losses}

    def load_state(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)

    def _leave_out(self, step: int, loss: float, norm: float) -> None:
        self.skipped.append(step)
        if len(self.skipped) > self.settings.max_skipped_steps:
            raise self._diverged(f"the loss is {loss} and the gradient's norm {norm} at step {step}")

    def _diverged(self, what: str) -> DivergedError:
        left_out = f" ({len(self.skipped)} steps were left out)" if self.skipped else ""
        return DivergedError(
            f"training diverged: {what}{left_out}; lower training.learning_rate (now {self.settings.learning_rate})"
        )
