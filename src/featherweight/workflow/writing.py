"""What the models of a run write to the evaluated prompts, beside what cheaper rivals answer to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from featherweight.answers.text import TEXT, Text, all_said, as_bytes
from featherweight.answers.written import ANSWER, in_train
from featherweight.evidence.baselines.texts import drawn, lead, nearest
from featherweight.evidence.exhibits import MODELS, Writing
from featherweight.evidence.exhibits.written_answers import RANDOM
from featherweight.process.signals import Stop
from featherweight.records.answers import Answers
from featherweight.records.questions import Question
from featherweight.records.rows import Examples, Ragged
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.tasks import Writes
from featherweight.tasks.reading import continuing
from featherweight.tasks.reading.splits import sample
from featherweight.workflow import prompting
from featherweight.workflow.preparing import Prepared
from featherweight.workflow.rungs import keep

if TYPE_CHECKING:
    from featherweight.engine.running.generate import Sampling

WRITTEN = "{}-written"  # the model's name in predictions/
FEW_SHOT, NEAREST, LEAD = "few-shot", "nearest-prompt", "lead"
RIVALS = (RANDOM, NEAREST, LEAD, FEW_SHOT)
_WRITTEN = "ids"


def write_answers(
    prepared: Prepared, directory: RunDirectory, model: Any, name: str, console: Console, stop: Stop
) -> None:
    """Let the model answer the prompts, and keep what it writes; of the untuned model also with examples in the prompt,
    beside the nearest answer of train. Nothing where the recipe asks for none."""
    if not prepared.recipe.evaluation.generate:
        return
    asked = _Asked.of(prepared)
    _keep(prepared, directory, name, asked, _written(prepared, model, asked.questions, name, console, stop))
    if name != "base":
        return
    console.begin("looking for the nearest prompts")
    train = _task(prepared).to_write(prepared.examples["train"])
    prompts = [one.text for one in asked.questions]
    by_chance = drawn(_replies(prepared), len(prompts), prepared.recipe.training.seed)
    _copied(prepared, directory, RANDOM, asked, by_chance)
    _copied(prepared, directory, NEAREST, asked, nearest(((one.text, reply) for one, reply in train), prompts))
    if prompting.can_show(prepared):
        shown = prompting.with_examples(prepared, asked.questions)
        _keep(prepared, directory, FEW_SHOT, asked, _written(prepared, model, shown, FEW_SHOT, console, stop))
    else:
        _copied(prepared, directory, LEAD, asked, lead(_replies(prepared), prompts))


def written(prepared: Prepared, directory: RunDirectory) -> Writing | None:
    """What was kept of all that was written; None where nothing was."""
    split, recipe = prepared.evaluated_split, prepared.recipe
    if not recipe.evaluation.generate:
        return None
    kept = {
        name: directory.read_predictions(WRITTEN.format(name), split)
        for name in (*RIVALS, *MODELS)
        if directory.has_predictions(WRITTEN.format(name), split)
    }
    task, truth = _task(prepared), kept["base"].truth
    texts = {name: all_said(one.answers[TEXT]) for name, one in kept.items()} | {"truth": all_said(truth)}
    standing = in_train(_replies(prepared), texts)
    return Writing(
        _Asked.of(prepared).examples,
        truth,
        {name: one.answers for name, one in kept.items()},
        [*([ANSWER] if recipe.evaluation.answer_pattern else []), *task.written],
        recipe.evaluation.answer_pattern,
        standing,
    )


@dataclass(frozen=True)
class _Asked:
    """The rows whose prompts are answered.

    Attributes:
        replies: what they have themselves.
    """

    examples: Examples
    questions: Sequence[Question]
    replies: Sequence[str]

    @classmethod
    def of(cls, prepared: Prepared) -> _Asked:
        examples, recipe = prepared.examples[prepared.evaluated_split], prepared.recipe
        chosen = sample(examples, recipe.evaluation.max_generate_samples, recipe.data.split_seed)
        questions, replies = zip(*_task(prepared).to_write(chosen), strict=True)
        return cls(chosen, questions, replies)


def _written(
    prepared: Prepared, model: Any, questions: Sequence[Question], name: str, console: Console, stop: Stop
) -> Answers:
    """What the model writes."""
    from featherweight.engine.running.generate import room, spelt

    how, tokenizer = _how(prepared), prepared.tokenizer
    most, _ = room(model, how.max_new_tokens)
    cutting = replace(prepared.cutting, max_length=most or prepared.cutting.max_length)
    prompts = [list(one.ids) for one in prepared.task.tokenise(questions, tokenizer, cutting)]
    found = write_behind(prepared, model, prompts, f"writing the answers of the {name} model", console, stop)
    texts, stopped = spelt(found, continuing.ends(model, tokenizer), tokenizer, how)
    return Text.of_written(texts, [*map(len, found)], stopped)


def write_behind(
    prepared: Prepared, model: Any, prompts: list[list[int]], what: str, console: Console, stop: Stop
) -> list[list[int]]:
    """What the model writes behind each prompt, in batches of like length; ids."""
    from featherweight.engine import Watch
    from featherweight.engine.running.generate import TOKENS_TOGETHER, room, write
    from featherweight.engine.running.passes import Pass
    from featherweight.records.batching import by_tokens

    fleet, tokenizer = prepared.execution.fleet, prepared.tokenizer
    fleet.announce("write", prompts=prompts)
    how, equal = _how(prepared), prepared.execution.equal_lengths
    ends, (_, new) = continuing.ends(model, tokenizer), room(model, how.max_new_tokens)
    lengths = np.asarray([len(one) + new for one in prompts])
    found = Pass(fleet, Watch(what, console.observe, stop), len(prompts), f"stopped while {what}")
    with found, prepared.execution.answering(model):
        for rows in found.of(by_tokens(lengths, TOKENS_TOGETHER)):
            written = write(model, [prompts[row] for row in rows], ends, tokenizer, how, equal_lengths=equal)
            found.add(rows, {_WRITTEN: Ragged.of(written)})
    column = found.answers()[_WRITTEN]
    return [column.row(row).tolist() for row in range(len(prompts))]


def _how(prepared: Prepared) -> Sampling:
    from featherweight.engine.running.generate import Sampling

    asked = prepared.recipe.evaluation
    return Sampling(max_new_tokens=asked.max_new_tokens, num_beams=asked.num_beams)


def _copied(prepared: Prepared, directory: RunDirectory, name: str, asked: _Asked, texts: Sequence[str]) -> None:
    """Keep texts that nobody wrote."""
    _keep(prepared, directory, name, asked, Text.of_written(texts, [0] * len(texts), [True] * len(texts)))


def _keep(prepared: Prepared, directory: RunDirectory, name: str, asked: _Asked, answers: Answers) -> None:
    keep(prepared, directory, WRITTEN.format(name), asked.examples, answers, as_bytes(asked.replies))


def _replies(prepared: Prepared) -> Iterator[str]:
    """Those of train."""
    return (reply for _, reply in _task(prepared).to_write(prepared.examples["train"]))


def _task(prepared: Prepared) -> Writes:
    return cast(Writes, prepared.task)
