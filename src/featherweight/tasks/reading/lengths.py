"""How many tokens a model can hold: what its files say is a claim, one forward pass is the proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError, DataError
from featherweight.records.cutting import LONGEST, LONGEST_REPLY, Cutting
from featherweight.sources.trial_texts import Frame, problem_with, replies, row_of, width_step

if TYPE_CHECKING:
    from featherweight.records.rows import Encoding, Examples
    from featherweight.tasks import Task

_NO_LIMIT = 1_000_000  # tokenizers without one say 10^30


def usable(
    tokenizer: Any,
    model: Any,
    configured: int | None,
    longest: int = LONGEST,
    *,
    tried: bool = False,
    reserved: int = 0,
) -> tuple[int, str | None]:
    """Tokens after which texts are cut, and the reason where that was chosen here.

    Args:
        model: on the processor, where a position that it does not have is an error and no crash.
        configured: what the recipe says.
        longest: what is taken where it says nothing.
        tried: it is a run that says so, which has tried it.
        reserved: tokens that a method puts before every text, which take room beside it.

    Raises:
        ConfigError: more tokens than the model can hold.
        DataError: so few that no token of any text is left.
        ModelError: the model can't read a text of any length.
    """
    frame = Frame.of(tokenizer)
    if configured is not None and configured <= len(frame):
        raise DataError(
            f"data.max_length: {configured} leaves no token of any text beside the model's {len(frame)} special "
            "ones; raise it"
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    claims = [tokenizer.model_max_length, positions and positions - reserved]
    claimed = min((one for one in claims if one is not None and 1 <= one < _NO_LIMIT), default=None)
    wanted = configured or min(longest, claimed or longest)
    holds = min(wanted, claimed or wanted)
    if not tried:
        holds = _longest(model, frame, tokenizer.pad_token_id, holds + reserved) - reserved
    if configured is None:
        what = "or what the model can hold if that is less"
        return holds, f"chosen automatically: {longest}, {what}{', found by trial' if holds < wanted else ''}"
    if configured > holds:
        raise ConfigError(f"data.max_length: {configured} is more than the {holds} tokens that the model can hold")
    return configured, None


def require_room(cutting: Cutting, tokenizer: Any) -> Cutting:
    """The same, where windows move on from one to the next. Raises ConfigError where they would not."""
    room = cutting.max_length - len(Frame.of(tokenizer))
    if cutting.makes_windows and cutting.stride >= room:
        raise ConfigError(
            f"data.stride: windows of {room} tokens of a text can't share {cutting.stride}; lower it, or raise "
            "data.max_length"
        )
    return cutting


def with_reply(cutting: Cutting, tokenizer: Any, model: Any, *, tried: bool = False) -> Cutting:
    """The same with how long a reply may be, where the model has a decoder that writes one.

    Args:
        model: on the processor, as above.
        tried: it is a run that says so, which has tried it.

    Raises:
        ConfigError: more tokens than the decoder can hold.
        DataError: so few that no token of any reply is left.
    """
    if tried or not replies(model):
        return cutting
    configured, frame = cutting.max_target_length, _frame_of_replies(tokenizer)
    if configured is not None and configured <= frame:
        raise DataError(
            f"data.max_target_length: {configured} leaves no token of any text beside the model's {frame} special "
            "ones; raise it"
        )
    wanted = configured or LONGEST_REPLY
    row = row_of(model, Frame.of(tokenizer), 1, tokenizer.pad_token_id, 1)
    holds = _most(lambda length: problem_with(model, *row, reply=length) is None, frame + 1, wanted)
    if configured is not None and configured > holds:
        raise ConfigError(
            f"data.max_target_length: {configured} is more than the {holds} tokens that the model's decoder can hold"
        )
    return replace(cutting, max_target_length=holds)


def _frame_of_replies(tokenizer: Any) -> int:
    """How many special tokens a reply has."""
    return sum(tokenizer(text_target="a", return_special_tokens_mask=True)["special_tokens_mask"])


def encoded(task: Task, examples: Examples, tokenizer: Any, cutting: Cutting) -> tuple[Examples, Encoding]:
    """One split as the engine sees it, and its rows, without those of which nothing is left to compare.

    Raises:
        DataError: nothing is left of any.
    """
    encoding = task.encode(examples, tokenizer, cutting)
    kept = encoding.with_something_left()
    if len(kept) == len(examples):
        return examples, encoding
    if len(kept) == 0:
        raise DataError(
            f"{examples.origin}: of no row anything of both answers is left within {cutting.max_length} tokens; raise "
            "data.max_length"
        )
    left = examples.select(kept, dropped=examples.dropped + len(examples) - len(kept))
    return left, task.encode(left, tokenizer, cutting)


def _longest(model: Any, frame: Frame, pad_token_id: int, most: int) -> int:
    """The most tokens, up to ``most``, of a text that the model reads without an error."""
    step = width_step(model, frame, pad_token_id)
    return _most(
        lambda length: problem_with(model, *row_of(model, frame, length, pad_token_id, step)) is None,
        len(frame) + 1,
        most,
    )


def _most(works: Callable[[int], bool], least: int, most: int) -> int:
    """The greatest length up to ``most`` that works, as ``least`` does."""
    good, bad = least, most + 1
    tried = most  # first, since most models hold it
    while bad - good > 1:
        if works(tried):
            good = tried
        else:
            bad = tried
        tried = (good + bad) // 2
    return good
