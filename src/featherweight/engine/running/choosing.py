"""Packed where that is proven on this very model, padded where it is not."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from featherweight.engine.fast.dropout import Masks
from featherweight.engine.running.attention import NAME, UnsupportedAttention
from featherweight.engine.running.packed import Packed, Plan
from featherweight.engine.running.padded import OUTSIDE, Padded
from featherweight.errors import ModelError
from featherweight.methods.peft import adapters
from featherweight.process.quiet import quiet
from featherweight.records.rows import Encoding
from featherweight.sources.trial_texts import (
    NO_FRAME,
    Frame,
    replies,
    width_step,
    with_kinds,
    with_reads,
    with_replies,
)

_TOLERANCE = 1e-4
_LONGEST_WINDOW_TRIED = 1024
_MOVE = 0.1  # by how much what trains is moved to be tried: enough to change a fresh head's small logits
_ALIKE = 1e-5  # of the largest logit: several times what rounding makes of rows of another size
_LONG = 769  # tokens; sparse attention begins at 704 where it begins late


@dataclass(frozen=True)
class Way:
    """How a model is run.

    Attributes:
        forward: packed, where that is proven.
        padded: how it is run where it is not.
        attention: its own, which padded batches have where packed ones are not proven.
    """

    forward: Padded | Packed
    padded: Padded
    attention: str


def choose(model: Any, pad_token_id: int, masks: Masks, frame: Frame = NO_FRAME, reads_tokens: bool = False) -> Way:
    """Packed if this very model then gives the logits that it gives padded; padded otherwise.

    The model is tried on a few texts of unlike length, longer than its sliding window where it has one, so an
    architecture that attends, counts positions or reads its tokens in a way that runs do not know can't go unnoticed.
    It is tried as it is asked: on texts whose reads are given where ``reads_tokens``, and on rows of two texts where it
    is told them apart.

    Raises:
        ModelError: the model can't read a text at all, or not at every token though ``reads_tokens``.
    """
    trial = trial_texts(model, frame, reads_tokens)
    with evaluating(model), torch.no_grad():
        step = width_step(model, frame, pad_token_id)
        shift = decoder_inputs(model) if replies(model) else None
        reads_at_end = model.config.is_encoder_decoder and shift is None
        end = getattr(model.config, "eos_token_id", None) if reads_at_end else None
        padded = Padded(pad_token_id, next(model.parameters()).device, "", step, end=end, shift=shift)
        trials = [_Trial.of(model, trial, padded)]
        attention = model.config._attn_implementation
        if says_it_takes_kinds(model):
            typed = replace(padded, takes_kinds=True)
            with suppress(Exception):  # then it does not: whatever its own code meets
                trials.append(_Trial.of(model, with_kinds(trial), typed))
                padded = typed
        reason = _unpackable(model)
        for plans in [] if reason else _plans(reads_tokens, padded.takes_kinds):
            tried = [_try(plan, model, pad_token_id, masks, trials) for plan in plans]
            # The nearest, and not any that will do: another token than the head reads may answer nearly alike.
            best = min(tried, key=lambda one: one.difference)
            if best.agrees:
                return Way(Packed(model, pad_token_id, best.plan, masks), padded, attention)
            reason = best.problem
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        padded = _as_alone(padded, model, frame, reads_tokens)
    padded = replace(padded, reason=f"{model.config.model_type}: {reason}")
    return Way(padded, padded, attention)


def adopted(way: Way, model: Any, exchange: Callable[[], None], frame: Frame, reads_tokens: bool) -> Way:
    """The same where it still answers alike with what a method put into the model; else padded.

    What trains begins where it changes nothing, so it is moved a little while it is tried.

    Args:
        model: PEFT's, of the very model that the way was chosen for.
        exchange: puts faster modules in place of the method's own; also tried.

    Raises:
        ModelError: the model does not run any more, or a faster module gives other answers than the one in whose place
            it is.
    """
    virtual = adapters.virtual_tokens(model)
    padded = replace(way.padded, virtual_tokens=virtual)
    texts = trial_texts(model, frame, reads_tokens)
    told = [texts, *([with_kinds(texts)] if padded.takes_kinds else [])]
    # What it warns of, such as embeddings of which some are padding, is tried here.
    with evaluating(model), torch.no_grad(), _moved(model), quiet("transformers"):
        try:
            trials = [_Trial.alone(model, one, padded) for one in told]
        except Exception as error:
            raise ModelError(
                f"{model.config.model_type}: with what the method put into the model it can't read a text ({error}); "
                "choose other options of the method, or another method.name"
            ) from error
        exchange()
        faster = [_Trial.alone(model, one, padded) for one in told]
        # Some models hash at random, and never answer alike.
        if not _alike(trials, faster) and _alike(faster, [_Trial.alone(model, one, padded) for one in told]):
            raise ModelError(
                f"{model.config.model_type}: a faster form of what the method put into the model gives other answers "
                "than its own; choose other options of the method"
            )
        if isinstance(way.forward, Packed):
            forward = way.forward
            tried = _tried(lambda: max(trial.difference(forward, model) for trial in trials), forward.plan)
            if tried.agrees:
                return way
            forward.remove()
            model.get_base_model().set_attn_implementation(way.attention)
            padded = replace(padded, reason=f"{model.config.model_type}, as it is tuned: {tried.problem}")
        if not padded.equal_lengths:
            padded = _as_alone(padded, model, frame, reads_tokens)
    return Way(padded, padded, way.attention)


def _alike(some: Sequence[_Trial], others: Sequence[_Trial]) -> bool:
    return all(one.apart(other.expected) <= 1 for one, other in zip(some, others, strict=True))


@contextmanager
def _moved(model: Any) -> Iterator[None]:
    """Within this context what trains stands a little beside where it begins."""
    trained = [value for value in model.parameters() if value.requires_grad]
    kept = [value.detach().clone() for value in trained]
    generator = torch.Generator().manual_seed(0)
    for value in trained:
        value.add_(_MOVE * torch.randn(value.shape, generator=generator).to(value))
    try:
        yield
    finally:
        for value, before in zip(trained, kept, strict=True):
            value.copy_(before)


def trial_texts(model: Any, frame: Frame = NO_FRAME, reads_tokens: bool = False) -> Encoding:
    """Random texts that tell: two of one length, one of a single token, one longer than any sliding window."""
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "local_attention", "window_size")]
    longest = max([9, *(window + 3 for window in windows if window and window <= _LONGEST_WINDOW_TRIED)])
    limit = (getattr(config, "max_position_embeddings", None) or longest) - adapters.virtual_tokens(model)
    lengths = np.minimum([5, longest, 1, 5, 3], max(limit - 2, 1)) if limit > 0 else [5, longest, 1, 5, 3]
    return _texts(model, frame, list(lengths), reads_tokens)


def _texts(model: Any, frame: Frame, lengths: Sequence[int], reads_tokens: bool) -> Encoding:
    texts = frame.texts(model, lengths)
    if replies(model):
        return with_replies(texts, model)
    return with_reads(texts) if reads_tokens else texts


def decoder_inputs(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes a decoder's inputs of what it is to give: the model's own, or what those without do in ``forward``."""
    own: Callable[[torch.Tensor], torch.Tensor] | None = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    return own or partial(_shifted, begin=model.config.decoder_start_token_id, pad=model.config.pad_token_id)


def _shifted(labels: torch.Tensor, begin: int, pad: int) -> torch.Tensor:
    first = labels.new_full((len(labels), 1), begin)
    return torch.cat([first, labels[:, :-1].masked_fill(labels[:, :-1] == OUTSIDE, pad)], dim=1)


def says_it_takes_kinds(model: Any) -> bool:
    """Models of RoBERTa's kind have the argument, but one type of token alone; on a GPU, to try another would take the
    device from the process."""
    accepted = inspect.signature(model.forward).parameters
    return "token_type_ids" in accepted and getattr(model.config, "type_vocab_size", None) != 1


def _unpackable(model: Any) -> str:
    """Why a model can't even be tried packed, in words for its user. Else it attends by
    :mod:`featherweight.engine.running.attention` from now on."""
    if model.config.is_encoder_decoder:
        return "its decoder reads every text anew, beside what the encoder made of it"
    if not hasattr(model, model.base_model_prefix):
        return "its head is part of the model that it stands on"
    if model._supports_attention_backend:
        with suppress(ValueError):  # it says yes, and then no
            model.set_attn_implementation(NAME)
            return ""
    return "its attention can't be exchanged"


def _plans(reads_tokens: bool, takes_kinds: bool) -> list[list[Plan]]:
    """The ways to run a model packed, the fastest first; those that stand together differ in what the head reads."""
    if reads_tokens:
        return [[Plan("given", short=False, takes_kinds=takes_kinds)]]
    return [[Plan("last", short, takes_kinds), Plan("first", short, takes_kinds)] for short in (True, False)]


@dataclass(frozen=True)
class _Trial:
    """Texts, and what the model gives for them padded; shape (reads, width)."""

    texts: Encoding
    expected: torch.Tensor

    @classmethod
    def of(cls, model: Any, texts: Encoding, padded: Padded) -> _Trial:
        return cls(texts, padded(model, texts, np.arange(len(texts))).values)

    @classmethod
    def alone(cls, model: Any, texts: Encoding, padded: Padded) -> _Trial:
        """With what the model gives for each text by itself."""
        return cls(texts, torch.cat([padded(model, texts, [row]).values for row in range(len(texts))]))

    def difference(self, forward: Padded | Packed, model: Any) -> float:
        """The greatest difference of a logit from what was expected, as a share of what may be rounding."""
        return self.apart(forward(model, self.texts, np.arange(len(self.texts))).values)

    def apart(self, found: torch.Tensor) -> float:
        tolerance = _TOLERANCE * max(1.0, float(self.expected.abs().max()))
        difference = float((found - self.expected).abs().max()) / tolerance
        return difference if math.isfinite(difference) else math.inf


@dataclass(frozen=True)
class _Tried:
    """A plan, how far it is from padded batches, and what is wrong with it if that is too far."""

    plan: Plan
    difference: float
    problem: str

    @property
    def agrees(self) -> bool:
        return self.difference <= 1


def _try(plan: Plan, model: Any, pad_token_id: int, masks: Masks, trials: Sequence[_Trial]) -> _Tried:
    """Run the model by a plan; it is left without hooks."""
    with ExitStack() as stack:

        def difference() -> float:
            packed = Packed(model, pad_token_id, plan, masks)
            stack.callback(packed.remove)
            return max(trial.difference(packed, model) for trial in trials)

        return _tried(difference, plan)


def _tried(difference: Callable[[], float], plan: Plan) -> _Tried:
    try:
        return _Tried(plan, difference(), "texts that share a row would change each other's answers")
    except UnsupportedAttention as error:
        return _Tried(plan, math.inf, str(error))
    except Exception:  # noqa: BLE001 - whatever the model's own code meets on a row that it was not made for
        return _Tried(plan, math.inf, "its own code relies on one text a row")


def _as_alone(padded: Padded, model: Any, frame: Frame, reads_tokens: bool) -> Padded:
    """Batches in which a text gets the answer that it gets alone: any, else those of equal lengths, else none.

    Architectures mix, pool, shift or transform over the whole row, padding included; some only in long rows.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _LONG
    limit -= adapters.virtual_tokens(model)
    mixed = ([5, 9, 1, 5, 3], [5, max(min(limit - 2, _LONG), 1)])
    if not any(_changes(padded, model, _texts(model, frame, lengths, reads_tokens)) for lengths in mixed):
        return padded
    if not _changes(padded, model, _texts(model, frame, [9, 9, 9], reads_tokens)):
        return replace(
            padded, equal_lengths=True, dependence="padding changes answers, so texts of one length run together"
        )
    return replace(padded, dependence="a text's answer changes with the texts beside it, and no batch prevents that")


def _changes(padded: Padded, model: Any, texts: Encoding) -> bool:
    """Whether one of the texts is answered in a batch with the others as it is not alone."""
    try:
        alone = torch.cat([padded(model, texts, [row]).values for row in range(len(texts))])
        together = padded(model, texts, np.arange(len(texts))).values
    except Exception:  # noqa: BLE001 - rows so long are none of this model's, whatever its own code then meets
        return False
    return not float((together - alone).abs().max()) <= _ALIKE * max(0.1, float(alone.abs().max()))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Within this context the model, and each module in it, is in evaluation mode."""
    before = {name: module.training for name, module in model.named_modules()}  # PEFT's is in training, its base not
    model.eval()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            module.training = before.get(name, before[""])  # by name: modules may have been exchanged
