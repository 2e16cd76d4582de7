"""Whether the processes of a fleet have the same rows, settings and model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from featherweight.engine.fleet import Fleet
    from featherweight.engine.running.execution import Execution

_TOLERANCE = 1e-3  # of the largest sum over a text's logits: many times what rounding makes on machines of two kinds


def require_same_facts(facts: Mapping[str, Any], fleet: Fleet) -> None:
    """Raises ConfigError that names each fact, which JSON can hold, in which a process differs from this one."""
    told = fleet.others(lambda: json.dumps(facts).encode())
    mine = json.loads(json.dumps(facts))
    for other in map(json.loads, told):
        if different := sorted(key for key in {*mine, *other} if mine.get(key) != other.get(key)):
            both = "; ".join(
                f"{key} is {mine.get(key)!r} in one and {other.get(key)!r} in another" for key in different
            )
            raise ConfigError(
                f"the processes would not make one run: {both}; give each the same recipe, data, model and versions"
            )


def require_same_answers(model: Any, execution: Execution) -> None:
    """Raises ConfigError where the model answers a few random texts otherwise in another process than rounding
    explains."""
    mine: list[float] = []

    def sketched() -> bytes:
        with execution.answering(model):
            mine.extend(_sketch(execution.trial_logits(model)))
        return json.dumps(mine).encode()

    for other in map(json.loads, execution.fleet.others(sketched)):
        apart = max(abs(one - two) for one, two in zip(mine, other, strict=True))
        if not apart <= _TOLERANCE * max(1.0, *map(abs, mine)):
            raise ConfigError(
                "the processes would not make one run: their models answer otherwise; give each the same model and "
                "versions, and machines of one kind"
            )


def share_trained(model: Any, execution: Execution) -> None:
    """Give what trains the numbers that it has in rank 0, which may have begun its head at what it fitted."""
    execution.fleet.share_values([value for value in model.parameters() if value.requires_grad])
    require_same_answers(model, execution)


def _sketch(logits: torch.Tensor) -> list[float]:
    """Two numbers for each text that tell logits apart without holding a vocabulary of them."""
    numbers = logits.double().flatten(1)
    slopes = numbers.new_tensor(range(numbers.shape[1])).add(1).sqrt()
    return [*numbers.norm(dim=1).tolist(), *(numbers * slopes).mean(dim=1).tolist()]
