"""What training is held to, where answers are compared: how likely the untuned model makes each of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from featherweight.process.signals import Stop
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
            known = prepared.once.made(("reference", name), partial(reference, prepared, split, console, stop))
            directory.write_reference(name, known)
        prepared.execution.fleet.announce("hold", split=split, values=known.tolist())
        hold(prepared, split, known)


def hold(prepared: Prepared, split: str, reference: NDArray[np.float32]) -> None:
    """From now on the split has this reference."""
    prepared.encodings[split] = replace(prepared.encodings[split], reference=reference)


def reference(prepared: Prepared, split: str, console: Console, stop: Stop) -> NDArray[np.float32]:
    """Of a split, from the model as it is.

    Raises:
        DivergedError: it is not finite for some row.
    """
    from featherweight.engine import Watch
    from featherweight.engine.running.evaluate import answers
    from featherweight.engine.running.finite import require_none_broken

    prepared.execution.fleet.announce("reference", split=split)
    task, encoding = cast(Compares, prepared.task), prepared.encodings[split]
    watch = Watch(f"computing the reference of {split}", console.observe, stop)
    rows = np.arange(len(encoding))
    found = task.reference(
        answers(prepared.model, task.answer, encoding, rows, execution=prepared.execution, watch=watch)
    )
    require_none_broken(int((~np.isfinite(found)).sum()), len(found), watch.what)
    return found
