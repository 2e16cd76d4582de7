"""All evidence about one run's tuned model, from predictions: what goes into ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.metrics import OF_COUNTS, count
from featherweight.evidence import calibration, slices
from featherweight.evidence.paired import by_accuracy, by_every_statistic
from featherweight.records.rows import Examples
from featherweight.statistics.proportions import wilson

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Fitting:
    """Rows to fit temperatures on that are not reported on: both models' probabilities, (rows, classes), and labels."""

    base: Probabilities
    tuned: Probabilities
    labels: NDArray[np.int64]


def assess(
    examples: Examples,
    names: Sequence[str],
    base: Probabilities,
    tuned: Probabilities,
    baselines: Mapping[str, Probabilities],
    *,
    fitting: Fitting | None = None,
    twins: NDArray[np.bool_],
    shared_groups: NDArray[np.bool_] | None = None,
    slice_columns: Sequence[str] = (),
    keywords: Sequence[str] = (),
    group_column: str | None = None,
    seed: int,
) -> dict[str, Any]:
    """Compare, calibrate, slice.

    Args:
        examples: the rows that were measured.
        names: of the classes.
        base: probabilities of the untuned model; shape (rows, classes).
        tuned: of the tuned model.
        baselines: of each cheap rival.
        fitting: rows of another split to fit temperatures on; a half of these rows if None.
        twins: rows that have a twin in train; shape (rows,).
        shared_groups: rows whose group has rows in train; shape (rows,); None where rows have no groups.
        slice_columns: of ``examples``.
        keywords: words, each a slice of the rows that hold it.
        group_column: rows with the same value are not independent.

    Returns:
        ``comparison``, ``paired``, ``rungs``, ``calibration``, ``where``, ``without_twins``, ``examples``,
        ``text_to_try`` and, where rows have groups, ``without_shared_groups``.
    """
    labels = examples.labels
    groups = examples.groups(group_column) if group_column else None
    columns = {name: examples.column(name) for name in slice_columns}
    texts = slices.read_texts(examples.all_texts(), len(examples), keywords)
    return {
        "comparison": by_accuracy(base, tuned, labels, groups, seed),
        "paired": by_every_statistic(base, tuned, labels, groups, seed),
        "rungs": {name: by_accuracy(rung, tuned, labels, groups, seed) for name, rung in baselines.items()},
        "calibration": {
            "base": _calibrate(base, labels, (fitting.base, fitting.labels) if fitting else None, groups, seed),
            "tuned": _calibrate(tuned, labels, (fitting.tuned, fitting.labels) if fitting else None, groups, seed),
        },
        "where": {
            "slices": slices.slices(base, tuned, labels, names, texts, columns),
            **slices.confusions({"base": base, "tuned": tuned}, labels),
        },
        "without_twins": _without(base, tuned, labels, twins, groups, seed),
        "examples": slices.changed_examples(examples, base, tuned, names),
        "text_to_try": slices.text_to_try(examples.all_texts()),
        **(
            {"without_shared_groups": _without(base, tuned, labels, shared_groups, groups, seed)}
            if shared_groups is not None
            else {}
        ),
    }


def with_interval(metrics: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The same metrics with Wilson's interval for the accuracy."""
    return {**metrics, "eval_accuracy_interval": list(wilson(round(metrics["eval_accuracy"] * rows), rows))}


def _calibrate(
    probabilities: Probabilities,
    labels: NDArray[np.int64],
    fitting: tuple[Probabilities, NDArray[np.int64]] | None,
    groups: Sequence[str | None] | None,
    seed: int,
) -> dict[str, Any]:
    if fitting is None:
        return calibration.calibrate(probabilities, labels, seed, groups)
    return calibration.fit_and_report(*fitting, probabilities, labels)


def _without(
    base: Probabilities,
    tuned: Probabilities,
    labels: NDArray[np.int64],
    known: NDArray[np.bool_],
    groups: Sequence[str | None] | None,
    seed: int,
) -> dict[str, Any]:
    """The metrics again on the rows that are not known from train."""
    clean = np.flatnonzero(~known)
    if len(clean) == 0:
        return {"rows": 0}

    def measure(probabilities: Probabilities) -> dict[str, Any]:
        counts = count(probabilities[clean], labels[clean])
        return with_interval({f"eval_{name}": float(of(counts)) for name, of in OF_COUNTS.items()}, len(clean))

    kept = [groups[int(row)] for row in clean] if groups is not None else None
    return {
        "rows": len(clean),
        "base": measure(base),
        "tuned": measure(tuned),
        "comparison": by_accuracy(base[clean], tuned[clean], labels[clean], kept, seed),
    }
