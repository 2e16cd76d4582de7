"""How well scores rank the rows that something holds of above the others, with what each row adds to it.

Neither figure is a function of sums over rows. Both are nearly one: to first order, a row that counts a little more
moves the figure by its influence (the infinitesimal jackknife; Efron, "The Jackknife, the Bootstrap and Other
Resampling Plans", 1982, chapter 6). The mean of figure plus influence over all rows is the figure itself, exactly, and
over a resample it is the resample's to first order; for the area under the ROC curve this is DeLong's variance (1988).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featherweight.statistics.additive import Floats

Scores = NDArray[np.floating]


def roc_auc(scores: Scores, holds: NDArray[np.bool_]) -> Floats:
    """The area under the ROC curve, as ``sklearn.metrics.roc_auc_score``; equal scores count half.

    Args:
        scores: shape (rows,).
        holds: of which rows it holds, some and not all; shape (rows,).

    Returns:
        For each row the figure plus the row's influence, shape (rows,); their mean is the figure.
    """
    above, below = np.sort(scores[holds]), np.sort(scores[~holds])
    placed = np.empty(len(scores))
    placed[holds] = _share_below(scores[holds], below)
    placed[~holds] = 1 - _share_below(scores[~holds], above)
    area = placed[holds].mean()
    return np.asarray(area + (placed - area) * len(scores) / np.where(holds, len(above), len(below)))


def average_precision(scores: Scores, holds: NDArray[np.bool_]) -> Floats:
    """The mean of the precision at each row that it holds of, as ``sklearn.metrics.average_precision_score``.

    Arguments and result as of :func:`roc_auc`; it has to hold of some row.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], holds[order].astype(np.float64)
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of the rows with the same score
    good, seen = np.cumsum(hit)[last], last + 1.0
    precision, bad, hits = good / seen, seen - good, hit.sum()
    figure = (hit * precision).sum() / hits
    # A row counts towards the precision at its own place and at every place below it.
    first = np.searchsorted(-ranked, -ranked, side="left")
    by_good, by_bad = (np.cumsum((hit * one / seen**2)[::-1])[::-1][first] for one in (bad, good))
    moved = hit * (precision - figure) + np.where(hit > 0, by_good, -by_bad)
    found = np.empty(len(scores))
    found[order] = figure + moved * len(scores) / hits
    return found


def _share_below(scores: Scores, others: Scores) -> Floats:
    """Of each score the share of the others, ascending, that it is above; equal ones count half."""
    ends = (np.searchsorted(others, scores, side=side) for side in ("left", "right"))
    return np.asarray(sum(ends) / (2 * len(others)))
