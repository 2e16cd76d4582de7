"""How good predictions are. Each metric is a function of probabilities and labels, named in the ``METRICS`` table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of rows whose most probable class is the label.

    Args:
        probabilities: shape (rows, classes).
        labels: shape (rows,).
    """
    return float((probabilities.argmax(axis=1) == labels).mean())
