"""Answers of a finished model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def predict(target: str, texts: Iterable[str], *, calibrated: bool = False) -> Iterator[dict[str, Any]]:
    """Label and probabilities of each text, lazily and in order.

    Args:
        calibrated: at the temperature that the run fitted; labels are the same.
    """
    from featherweight.serving.predictor import load_predictor

    return load_predictor(target, calibrated=calibrated).stream(texts)
