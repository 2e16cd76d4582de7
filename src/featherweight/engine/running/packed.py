"""Rows end to end: one row of tokens, text after text, without padding.

The model's own code runs on it unchanged: attention goes through :mod:`featherweight.engine.running.attention`, hooks
hand the trunk its tokens and positions, and give the head the tokens that it reads and no others.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine.fast.dropout import Masks
from featherweight.engine.running import attention
from featherweight.engine.running.attention import Run, UnsupportedAttention, packed
from featherweight.engine.running.scoring import handed_on
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding, Ragged


@dataclass(frozen=True)
class Plan:
    """One way to run a model on packed rows.

    Attributes:
        reads: which token of each text the head reads, ``first`` or ``last``; ``given`` where the encoding says which.
        short: whether in the last block those tokens alone attend and pass through the feed-forward part; nobody
            reads what it would make of the others. Attention then has one query a text, so never where the reads are
            given: a text may have any number of them.
        takes_kinds: whether the model is told which text of a row each token is of.
    """

    reads: Literal["first", "last", "given"]
    short: bool
    takes_kinds: bool


class Packed:
    """Rows end to end, for a model whose trunk carries our hooks.

    Args:
        model: a transformers model with a head.
        pad_token_id: fills up rows, and is never what a head that looks for the last token takes.
        plan: how.
        masks: dropout masks for attention.

    Attributes:
        short_part: modules that see the tokens that are read alone.
    """

    sizes: ClassVar[int] = 16  # a power of 2

    def __init__(self, model: Any, pad_token_id: int, plan: Plan, masks: Masks) -> None:
        self.trunk = getattr(model, model.base_model_prefix)
        self.pad_token_id = pad_token_id
        self.plan = plan
        self.masks = masks
        self.device = next(model.parameters()).device
        self.first_position = _first_position(self.trunk)
        accepted = inspect.signature(self.trunk.forward).parameters
        self.fixed: dict[str, Any] = {"attention_mask": None}
        if "use_cache" in accepted:
            self.fixed["use_cache"] = False
        self._current: ContextVar[_Batch | None] = ContextVar("batch", default=None)  # each thread has its own
        self.last: frozenset[Any] = frozenset()
        parts: tuple[Any, ...] = ()
        if plan.short:
            block = block_list(self.trunk)[-1]
            self.last, parts = frozenset(block.modules()), feed_forward(block)
        self.short_part = frozenset(module for part in parts for module in part.modules())
        pooler = getattr(self.trunk, "pooler", None)  # which reads too, behind the trunk's encoder or within the trunk
        layers = getattr(self.trunk, "encoder", self.trunk)
        self._hooks = [
            self.trunk.register_forward_pre_hook(self._give_tokens, with_kwargs=True),
            layers.register_forward_hook(self._take_read_tokens),
        ]
        if pooler is not None and layers is self.trunk:
            self._hooks.append(pooler.register_forward_pre_hook(self._give_read_tokens))
        if parts:
            self._hooks += [
                parts[0].register_forward_pre_hook(self._leave_unread),
                parts[-1].register_forward_hook(self._fill_unread),
            ]

    @staticmethod
    def groups(encoding: Encoding, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Which of ``rows`` may run together, as places in it."""
        return [np.arange(len(rows))]

    def __call__(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> Outputs:
        """What the head gives for the rows, in their order."""
        batch = self._pack(encoding, np.asarray(rows, dtype=np.int64))
        read = batch.read[: len(batch.restore)] if self.plan.short else None
        token = self._current.set(batch)
        try:
            with packed(batch.runs, self.masks, read, self.last):
                # The head sees rows of one token: the trunk's hooks put the real ones in and take the read ones out.
                logits = handed_on(model(input_ids=batch.input_ids[0, batch.read].unsqueeze(1)).logits)
        finally:
            self._current.reset(token)
        if self.plan.reads == "given":  # a head that reads every token of a row, of which each has one
            logits = logits[:, 0]
        return Outputs(logits, batch.ends)[batch.restore]

    @staticmethod
    def order(encoding: Encoding, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in ``rows`` the texts of the packed row stand: the longest first, so that equals are neighbours."""
        return np.argsort(-encoding.tokens.lengths_of(rows), kind="stable")

    @classmethod
    def filler(cls, count: int) -> int:
        """How many tokens that nobody reads are put behind a packed row of ``count``, as texts of their own; likewise
        for what is read of it, where no gradient flows.

        oneDNN compiles a product anew for each number of rows, and keeps what it compiled, 0.6 MB. So rows come in few
        sizes, :attr:`sizes` from one power of 2 to the next.
        """
        grain = 1 << max(count.bit_length() - cls.sizes.bit_length(), 0)
        return -count % grain

    def known(self) -> list[tuple[ContextVar[Any], Any]]:
        """What is known of the row that runs, and nowhere passed on: for whoever runs a part of it again."""
        return [(self._current, self._current.get()), *attention.known()]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _pack(self, encoding: Encoding, rows: NDArray[np.int64]) -> _Batch:
        order = self.order(encoding, rows)
        texts = encoding.tokens[rows[order]]
        lengths = texts.lengths
        tokens = texts.values.astype(np.int64)
        positions = np.arange(len(tokens)) - np.repeat(texts.offsets[:-1], lengths) + self.first_position
        told = encoding.kinds if self.plan.takes_kinds else None
        kinds = None if told is None else told[rows[order]].values.astype(np.int64)
        reads = self._reads(encoding, rows[order], texts)
        runs = [Run(len(list(group)), int(length)) for length, group in groupby(lengths)]
        if filler := self.filler(len(tokens)):
            longest = int(lengths.max())  # the model may have no position for a longer one
            whole, rest = divmod(filler, longest)
            runs += [run for run in (Run(whole, longest), Run(1, rest)) if run.tokens]
            tokens = np.append(tokens, np.full(filler, self.pad_token_id))
            positions = np.append(positions, np.arange(filler) % longest + self.first_position)
            kinds = None if kinds is None else np.append(kinds, np.zeros(filler, dtype=np.int64))
        read = reads.values
        if not torch.is_grad_enabled():  # a token read twice would get its gradient twice
            read = np.append(read, np.repeat(read[-1:], self.filler(len(read))))
        restore = np.empty_like(order)
        restore[order] = np.arange(len(order))
        return _Batch(
            input_ids=self._tensor(tokens).unsqueeze(0),
            position_ids=self._tensor(positions).unsqueeze(0),
            token_type_ids=None if kinds is None else self._tensor(kinds).unsqueeze(0),
            read=self._tensor(read),
            ends=torch.from_numpy(reads.offsets),
            restore=restore,
            runs=runs,
        )

    def _reads(self, encoding: Encoding, rows: NDArray[np.int64], texts: Ragged) -> Ragged:
        """Where in the packed row each of its texts is read."""
        starts = texts.offsets[:-1]
        if self.plan.reads == "given" and encoding.reads is not None:
            reads = encoding.reads[rows]
            return Ragged(np.maximum(reads.values, 0) + np.repeat(starts, reads.lengths), reads.offsets)
        one_each = np.arange(len(texts) + 1)
        if self.plan.reads == "first":
            return Ragged(starts, one_each)
        # As transformers' heads do: the last token that is not the pad token, which may be a real one too.
        real = np.where(texts.values != self.pad_token_id, np.arange(len(texts.values)), -1)
        return Ragged(np.maximum(np.maximum.reduceat(real, starts), starts), one_each)

    def _tensor(self, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def _give_tokens(self, module: Any, arguments: Any, options: dict[str, Any]) -> Any:
        batch = self._current.get()
        if batch is None:
            return None
        given = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
        if batch.token_type_ids is not None:
            given["token_type_ids"] = batch.token_type_ids
        return (), options | self.fixed | given

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
    """One packed row.

    Attributes:
        input_ids, position_ids, token_type_ids: int64, shape (1, tokens); the last where the model is told.
        read: int64, shape (reads,) and some again to fill up: the tokens that the head reads.
        ends: int64, shape (texts + 1,), on the processor: where each text's reads start, and where the last one's end.
        restore: int64, shape (texts,): where the texts stand in the packed row, in the order in which they were asked.
        runs: of texts of equal length.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    token_type_ids: torch.Tensor | None
    read: torch.Tensor
    ends: torch.Tensor
    restore: NDArray[np.int64]
    runs: list[Run]


# A block's feed-forward part, in the order in which it runs. It works on each token alone, so it may be given fewer.
_FEED_FORWARD = [("attention.output", "intermediate", "output"), ("mlp",), ("ffn",)]


def block_list(trunk: Any) -> Any:
    """The model's blocks, in their order."""
    lists = [module for module in trunk.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    if not lists:
        raise UnsupportedAttention("it has no blocks that follow one another")
    return max(lists, key=len)


def feed_forward(block: Any) -> tuple[Any, ...]:
    """The modules of a block's feed-forward part, in the order in which they run."""
    modules = dict(block.named_modules())
    for names in _FEED_FORWARD:
        if all(name in modules for name in names):
            return tuple(modules[name] for name in names)
    raise UnsupportedAttention("its blocks have no feed-forward part of a known form")


def _first_position(trunk: Any) -> int:
    """Models of RoBERTa's kind count positions from behind the pad token's index."""
    table = getattr(getattr(trunk, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1
