"""The rungs of the ladder: each cheap rival and each state of the model, on every split that is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.evidence.assess import with_interval
from featherweight.evidence.baselines import Part
from featherweight.records import Evaluation
from featherweight.registry import BASELINES, METRICS
from featherweight.report.console import Console
from featherweight.runs import RunDirectory
from featherweight.signals import Stop
from featherweight.workflow.preparing import Prepared, measure


def measure_baselines(
    prepared: Prepared, directory: RunDirectory, console: Console, stop: Stop
) -> dict[str, dict[str, Any]]:
    """Fit each baseline on train, let it answer, and keep its answers.

    Returns:
        Baseline to its metrics on the evaluated split, with the ``cost`` of fitting it and answering.
    """
    from featherweight.engine.cost import Meter

    splits = dict.fromkeys(["train", *prepared.measured_splits])
    parts = {split: frozen_part(prepared, split, console, stop) for split in splits}
    found = {}
    for name in BASELINES:
        console.begin(f"measuring the baseline {name}")
        with Meter() as meter:
            baseline = BASELINES[name]()
            baseline.fit(parts["train"], len(prepared.task.labels))
            answers = {split: baseline.predict(parts[split]) for split in prepared.measured_splits}
        for split, probabilities in answers.items():
            examples = prepared.examples[split]
            measured = {f"eval_{one}": METRICS[one](probabilities, examples.labels) for one in prepared.task.metrics}
            _keep(prepared, directory, name, split, Evaluation(measured, probabilities, examples.labels))
            # The evaluated split is the last.
            found[name] = {**with_interval(measured, len(examples)), "runtime": meter.seconds, "cost": meter.cost()}
    return found


def measure_model(
    prepared: Prepared, directory: RunDirectory, model: Any, name: str, console: Console, stop: Stop
) -> dict[str, Evaluation]:
    """Run the model over every measured split and keep its answers as those of ``name``."""
    found = {}
    for split in prepared.measured_splits:
        found[split] = measure(prepared, model, f"evaluating the {name} model", console, stop, split)
        _keep(prepared, directory, name, split, found[split])
    return found


def frozen_part(prepared: Prepared, split: str, console: Console, stop: Stop) -> Part:
    """A split whose frozen features are there for the asking. The model must not have been adapted yet."""
    from featherweight.engine.features import features

    def compute(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return features(
            prepared.model,
            prepared.head,
            prepared.encodings[split],
            rows,
            execution=prepared.execution,
            what=f"reading the frozen features of {split}",
            observer=console.observe,
            stop=stop,
        )

    return Part(prepared.examples[split], compute)


def _keep(prepared: Prepared, directory: RunDirectory, name: str, split: str, evaluation: Evaluation) -> None:
    directory.write_predictions(
        name, prepared.examples[split], evaluation, prepared.task.labels, prepared.recipe.data.group
    )
