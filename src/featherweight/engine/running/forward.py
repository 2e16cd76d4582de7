"""From rows to logits: packed where that is proven on this very model, padded where it is not.

A packed batch is one row of tokens, text after text, without padding. The model's own code runs on it unchanged:
attention goes through :mod:`featherweight.engine.running.attention`, hooks hand the trunk its tokens and positions, and
give the head the one token of each text that it reads.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine.fast.dropout import Masks
from featherweight.engine.running.attention import NAME, Run, UnsupportedAttention, packed
from featherweight.engine.running.batches import collate
from featherweight.records.batching import of_equal
from featherweight.records.rows import Encoding
from featherweight.sources.trial_texts import NO_FRAME, Frame, width_step

_TOLERANCE = 1e-4
_LONGEST_WINDOW_TRIED = 1024
_ALIKE = 1e-5  # of the largest logit: several times what rounding makes of rows of another size
_LONG = 769  # tokens; sparse attention begins at 704 where it begins late


class Forward(Protocol):
    """Runs a model on rows."""

    def __call__(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """Logits of the rows, in their order; shape (rows, classes)."""
        ...

    def groups(self, encoding: Encoding, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Which of ``rows`` may run together, as places in it."""
        ...


@dataclass(frozen=True)
class Padded:
    """Rows padded on the right to the longest: what every architecture can do.

    Attributes:
        reason: why rows are not packed.
        step: rows are padded to a multiple of it.
        equal_lengths: padding would change the answers, so only rows of equal length run together.
        end: the token whose last place the head reads, where rows that run together must have equally many of it; a
            text may spell it. None where it does not matter.
        dependence: what of a text's answer depends on the batch that it is in, in words; empty where nothing does.
    """

    pad_token_id: int
    device: torch.device
    reason: str
    step: int = 1
    equal_lengths: bool = False
    end: int | None = None
    dependence: str = ""

    def groups(self, encoding: Encoding, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        together = [np.arange(len(rows))]
        if self.equal_lengths:
            together = of_equal(encoding.offsets[rows + 1] - encoding.offsets[rows])
        if self.end is not None:
            ends = np.asarray([np.count_nonzero(encoding.row(int(row)) == self.end) for row in rows])
            together = [places[part] for places in together for part in of_equal(ends[places])]
        return together

    def __call__(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        rows = np.asarray(rows, dtype=np.int64)
        groups = self.groups(encoding, rows)
        logits = [self._together(model, encoding, rows[group]) for group in groups]
        if len(logits) == 1:
            return logits[0]
        places = torch.from_numpy(np.argsort(np.concatenate(groups))).to(self.device)
        return torch.cat(logits)[places]

    def _together(self, model: Any, encoding: Encoding, rows: NDArray[np.int64]) -> torch.Tensor:
        batch = collate(encoding, rows, self.pad_token_id, self.device, self.step)
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits  # type: ignore[no-any-return]


class Packed:
    """Rows end to end, for a model whose trunk carries our hooks.

    Args:
        model: a transformers model with a head.
        reads: which token of each text the head reads, ``first`` or ``last``.
        short: whether in the last block those tokens alone attend and pass through the feed-forward part; nobody
            reads what it would make of the others.
        masks: dropout masks for attention.
    """

    sizes: ClassVar[int] = 16  # a power of 2

    def __init__(self, model: Any, pad_token_id: int, reads: str, short: bool, masks: Masks) -> None:
        self.trunk = getattr(model, model.base_model_prefix)
        self.pad_token_id = pad_token_id
        self.reads = reads
        self.masks = masks
        self.device = next(model.parameters()).device
        self.first_position = _first_position(self.trunk)
        accepted = inspect.signature(self.trunk.forward).parameters
        self.fixed: dict[str, Any] = {"attention_mask": None}
        if "use_cache" in accepted:
            self.fixed["use_cache"] = False
        self._current: ContextVar[_Batch | None] = ContextVar("batch", default=None)  # each thread has its own
        self.short = short
        self.last: frozenset[Any] = frozenset()
        ends = None
        if short:
            block = block_list(self.trunk)[-1]
            self.last, ends = frozenset(block.modules()), feed_forward(block)
        pooler = getattr(self.trunk, "pooler", None)  # which reads too, behind the trunk's encoder or within the trunk
        layers = getattr(self.trunk, "encoder", self.trunk)
        self._hooks = [
            self.trunk.register_forward_pre_hook(self._give_tokens, with_kwargs=True),
            layers.register_forward_hook(self._take_read_tokens),
        ]
        if pooler is not None and layers is self.trunk:
            self._hooks.append(pooler.register_forward_pre_hook(self._give_read_tokens))
        if ends is not None:
            first, last = ends
            self._hooks += [
                first.register_forward_pre_hook(self._leave_unread),
                last.register_forward_hook(self._fill_unread),
            ]

    @staticmethod
    def groups(encoding: Encoding, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [np.arange(len(rows))]

    def __call__(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        batch = self._pack(encoding, np.asarray(rows, dtype=np.int64))
        token = self._current.set(batch)
        try:
            with packed(batch.runs, self.masks, batch.read[: len(rows)], self.last):
                # The head sees one token a text: the trunk's hooks put the real ones in and take the read ones out.
                logits = model(input_ids=batch.input_ids[0, batch.read].unsqueeze(1)).logits
        finally:
            self._current.reset(token)
        return logits[batch.restore]  # type: ignore[no-any-return]

    @staticmethod
    def order(encoding: Encoding, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in ``rows`` the texts of the packed row stand: the longest first, so that equals are neighbours."""
        return np.argsort(encoding.offsets[rows] - encoding.offsets[rows + 1], kind="stable")

    @classmethod
    def filler(cls, tokens: int) -> int:
        """How many tokens that nobody reads are put behind a packed row of ``tokens``, as texts of their own.

        oneDNN compiles a product anew for each number of rows, and keeps what it compiled, 0.6 MB. So rows come in few
        sizes, :attr:`sizes` from one power of 2 to the next.
        """
        grain = 1 << max(tokens.bit_length() - cls.sizes.bit_length(), 0)
        return -tokens % grain

    @classmethod
    def more_reads(cls, texts: int, tokens: int) -> int:
        """How many more tokens are read than there are ``texts``, for the same reason; none where a layer could not
        tell by its number of rows whether it sees the ``tokens`` of the filled row or what is read."""
        more = cls.filler(texts)
        return more if texts + more < tokens else 0

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _pack(self, encoding: Encoding, rows: NDArray[np.int64]) -> _Batch:
        order = self.order(encoding, rows)
        lengths = (encoding.offsets[rows + 1] - encoding.offsets[rows])[order]
        tokens = np.concatenate([encoding.row(int(row)) for row in rows[order]]).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(len(tokens)) - np.repeat(starts, lengths) + self.first_position
        if self.reads == "first":
            read = starts
        else:
            # As transformers' heads do: the last token that is not the pad token, which may be a real one too.
            real = np.where(tokens != self.pad_token_id, np.arange(len(tokens)), -1)
            read = np.maximum(np.maximum.reduceat(real, starts), starts)
        restore = np.empty_like(order)
        restore[order] = np.arange(len(order))
        runs = [Run(len(list(group)), int(length)) for length, group in groupby(lengths)]
        if filler := self.filler(len(tokens)):
            longest = int(lengths.max())  # the model may have no position for a longer one
            whole, rest = divmod(filler, longest)
            runs += [run for run in (Run(whole, longest), Run(1, rest)) if run.tokens]
            tokens = np.append(tokens, np.full(filler, self.pad_token_id))
            positions = np.append(positions, np.arange(filler) % longest + self.first_position)
        if not torch.is_grad_enabled():  # a token read twice would get its gradient twice
            read = np.append(read, np.repeat(read[-1:], self.more_reads(len(read), len(tokens))))
        as_tensor = (torch.from_numpy(array).to(self.device) for array in (tokens, positions, read, restore))
        input_ids, position_ids, read_at, restored = as_tensor
        return _Batch(input_ids.unsqueeze(0), position_ids.unsqueeze(0), read_at, restored, runs)

    def _give_tokens(self, module: Any, arguments: Any, options: dict[str, Any]) -> Any:
        batch = self._current.get()
        if batch is None:
            return None
        return (), options | self.fixed | {"input_ids": batch.input_ids, "position_ids": batch.position_ids}

    def _take_read_tokens(self, module: Any, arguments: Any, output: Any) -> Any:
        batch = self._current.get()
        if batch is not None:
            states = output["last_hidden_state"]
            output["last_hidden_state"] = states[0, batch.read].unsqueeze(1)
        return output

    def _give_read_tokens(self, module: Any, arguments: tuple[torch.Tensor, ...]) -> Any:
        batch = self._current.get()
        return None if batch is None else tuple(states[0, batch.read].unsqueeze(1) for states in arguments)

    def _leave_unread(self, module: Any, arguments: tuple[torch.Tensor, ...]) -> Any:
        batch = self._current.get()
        return None if batch is None else tuple(states[:, batch.read] for states in arguments)

    def _fill_unread(self, module: Any, arguments: Any, output: torch.Tensor) -> Any:
        batch = self._current.get()
        if batch is None:
            return None
        texts = len(batch.restore)  # what is read again has its row already
        whole = output.new_zeros(1, batch.input_ids.shape[1], output.shape[-1])
        return whole.index_copy(1, batch.read[:texts], output[:, :texts])


@dataclass(frozen=True)
class _Batch:
    """One packed row: ``input_ids`` and ``position_ids`` (1, tokens), ``read`` (texts, and some again to fill up) and
    ``restore`` (texts,), all int64."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    read: torch.Tensor
    restore: torch.Tensor
    runs: list[Run]


def choose(model: Any, pad_token_id: int, masks: Masks, frame: Frame = NO_FRAME) -> Padded | Packed:
    """Packed if this very model then gives the logits that it gives padded; padded otherwise.

    The model is tried on a few texts of unlike length, longer than its sliding window where it has one, so an
    architecture that attends, counts positions or reads its tokens in a way that runs do not know can't go unnoticed.

    Raises:
        ModelError: the model can't read a text at all.
    """
    trial = trial_texts(model, frame)
    with _evaluating(model), torch.no_grad():
        step = width_step(model, frame, pad_token_id)
        end = getattr(model.config, "eos_token_id", None) if model.config.is_encoder_decoder else None
        padded = Padded(pad_token_id, next(model.parameters()).device, "", step, end=end)
        expected = padded(model, trial, np.arange(len(trial)))
        attention = model.config._attn_implementation
        reason = _unpackable(model)
        tolerance = _TOLERANCE * max(1.0, float(expected.abs().max()))
        for short in () if reason else (True, False):
            try:
                differences = {
                    reads: _difference(Packed(model, pad_token_id, reads, short, masks), model, trial, expected)
                    for reads in ("last", "first")
                }
                # The least, and not any that will do: another token than the head reads may answer nearly alike.
                reads = min(differences, key=lambda one: differences[one])
                if differences[reads] <= tolerance:
                    return Packed(model, pad_token_id, reads, short, masks)
                reason = "texts that share a row would change each other's answers"
            except UnsupportedAttention as error:
                reason = reason or str(error)
            except Exception:  # noqa: BLE001 - whatever the model's own code meets on a row that it was not made for
                reason = "its own code relies on one text a row"
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        padded = _as_alone(padded, model, frame)
    return replace(padded, reason=f"{model.config.model_type}: {reason}")


def _as_alone(padded: Padded, model: Any, frame: Frame) -> Padded:
    """Batches in which a text gets the answer that it gets alone: any, else those of equal lengths, else none.

    Architectures mix, pool, shift or transform over the whole row, padding included; some only in long rows.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _LONG
    mixed = ([5, 9, 1, 5, 3], [5, max(min(limit - 2, _LONG), 1)])
    if not any(_changes(padded, model, frame, lengths) for lengths in mixed):
        return padded
    if not _changes(padded, model, frame, [9, 9, 9]):
        return replace(
            padded, equal_lengths=True, dependence="padding changes answers, so texts of one length run together"
        )
    return replace(padded, dependence="a text's answer changes with the texts beside it, and no batch prevents that")


def _changes(padded: Padded, model: Any, frame: Frame, lengths: Sequence[int]) -> bool:
    """Whether one of the texts of these lengths is answered in a batch with the others as it is not alone."""
    texts = frame.texts(model, lengths)
    try:
        alone = torch.cat([padded(model, texts, [row]) for row in range(len(texts))])
        together = padded(model, texts, np.arange(len(texts)))
    except Exception:  # noqa: BLE001 - rows so long are none of this model's, whatever its own code then meets
        return False
    return not float((together - alone).abs().max()) <= _ALIKE * max(0.1, float(alone.abs().max()))


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


def _difference(packed: Packed, model: Any, trial: Encoding, expected: torch.Tensor) -> float:
    """The greatest difference of a logit between packed and padded batches; the model is left without hooks."""
    try:
        difference = float((packed(model, trial, np.arange(len(trial))) - expected).abs().max())
    finally:
        packed.remove()
    return difference if math.isfinite(difference) else math.inf


def trial_texts(model: Any, frame: Frame = NO_FRAME) -> Encoding:
    """Random texts that tell: two of one length, one of a single token, one longer than any sliding window."""
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "local_attention", "window_size")]
    longest = max([9, *(window + 3 for window in windows if window and window <= _LONGEST_WINDOW_TRIED)])
    limit = getattr(config, "max_position_embeddings", None) or longest
    lengths = np.minimum([5, longest, 1, 5, 3], max(limit - 2, 1)) if limit > 0 else [5, longest, 1, 5, 3]
    return frame.texts(model, list(lengths))


# Where a block's feed-forward part begins and ends. It works on each token alone, so it may be given fewer.
_FEED_FORWARD = [("attention.output", "output"), ("mlp", "mlp"), ("ffn", "ffn")]


def block_list(trunk: Any) -> Any:
    """The model's blocks, in their order."""
    lists = [module for module in trunk.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    if not lists:
        raise UnsupportedAttention("it has no blocks that follow one another")
    return max(lists, key=len)


def feed_forward(block: Any) -> tuple[Any, Any]:
    """The first and the last module of a block's feed-forward part."""
    modules = dict(block.named_modules())
    for first, last in _FEED_FORWARD:
        if first in modules and last in modules:
            return modules[first], modules[last]
    raise UnsupportedAttention("its blocks have no feed-forward part of a known form")


def _first_position(trunk: Any) -> int:
    """Models of RoBERTa's kind count positions from behind the pad token's index."""
    table = getattr(getattr(trunk, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
