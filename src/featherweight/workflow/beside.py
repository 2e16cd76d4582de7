"""What is measured of a model that writes texts beside its rows: what it forgot, and whether it heeds prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from featherweight.answers.text import Text, as_bytes
from featherweight.evidence.exhibits import Held
from featherweight.process.signals import Stop
from featherweight.records.answers import Answers
from featherweight.records.dialogues import Dialogue
from featherweight.records.questions import Question
from featherweight.records.rows import DIALOGUE
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.runs.predictions import Predictions
from featherweight.sources import general_texts
from featherweight.tasks import Writes
from featherweight.tasks.reading.splits import sample
from featherweight.workflow.preparing import Prepared
from featherweight.workflow.rungs import tokens_answered

# In predictions/, behind the name of the model.
GENERAL, OWN, OTHER = "forgetting", "own-prompt", "other-prompt"
_MOST_ROWS = 500  # whose prompts are swapped


def measure_beside(
    prepared: Prepared, directory: RunDirectory, model: Any, name: str, console: Console, stop: Stop
) -> None:
    """Keep how likely general texts are to the model, and, of the tuned one, replies behind other prompts."""
    if DIALOGUE not in prepared.examples["train"].texts.column_names:
        return
    if _kind(prepared).replying is None:  # else no text goes on, and nothing is foretold of one alone
        texts = general_texts.read(prepared.recipe.evaluation.forgetting_file)
        general = [Dialogue("", text) for text in texts]
        what = f"measuring what the {name} model knows besides"
        _keep(directory, name, GENERAL, general, _likely(prepared, model, general, what, console, stop))
    if name != "tuned" or not (swapped := _swapped(prepared)):
        return
    for which, dialogues in zip((OWN, OTHER), zip(*swapped, strict=True), strict=True):
        _keep(directory, name, which, dialogues, _likely(prepared, model, dialogues, "swapping prompts", console, stop))


def beside(directory: RunDirectory) -> Held | None:
    """What was kept of general texts by both models; None where nothing was."""
    return _held(directory, ("base", GENERAL), ("tuned", GENERAL))


def swapped(directory: RunDirectory) -> Held | None:
    """What was kept of replies behind other prompts and behind their own; None where nothing was."""
    return _held(directory, ("tuned", OTHER), ("tuned", OWN))


def _held(directory: RunDirectory, one: tuple[str, str], other: tuple[str, str]) -> Held | None:
    if not directory.has_predictions(*other):
        return None
    first, second = directory.read_predictions(*one), directory.read_predictions(*other)
    return Held(first.answers, second.answers, second.truth)


def _swapped(prepared: Prepared) -> list[tuple[Dialogue, Dialogue]]:
    """Rows by their last reply, behind their own prompt and behind that of another row; none where there are no two
    prompts."""
    examples = prepared.examples[prepared.evaluated_split]
    chosen = sample(examples, _MOST_ROWS, prepared.recipe.data.split_seed)
    rows = [(question.dialogue, reply) for question, reply in cast(Writes, prepared.task).to_write(chosen)]
    prompts = [one for one, _ in rows if one is not None and one.asked]
    if len(set(prompts)) < 2 or len(prompts) < len(rows):
        return []
    order = np.random.default_rng(prepared.recipe.data.split_seed).permutation(len(rows))
    taken = np.empty_like(order)
    taken[order] = np.roll(order, 1)
    return [
        (prompts[row].answered_by(reply), prompts[taken[row]].answered_by(reply)) for row, (_, reply) in enumerate(rows)
    ]


def _likely(
    prepared: Prepared, model: Any, dialogues: Sequence[Dialogue], what: str, console: Console, stop: Stop
) -> Answers:
    """How likely what stands behind each prompt is to the model."""
    from featherweight.engine import Watch

    asked = [Question(one.asked or one.answered, dialogue=one) for one in dialogues]
    task = cast(Writes, prepared.task).replies()
    rows = task.tokenise(asked, prepared.tokenizer, prepared.cutting)
    return tokens_answered(prepared, model, task.answer, rows, Watch(what, console.observe, stop))


def _kind(prepared: Prepared) -> Text:
    return cast(Text, prepared.task.answer)


def _keep(directory: RunDirectory, name: str, which: str, dialogues: Sequence[Dialogue], answers: Answers) -> None:
    truth = as_bytes([one.answered for one in dialogues])
    directory.write_predictions(name, which, Predictions(np.arange(len(dialogues)), Text(), answers, truth))
