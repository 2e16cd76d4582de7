"""What training is held to, where answers are compared: how likely the untuned model makes each of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from featherweight.process.signals import Stop
from featherweight.records.rows import Encoding
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.storage.cache import key_of
from featherweight.tasks import Compares
from featherweight.workflow.preparing import Prepared

_DIGITS = 16  # of a key, in a file's name


def refer(prepared: Prepared, directory: RunDirectory, console: Console, stop: Stop) -> None:
    """Give every split its reference, from the model as it is before a method changes it. Each is computed once and
    kept in the run's folder, under the name of what it depends on, where a resumed run finds it."""
    if not prepared.encodings["train"].compares or not cast(Compares, prepared.task).refers:
        return
    for split, encoding in prepared.encodings.items():
        key = key_of(prepared.base_identity, prepared.execution.precision, encoding.key)
        name = f"{split}-{key[:_DIGITS]}"
        known = directory.read_reference(name)
        if known is None or known.shape != (len(encoding.tokens),) or not np.isfinite(known).all():
            compute = partial(_computed, prepared, split, encoding, console, stop)
            known = prepared.once.made(("reference", name), compute)
            directory.write_reference(name, known)
        prepared.encodings[split] = replace(encoding, reference=known)


def _computed(prepared: Prepared, split: str, encoding: Encoding, console: Console, stop: Stop) -> NDArray[np.float32]:
    from featherweight.engine import Watch
    from featherweight.engine.running.evaluate import answers
    from featherweight.engine.running.finite import require_none_broken

    task = cast(Compares, prepared.task)
    watch = Watch(f"computing the reference of {split}", console.observe, stop)
    rows = np.arange(len(encoding))
    found = task.reference(
        answers(prepared.model, task.answer, encoding, rows, execution=prepared.execution, watch=watch)
    )
    require_none_broken(int((~np.isfinite(found)).sum()), len(found), watch.what)
    return found
