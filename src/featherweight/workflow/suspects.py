"""What leaving out the suspected label errors does: a cheap rival fitted with and without them, on the same rows."""

from __future__ import annotations

import json
from typing import cast

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import figures, interval
from featherweight.evidence.baselines import Probe, through
from featherweight.evidence.data.label_issues import Suspects
from featherweight.evidence.two_models import Pair, by_headline
from featherweight.process.signals import Stop
from featherweight.records.answers import Answers
from featherweight.records.outcome import DroppedSuspects, Figures
from featherweight.registry import BASELINES
from featherweight.report.console import Console
from featherweight.runs.directory import SUSPECTS, RunDirectory
from featherweight.workflow.preparing import WITH_SUSPECTS, Prepared
from featherweight.workflow.rungs import frozen_features, frozen_part


def list_suspects(prepared: Prepared, directory: RunDirectory) -> None:
    """Write down each row that was left out, where rows were to be."""
    if prepared.suspects is not None:
        rows = prepared.suspects.listed(prepared.task.answer)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        directory.write_text(directory.path / SUSPECTS, "".join(lines))


def without_suspects(prepared: Prepared, console: Console, stop: Stop) -> dict[str, DroppedSuspects]:
    """The kind's probe fitted on rows of train as they were and on what is left of them, paired on the evaluated split,
    as ``suspects``; empty where no row was left out. Of the tuned model only a second run could tell."""
    suspects = prepared.suspects
    if suspects is None or not suspects.found:
        return {}
    console.begin("measuring what the suspected labels do")
    kind, examples = prepared.task.answer, prepared.examples[prepared.evaluated_split]
    rows, pair = _fitted(prepared, suspects, console, stop)
    asked = examples.truth, prepared.groups_of(examples), prepared.recipe.training.seed

    def measured(answers: Answers) -> Figures:
        return cast(Figures, {**figures(kind, answers, examples.truth), **interval(kind, answers, examples.truth)})

    return {
        "suspects": {
            "looked_at": suspects.looked_at,
            "dropped": len(suspects.found),
            "baseline": kind.probe,
            "rows": rows,
            "fitted_with": measured(pair[0]),
            "fitted_without": measured(pair[1]),
            "comparison": by_headline(kind, pair, *asked),
        }
    }


def _fitted(prepared: Prepared, suspects: Suspects, console: Console, stop: Stop) -> tuple[int, Pair]:
    """How many rows of train the probe is fitted on, and what it then answers, with the suspects and without them."""
    kind, train = prepared.task.answer, suspects.train
    probe: type[Probe] = BASELINES[kind.probe]
    rows = probe.rows(train, kind)
    read = frozen_features(prepared, prepared.head, WITH_SUSPECTS, rows, console, stop)
    held_out = frozen_part(prepared, prepared.evaluated_split, console, stop).all_features()

    def fitted_on(chosen: NDArray[np.int64]) -> Answers:
        layer = probe.layer(read[chosen], train.truth[rows[chosen]], kind)
        return kind.of_outputs(through(held_out, *layer), {})

    return len(rows), (fitted_on(np.arange(len(rows))), fitted_on(np.flatnonzero(np.isin(rows, suspects.kept))))
