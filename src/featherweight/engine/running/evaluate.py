"""Measuring a model on one split."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from featherweight.answers import evaluation_of
from featherweight.engine import Observer, StopRequested, Task
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.finite import require_none_broken
from featherweight.errors import Interrupted
from featherweight.records.answers import Answers, Evaluation
from featherweight.records.batching import by_tokens
from featherweight.records.rows import Encoding


def evaluate(
    model: Any,
    task: Task,
    encoding: Encoding,
    *,
    execution: Execution,
    batch_size: int,
    what: str,
    observer: Observer,
    stop: StopRequested = lambda: False,
) -> Evaluation:
    """Run ``model`` over every row, in batches of like length, and return results in the order of the rows.

    Dropout is off; the model's training mode is put back afterwards.

    Args:
        batch_size: the recipe's, which ``eval_steps_per_second`` counts in; what is run together is chosen by tokens.
        what: names this evaluation in progress events.

    Raises:
        Interrupted: ``stop`` said so between two batches.
        DivergedError: answers are not finite, so that there is nothing to measure.
    """
    started = time.perf_counter()
    device = next(model.parameters()).device
    columns: dict[str, Any] = {}
    loss = 0.0
    done = broken = 0
    with execution.answering(model):
        for rows in by_tokens(encoding.lengths, execution.probe.token_budget):
            if stop():
                raise Interrupted("stopped while evaluating")
            logits = execution.logits(model, encoding, rows)
            for name, found in task.answers(logits).items():
                if name not in columns:
                    columns[name] = np.empty((len(encoding), *found.shape[1:]), dtype=found.dtype)
                columns[name][rows] = found
            labels = torch.from_numpy(encoding.labels[rows]).to(device)
            losses = task.losses(logits, labels).double()
            loss += float(losses.sum())
            broken += int((~losses.isfinite()).sum())
            done += len(rows)
            observer({"event": "evaluating", "what": what, "rows": done, "total": len(encoding)})
    require_none_broken(broken, len(encoding), what)
    seconds = time.perf_counter() - started
    return evaluation_of(task.answer, Answers(columns), encoding.labels, loss / len(encoding), seconds, batch_size)
