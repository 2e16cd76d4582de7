"""Answers that are no numbers."""

from __future__ import annotations

from featherweight.errors import DivergedError


def require_none_broken(broken: int, rows: int, what: str) -> None:
    """Raises DivergedError where a model gave some of ``rows`` numbers that are not finite.

    Args:
        what: was being done.
    """
    if broken:
        raise DivergedError(
            f"{what}: for {broken:,} of {rows:,} rows the model gives numbers that are not finite; its weights are "
            "damaged, training.fp16 is too narrow for it (unset it), or training.learning_rate was too high"
        )
