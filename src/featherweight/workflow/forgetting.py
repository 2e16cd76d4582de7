"""Whether tuning made a model forget: how likely texts are to it that have nothing to do with what it was tuned for."""

from __future__ import annotations

from typing import Any

from featherweight.answers.text import Text, as_bytes
from featherweight.evidence.exhibits import MODELS, Held
from featherweight.process.signals import Stop
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue, Learning
from featherweight.records.questions import Question
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.runs.predictions import Predictions
from featherweight.sources import general_texts
from featherweight.tasks.reading import continuing
from featherweight.workflow import prompting
from featherweight.workflow.preparing import Prepared
from featherweight.workflow.rungs import tokens_answered

SPLIT = "forgetting"  # after the model's name in predictions/


def measure_forgetting(
    prepared: Prepared, directory: RunDirectory, model: Any, name: str, console: Console, stop: Stop
) -> None:
    """Keep how likely the texts are to the model, where it is one that continues texts."""
    import numpy as np

    if not prompting.can_show(prepared):
        return
    texts = general_texts.read(prepared.recipe.evaluation.forgetting_file)
    asked = [Question(text, dialogue=Dialogue("", text)) for text in texts]
    cutting = Cutting(prepared.cutting.max_length)
    rows = continuing.encode(asked, prepared.tokenizer, cutting, Learning())
    what = f"measuring what the {name} model knows besides"
    answers = tokens_answered(prepared, model, rows, what, console, stop)
    kept = Predictions(np.arange(len(texts)), Text(), answers, as_bytes(texts))
    directory.write_predictions(name, SPLIT, kept)


def beside(directory: RunDirectory) -> Held | None:
    """What was kept of both models; None where nothing was measured."""
    if not directory.has_predictions("tuned", SPLIT):
        return None
    before, after = (directory.read_predictions(model, SPLIT) for model in MODELS)
    return Held(before.answers, after.answers, before.truth)
