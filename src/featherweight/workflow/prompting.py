"""Examples of train in the prompt: what the untuned model can do without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featherweight.evidence.baselines.texts import FewShot
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Examples
from featherweight.workflow.preparing import Prepared

_MOST_TOKENS = 4096  # of a prompt with examples, where the model has positions for more


def can_show(prepared: Prepared) -> bool:
    """Whether the rows are dialogues, before which others can stand."""
    return FewShot.applies(prepared.examples["train"], prepared.task.answer)


def with_examples(prepared: Prepared, questions: Sequence[Question]) -> list[Question]:
    """The questions with ``evaluation.few_shot`` rows of train before each, the same for all; fewer of them where the
    model has no room for more."""
    reserved = prepared.recipe.evaluation.max_new_tokens
    fitting = _fitting(prepared, questions, reserved)
    return [_behind(one, shown) for one, (_, shown) in zip(questions, fitting, strict=True)]


def rows_with_examples(prepared: Prepared, examples: Examples) -> list[Tokens]:
    """The rows of a split as their model sees them behind examples; what is read is read as without them."""
    return [tokens for tokens, _ in _fitting(prepared, list(examples.questions()))]


def _fitting(
    prepared: Prepared, questions: Sequence[Question], reserved: int = 0
) -> list[tuple[Tokens, Sequence[Dialogue]]]:
    """Each question with as many examples as fit before it, of which it then is the tokens.

    Args:
        reserved: tokens that have to find room behind it.
    """
    plain = prepared.task.tokenise(questions, prepared.tokenizer, prepared.cutting)
    found: list[tuple[Tokens, Sequence[Dialogue]]] = [(one, ()) for one in plain]
    open_ones = [row for row, one in enumerate(plain) if one.lost == 0]  # what is cut is answered as it is elsewhere
    shots, cutting = _shots(prepared), Cutting(max(_room(prepared) - reserved, 1))
    for count in range(len(shots), 0, -1):
        asked = [_behind(questions[row], shots[:count]) for row in open_ones]
        rows = prepared.task.tokenise(asked, prepared.tokenizer, cutting)
        for row, one in zip(open_ones, rows, strict=True):
            if one.lost == 0:
                found[row] = one, shots[:count]
        open_ones = [row for row, one in zip(open_ones, rows, strict=True) if one.lost]
    return found


def _behind(question: Question, shots: Sequence[Dialogue]) -> Question:
    assert question.dialogue is not None
    return replace(question, dialogue=question.dialogue.behind(shots))


def _shots(prepared: Prepared) -> list[Dialogue]:
    """So many rows of train, drawn by the seed that chooses what is measured."""
    train, recipe = prepared.examples["train"], prepared.recipe
    rows = np.random.default_rng(recipe.data.split_seed).choice(
        len(train), size=min(recipe.evaluation.few_shot, len(train)), replace=False
    )
    return [one.dialogue for one in train.select(np.sort(rows)).questions() if one.dialogue is not None]


def _room(prepared: Prepared) -> int:
    """Tokens of a row with its examples."""
    positions = getattr(prepared.model.config.get_text_config(), "max_position_embeddings", None) or _MOST_TOKENS
    wanted = (prepared.recipe.evaluation.few_shot + 1) * prepared.cutting.max_length
    return int(min(positions, _MOST_TOKENS, wanted))
