"""How the learning rate that is chosen for a model changes with its width."""

from __future__ import annotations

_WIDTH, _EXPONENT = 384, 0.78


def rate_at(width: int, rate: float) -> float:
    """A rate that was found with layers 384 wide, for layers of another width.

    It falls less than the width grows (a fit over model sizes, Thinking Machines, "LoRA without regret", 2025). Two
    digits are the same on every machine. See docs/defaults.md.
    """
    return float(f"{rate * (_WIDTH / width) ** _EXPONENT:.1e}")
