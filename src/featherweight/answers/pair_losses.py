"""What training lowers for a pair of answers, one of which is the better. The same in NumPy and in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

LossType: TypeAlias = Literal["sigmoid", "hinge", "ipo", "robust", "orpo"]
LOSSES: tuple[str, ...] = get_args(LossType)
WITHOUT_REFERENCE = "orpo"
LOG_PROBABILITY, LENGTH, REFERENCE = 0, 1, 2  # what is known of an answer, in this order
_LEAST = 1e-7  # of an answer's improbability, for which there are no odds if it is 0


@dataclass(frozen=True)
class PairLoss:
    """What training lowers for each pair, with TRL's names and meaning.

    ``sigmoid`` is DPO's (Rafailov et al., 2023); ``hinge`` SLiC's (Zhao et al., 2023); ``ipo`` that of Azar et al.
    (2023), a token; ``robust`` that of Chowdhury et al. (2024), where ``label_smoothing`` is the share of pairs that
    are the wrong way round. ``orpo`` (Hong et al., 2024, equation 6) is held to no other model: the chosen answer's NLL
    a token, and beta times the NLL of its being the chosen one by the odds of both.

    Attributes:
        beta: how strongly it is held to the reference; of ``ipo`` the paper's tau, of ``orpo`` its lambda.
    """

    loss_type: LossType = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0

    @property
    def refers(self) -> bool:
        """Whether there is a reference."""
        return self.loss_type != WITHOUT_REFERENCE

    def of(self, values: Any, xp: Any) -> Any:
        """Of each pair; shape (pairs,).

        Args:
            values: of each pair's chosen and rejected answer in turn: log-probability, tokens and, where there is a
                reference, the log-probability by that; (2 * pairs, 2 or 3), of NumPy or of torch.
            xp: whose they are.
        """
        return _OF_PAIRS[self.loss_type](self, values[0::2], values[1::2], xp)

    def rewards(
        self, logps: NDArray[np.float64], lengths: NDArray[np.float64], reference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Of each answer; what TRL logs."""
        return self.beta * (logps - reference if self.refers else logps / np.maximum(lengths, 1))

    def margin(self, chosen: Any, rejected: Any) -> Any:
        return self.beta * (_ratio(chosen) - _ratio(rejected))


def _ratio(side: Any) -> Any:
    return side[:, LOG_PROBABILITY] - side[:, REFERENCE]


def _a_token(side: Any, values: Any, xp: Any) -> Any:
    lengths = side[:, LENGTH]
    return values / xp.maximum(lengths, 0 * lengths + 1)


def _log_sigmoid(values: Any, xp: Any) -> Any:
    return xp.minimum(values, 0 * values) - xp.log1p(xp.exp(-abs(values)))


def _sigmoid(loss: PairLoss, chosen: Any, rejected: Any, xp: Any) -> Any:
    return -_log_sigmoid(loss.margin(chosen, rejected), xp)


def _hinge(loss: PairLoss, chosen: Any, rejected: Any, xp: Any) -> Any:
    short = 1 - loss.margin(chosen, rejected)
    return xp.maximum(short, 0 * short)


def _ipo(loss: PairLoss, chosen: Any, rejected: Any, xp: Any) -> Any:
    one, other = (_a_token(side, _ratio(side), xp) for side in (chosen, rejected))
    return (one - other - 1 / (2 * loss.beta)) ** 2


def _robust(loss: PairLoss, chosen: Any, rejected: Any, xp: Any) -> Any:
    margin, wrong = loss.margin(chosen, rejected), loss.label_smoothing
    right = (1 - wrong) * _log_sigmoid(margin, xp) - wrong * _log_sigmoid(-margin, xp)
    return -right / (1 - 2 * wrong)


def _orpo(loss: PairLoss, chosen: Any, rejected: Any, xp: Any) -> Any:
    one, other = (_a_token(side, side[:, LOG_PROBABILITY], xp) for side in (chosen, rejected))
    odds = _log_odds(one, xp) - _log_odds(other, xp)
    return -one - loss.beta * _log_sigmoid(odds, xp)


def _log_odds(logs: Any, xp: Any) -> Any:
    """Of a log-probability."""
    return logs - xp.log(xp.maximum(-xp.expm1(logs), 0 * logs + _LEAST))


_OF_PAIRS: Mapping[str, Callable[[PairLoss, Any, Any, Any], Any]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "orpo": _orpo,
}
