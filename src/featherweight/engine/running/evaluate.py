"""Measuring a model on one split."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.answers import Answer, evaluation_of
from featherweight.engine import Task, Watch
from featherweight.engine.running.batches import targets_of
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.finite import require_none_broken
from featherweight.errors import Interrupted
from featherweight.records.answers import Answers, Evaluation
from featherweight.records.batching import by_tokens
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Column, Encoding, Ragged


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
    kept = Kept(len(encoding))
    loss = 0.0
    done = broken = 0
    ragged = encoding.reads is not None
    with execution.answering(model):
        for rows in by_tokens(encoding.lengths, execution.probe.token_budget):
            if watch.stop():
                raise Interrupted("stopped while evaluating")
            outputs = execution.outputs(model, encoding, rows)
            kept.add(rows, task.answer.of_outputs(outputs.column(ragged), {}).columns)
            of_batch = float(task.loss(outputs, targets_of(encoding, rows, device)))
            broken += max(_broken(outputs), int(not math.isfinite(of_batch)))
            loss += of_batch
            done += len(rows)
            watch.tell(done, len(encoding))
    require_none_broken(broken, len(encoding), watch.what)
    seconds = time.perf_counter() - started
    loss /= encoding.items(np.arange(len(encoding)))
    return evaluation_of(task.answer, kept.answers(), encoding.targets, loss, seconds, batch_size, also)


def answers(
    model: Any,
    kind: Answer,
    encoding: Encoding,
    rows: NDArray[np.int64],
    *,
    execution: Execution,
    watch: Watch | None = None,
) -> Answers:
    """The model's answers to these rows, in their order, whose truth nobody may know.

    Raises:
        Interrupted: a stop was asked for between two batches.
    """
    kept, done = Kept(len(rows)), 0
    with execution.answering(model):
        for chosen in by_tokens(encoding.lengths[rows], execution.probe.token_budget):
            if watch is not None and watch.stop():
                raise Interrupted(f"stopped while {watch.what}")
            outputs = execution.outputs(model, encoding, rows[chosen])
            kept.add(chosen, kind.of_outputs(outputs.column(encoding.reads is not None), {}).columns)
            done += len(chosen)
            if watch is not None:
                watch.tell(done, len(rows))
    return kept.answers()


class Kept:
    """What is kept of rows that are answered batch by batch, put together in the order of the rows.

    Args:
        rows: how many there are in all.
    """

    def __init__(self, rows: int) -> None:
        self._total = rows
        self._dense: dict[str, NDArray[Any]] = {}
        self._ragged: dict[str, list[tuple[NDArray[np.int64], Ragged]]] = {}

    def add(self, rows: NDArray[np.int64], answers: Mapping[str, Column]) -> None:
        """Keep the answers of these rows, which are in their order."""
        for name, column in answers.items():
            if isinstance(column, Ragged):
                self._ragged.setdefault(name, []).append((rows, column))
            else:
                if name not in self._dense:
                    self._dense[name] = np.empty((self._total, *column.shape[1:]), dtype=column.dtype)
                self._dense[name][rows] = column

    def answers(self) -> Answers:
        """Every column, now that all rows are answered."""
        found: dict[str, Column] = {**self._dense}
        for name, batches in self._ragged.items():
            rows, parts = zip(*batches, strict=True)
            found[name] = Ragged.joined(parts)[np.argsort(np.concatenate(rows))]
        return Answers(found)


def _broken(outputs: Outputs) -> int:
    """How many rows have an output that is not finite."""
    reads = (~outputs.values.isfinite().flatten(1).all(dim=1)).nonzero().flatten().cpu()
    return len(np.unique(torch.bucketize(reads, outputs.ends, right=True).numpy()))
