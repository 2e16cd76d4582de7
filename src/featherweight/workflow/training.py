"""What every process of a run does alike once its model is adapted: the frozen trunk's pass, and training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from featherweight.process.signals import Stop
from featherweight.records.answers import Evaluation
from featherweight.records.outcome import TrunkCache
from featherweight.records.training import TrainingResult
from featherweight.report.console import Console
from featherweight.workflow.preparing import Prepared, measure, trainer_for

if TYPE_CHECKING:
    from featherweight.engine.training.checkpoints import Checkpoint, Shared
    from featherweight.engine.training.forecast import Forecast
    from featherweight.engine.training.train import Trainer


def cache_trunk(prepared: Prepared, console: Console, stop: Stop) -> TrunkCache:
    """Keep the output of the frozen trunk below what trains, and from now on run the model above it alone."""
    assert prepared.adapted is not None
    prepared.execution.fleet.announce("trunk")
    model, kind = prepared.adapted.model, prepared.recipe.training.trunk_cache
    sequences = {name: one.flat for name, one in prepared.encodings.items()}
    return prepared.execution.fleet.first_here(
        lambda: prepared.execution.cache_trunk(model, sequences, prepared.base_identity, kind, console.observe, stop)
    )


def rehearse(prepared: Prepared) -> tuple[Trainer, Forecast]:
    """A few steps of training, to see what they take; the model is afterwards as it was."""
    from featherweight.engine.training.checkpoints import Shared
    from featherweight.engine.training.forecast import forecast

    assert prepared.adapted is not None
    prepared.execution.fleet.announce("rehearse")
    nowhere = Shared(prepared.execution.fleet, None)
    trainer = trainer_for(prepared, prepared.adapted.model, _never, nowhere, lambda event: None, lambda: False)
    return trainer, forecast(trainer)


def _never() -> Evaluation:
    raise AssertionError("a rehearsal evaluates nothing")


def train(
    prepared: Prepared,
    checkpoints: Shared,
    start: Checkpoint | None,
    observer: Callable[[dict[str, Any]], None],
    console: Console,
    stop: Stop,
    enough: Callable[[], bool] | None = None,
) -> tuple[TrainingResult, float]:
    """Train from ``start``, which is rank 0's to say, or from the beginning.

    Args:
        enough: is asked between steps whether to end; ``stop`` if None.

    Returns:
        What training gave, and the processor seconds that the other processes took.
    """
    assert prepared.adapted is not None
    model, fleet = prepared.adapted.model, prepared.execution.fleet
    before = time.process_time()

    def evaluate_now() -> Evaluation:
        return measure(prepared, model, "evaluating", console, stop)

    prepared.laid_steps = fleet.share(prepared.laid_steps)
    trainer = trainer_for(prepared, model, evaluate_now, checkpoints, observer, enough or stop)
    result = trainer.fit(checkpoints.share(start))
    used = fleet.others(lambda: json.dumps(time.process_time() - before).encode())
    return result, sum(map(json.loads, used))
