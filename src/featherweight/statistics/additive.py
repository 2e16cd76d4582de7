"""Statistics that are functions of sums over rows: the one shape that every figure of the evidence has.

Accuracy, F1, Matthews' correlation, a mean loss, a calibration error, RMSE or Pearson's correlation of a sample are all
functions of *sums* over its rows. From that shape alone follow value, interval, paired test, slices and curves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Additive:
    """A statistic of some rows, as a function of sums over them.

    Args:
        features: makes what is summed; sparse, float64, shape (rows, features). Asked for where rows are resampled.
        value: from sums, shape (..., features), to the statistic, shape (...).
        rows: how many there are.
        total: the sums over all rows, where they can be had without the features.
        outcomes: bool, shape (rows,), where the statistic is the share of rows of which something holds.
    """

    def __init__(
        self,
        features: Callable[[], Any],
        value: Callable[[Floats], Floats],
        rows: int,
        total: Floats | None = None,
        outcomes: NDArray[np.bool_] | None = None,
    ) -> None:
        self._make = features
        self._total = total
        self.value = value
        self.rows = rows
        self.outcomes = outcomes

    @cached_property
    def features(self) -> Any:
        return self._make()

    @property
    def total(self) -> Floats:
        """The sums over all rows; shape (features,)."""
        if self._total is None:
            self._total = np.asarray(self.features.sum(axis=0), dtype=np.float64).reshape(-1)
        return self._total

    @property
    def of_all_rows(self) -> float:
        return float(self.value(self.total))

    def select(self, rows: NDArray[Any]) -> Additive:
        """The same statistic of some of the rows, by their numbers or by a mask."""
        if self.outcomes is not None:
            return mean_of(self.outcomes[rows])
        chosen = self.features[rows]
        return Additive(lambda: chosen, self.value, chosen.shape[0])


@dataclass(frozen=True)
class Statistic:
    """What measures answers, and what people see of it. It stands with its kind of answer and nowhere else.

    Attributes:
        name: ``eval_<name>`` in metrics.json; scikit-learn's where it has one.
        title: as tables have it.
        of: the statistic of some answers against the truth.
        less_is_better: whether a smaller value is the better one.
        aliases: other names that recipes may call it by, such as scikit-learn's functions and scorers; one that begins
            with ``neg_`` is the statistic times -1.
        hub: what the hub's metadata calls it; empty where the card leaves it out.
        in_evaluations: whether each evaluation has it; else it is computed where two models are compared.
        minds_rare: whether every class weighs the same in it, so that it is to be read where one is far commoner.
        answers: of a third party's, the kinds of answer that it measures.
    """

    name: str
    title: str
    of: Callable[[Any, Any], Additive]
    less_is_better: bool = False
    hub: str = ""
    in_evaluations: bool = True
    minds_rare: bool = False
    answers: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The title as a sentence begins with it."""
        return self.title[:1].upper() + self.title[1:]


def mean_of(values: NDArray[Any]) -> Additive:
    """The plain mean of a number for each row; a share, with its outcomes, where the numbers are booleans.

    Args:
        values: shape (rows,).
    """

    def features() -> Any:
        from scipy import sparse

        return sparse.csr_array(np.stack([values.astype(np.float64), np.ones(len(values))], axis=1))

    total = np.asarray([values.sum(dtype=np.float64), len(values)])
    outcomes = values if values.dtype == bool else None
    return Additive(features, lambda sums: sums[..., 0] / sums[..., 1], len(values), total, outcomes)


def of_columns(columns: Sequence[Floats], value: Callable[[Floats], Floats]) -> Additive:
    """A statistic from a few numbers of each row.

    Args:
        columns: what is summed; shape (rows,) each.
        value: from sums, shape (..., columns), to the statistic, shape (...).
    """
    dense = np.stack(columns, axis=1)

    def features() -> Any:
        from scipy import sparse

        return sparse.csr_array(dense)

    return Additive(features, value, len(dense), dense.sum(axis=0))


def ratio(above: Any, below: Any) -> Floats:
    """Quotient, 0 where there is nothing to divide by."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
