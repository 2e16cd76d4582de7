"""The factor that keeps small gradients alive in fp16 (Micikevicius et al., "Mixed precision training", 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEAST = 1.0  # below it a gradient that overflows is no fault of the scale's


class LossScale:
    """What the loss is multiplied by before the backward pass; there is none outside of fp16.

    It is found by trial: where a gradient overflows, the step is left out and the scale lowered.

    Args:
        scaler: a ``torch.amp.GradScaler``, or None.
    """

    def __init__(self, scaler: Any) -> None:
        self._scaler = scaler

    @property
    def value(self) -> float | None:
        return None if self._scaler is None else float(self._scaler.get_scale())

    def unscale(self, optimizer: Any) -> None:
        """Divide the gradients of ``optimizer``, one of Accelerate's, by the scale, in place."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer.optimizer)

    def lower(self) -> bool:
        """End a step whose gradient is not applied. Returns whether a scale that was too high explains it."""
        if self._scaler is None:
            return False
        before = self._scaler.get_scale()
        self._scaler.update()
        return before > _LEAST and bool(self._scaler.get_scale() < before)

    def state(self) -> dict[str, Any]:
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's; one that was written before there was any starts the search anew."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(dict(state))
