"""Measuring a model on one split."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.answers import Answer, evaluation_of
from featherweight.engine import NOBODY, Task, Watch
from featherweight.engine.running.batches import targets_of
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.finite import require_none_broken
from featherweight.engine.running.passes import Pass
from featherweight.records.answers import Answers, Evaluation
from featherweight.records.batching import by_tokens
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding


def evaluate(
    model: Any,
    task: Task,
    encoding: Encoding,
    *,
    execution: Execution,
    batch_size: int,
    watch: Watch,
    also: str | None = None,
) -> Evaluation:
    """Run ``model`` over every row, in batches of like length, and return results in the order of the rows.

    Dropout is off; the model's training mode is put back afterwards.

    Args:
        also: a statistic to measure though evaluations leave it out, by its name with or without ``eval_``.
        batch_size: the recipe's, which ``eval_steps_per_second`` counts in; what is run together is chosen by tokens.

    Raises:
        Interrupted: a stop was asked for between two batches.
        DivergedError: answers are not finite, so that there is nothing to measure.
    """
    started = time.perf_counter()
    device = next(model.parameters()).device
    found = Pass(execution.fleet, watch, len(encoding), "stopped while evaluating")
    ragged = encoding.reads is not None
    with found, execution.answering(model):
        for rows in found.of(by_tokens(encoding.lengths, execution.probe.token_budget)):
            outputs = execution.outputs(model, encoding, rows)
            columns = task.answer.of_outputs(outputs.column(ragged), {}).columns
            of_batch = float(task.loss(outputs, targets_of(encoding, rows, device)))
            found.add(rows, columns, of_batch, max(_broken(outputs), int(not math.isfinite(of_batch))))
    loss = broken = 0.0
    for of_batch, of_rows in found.figures():
        loss += of_batch
        broken += of_rows
    require_none_broken(int(broken), len(encoding), watch.what)
    seconds = time.perf_counter() - started
    loss /= encoding.items(np.arange(len(encoding)))
    return evaluation_of(task.answer, found.answers(), encoding.targets, loss, seconds, batch_size, also)


def answers(
    model: Any,
    kind: Answer,
    encoding: Encoding,
    rows: NDArray[np.int64],
    *,
    execution: Execution,
    watch: Watch = NOBODY,
) -> Answers:
    """The model's answers to these rows, in their order, whose truth nobody may know.

    Raises:
        Interrupted: a stop was asked for between two batches.
    """
    found = Pass(execution.fleet, watch, len(rows), f"stopped while {watch.what}")
    with found, execution.answering(model):
        for chosen in found.of(by_tokens(encoding.lengths[rows], execution.probe.token_budget)):
            outputs = execution.outputs(model, encoding, rows[chosen])
            found.add(chosen, kind.of_outputs(outputs.column(encoding.reads is not None), {}).columns)
    return found.answers()


def _broken(outputs: Outputs) -> int:
    """How many rows have an output that is not finite."""
    reads = (~outputs.values.isfinite().flatten(1).all(dim=1)).nonzero().flatten().cpu()
    return len(np.unique(torch.bucketize(reads, outputs.ends, right=True).numpy()))
