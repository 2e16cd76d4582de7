"""One frozen model, many LoRA adapters, one forward: each text gets its own adapter's update and its own head.

The texts of a packed row lie side by side by adapter. A layer adds each adapter's low-rank update to that adapter's
rows alone (as S-LoRA, Sheng et al., 2023, does), a head reads its own texts alone, so an answer doesn't depend on what
else is in the batch, beyond the rounding of a matrix product of another size. Padded batches hold one adapter's texts
each: an architecture that is not packed may run other rows through a layer than those of its texts, as DeBERTa does
with its relative positions.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine.fast.lora import thin_product
from featherweight.engine.running.execution import Execution, without_unseen
from featherweight.engine.running.packed import Packed
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding
from featherweight.sources.trial_texts import NO_FRAME, Frame


@dataclass(frozen=True)
class Update:
    """s B A for one linear layer: ``a`` (r, in), ``b`` (out, r), both fp32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


@dataclass(frozen=True)
class AdapterWeights:
    """What one adapter adds to the model.

    Attributes:
        updates: low-rank update of a linear layer, by the layer's dotted name in the base model.
        heads: the adapter's own version of a whole module that sees only what is read, by dotted name.
    """

    updates: Mapping[str, Update]
    heads: Mapping[str, torch.nn.Module]


@dataclass(frozen=True)
class _Segments:
    """What of a batch belongs to whom. Bounds have one entry more than ``names``.

    Attributes:
        names: the adapter of each segment.
        reads: bounds in tokens that are read.
        tokens: bounds in tokens.
    """

    names: tuple[str, ...]
    reads: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def within(self, bounds: NDArray[np.int64], states: torch.Tensor) -> Iterator[tuple[str, int, int]]:
        """(adapter, its first, behind its last) of ``states`` whose first dimension these bounds are of.

        Raises:
            RuntimeError: they are not, so a layer stands where it sees something else than was thought.
        """
        if len(self.names) == 1:
            yield self.names[0], 0, len(states)
            return
        if len(states) != bounds[-1]:
            raise RuntimeError(f"a layer sees {len(states)} rows where it was to see {bounds[-1]}")
        for name, (start, end) in zip(self.names, pairwise(bounds.tolist()), strict=True):
            yield name, start, end


_Module = TypeVar("_Module", bound=torch.nn.Module)
_active: ContextVar[_Segments | None] = ContextVar("segments", default=None)  # each thread has its own


class _Linear(torch.nn.Module):
    """A frozen linear layer (``torch.nn.Linear`` or transformers' ``Conv1D``) with an update for each adapter, in the
    trunk, where all tokens of a row are there."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base
        self.updates: dict[str, Update] = {}

    @property
    def weight(self) -> torch.Tensor:
        """The frozen one, as PEFT's layer gives it to models that read it themselves."""
        return self.base.weight  # type: ignore[no-any-return]

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base.bias  # type: ignore[no-any-return]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        result = self.base(states)
        segments = _active.get()
        if segments is None:
            return result  # type: ignore[no-any-return]
        rows, answers = states.reshape(-1, states.shape[-1]), result.view(-1, result.shape[-1])
        for name, start, end in segments.within(self.bounds(segments), rows):
            update = self.updates.get(name)
            if update is not None:
                thin = thin_product(rows[start:end], update.a)
                answers[start:end].addmm_(thin, update.b.t(), alpha=update.scale)
        return result  # type: ignore[no-any-return]

    @staticmethod
    def bounds(segments: _Segments) -> NDArray[np.int64]:
        return segments.tokens


class _ReadingLinear(_Linear):
    """The same where the tokens that are read are there alone: in the head, and in the last block's short part."""

    @staticmethod
    def bounds(segments: _Segments) -> NDArray[np.int64]:
        return segments.reads


class _Head(torch.nn.Module):
    """A module that each adapter has a version of its own of. Its first argument has the reads as first dimension."""

    def __init__(self, original: torch.nn.Module) -> None:
        super().__init__()
        self.original = original
        self.versions: dict[str, torch.nn.Module] = {}

    def forward(self, states: torch.Tensor, *more: Any) -> torch.Tensor:
        segments = _active.get()
        if segments is None:
            return self.original(states, *more)  # type: ignore[no-any-return]
        parts = [
            self.versions.get(name, self.original)(states[start:end], *more)
            for name, start, end in segments.within(segments.reads, states)
        ]
        # Adapters may have unlike numbers of classes; whoever reads the logits knows how many are its own.
        width = max(part.shape[-1] for part in parts)
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[-1])) for part in parts])


class _AsGiven(Packed):
    """Packed, with the texts in the order in which they are given. A server meets rows of any size, and memory for
    each that is compiled counts more there than a token in 16."""

    sizes = 8

    @staticmethod
    def order(encoding: Encoding, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(rows))


class ManyAdapters:
    """A base model with the weights of many adapters in it.

    Not for several threads at once: the caller holds a lock around every call.

    Args:
        model: a transformers model with a head, in evaluation mode, on its device; changed in place.
        short: its layers that see only what is read.
    """

    def __init__(self, model: Any, short: Container[Any] = ()) -> None:
        self.model = model
        self._short = short

    def add(self, name: str, weights: AdapterWeights) -> None:
        """Let texts of ``name`` have these weights. They must have been made for this very base model."""
        for path, update in weights.updates.items():
            self._linear(path).updates[name] = update
        for path, head in weights.heads.items():
            self._head(path).versions[name] = head

    def remove(self, name: str) -> None:
        """Forget an adapter; its memory goes with it."""
        for module in self.model.modules():
            if isinstance(module, _Linear):
                module.updates.pop(name, None)
            elif isinstance(module, _Head):
                module.versions.pop(name, None)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Within this context the model is that of one adapter, whatever this thread lets it run over."""
        nothing = np.zeros(2, dtype=np.int64)
        token = _active.set(_Segments((name,), nothing, nothing))
        try:
            yield
        finally:
            _active.reset(token)

    def _linear(self, path: str) -> _Linear:
        """The layer at ``path``, exchanged if it is not yet."""
        found = self.model.get_submodule(path)
        if isinstance(found, _Linear):
            return found
        return self._put(
            path, (_ReadingLinear if found in self._short or reads_texts(self.model, path) else _Linear)(found)
        )

    def _head(self, path: str) -> _Head:
        """The module at ``path``, exchanged if it is not yet."""
        found = self.model.get_submodule(path)
        return found if isinstance(found, _Head) else self._put(path, _Head(found))

    def _put(self, path: str, module: _Module) -> _Module:
        parent, _, last = path.rpartition(".")
        setattr(self.model.get_submodule(parent), last, module)
        return module


class MultiLora(ManyAdapters):
    """The same, answering for any of them in one forward.

    Args:
        model: a transformers model with a head, in evaluation mode, on its device; changed in place.
        pad_token_id: fills rows of unequal length where batches are padded.
        frame: what the tokenizer puts around every text.
        reads_tokens: whether encodings say which tokens the head reads, and it is one that answers for each.
    """

    def __init__(self, model: Any, pad_token_id: int, frame: Frame = NO_FRAME, reads_tokens: bool = False) -> None:
        execution = Execution(model, pad_token_id, frame=frame, reads_tokens=reads_tokens)
        execution.answer_for_good(model)
        forward = execution.forward
        if isinstance(forward, Packed):
            forward.remove()
            forward = _AsGiven(model, pad_token_id, forward.plan, forward.masks)
        super().__init__(model, forward.short_part if isinstance(forward, Packed) else ())
        self._forward = forward
        self.description = execution.describe()

    @torch.no_grad()
    def outputs(self, encoding: Encoding, adapters: Sequence[str]) -> Outputs:
        """What the heads give for all rows, in their order.

        Args:
            adapters: whose answer each row wants.

        Returns:
            As wide as the widest of these adapters' heads; columns behind a row's own are 0.
        """
        asked = np.asarray(adapters)
        groups = self._forward.groups(encoding, np.arange(len(encoding)))
        if not isinstance(self._forward, Packed):
            groups = [group[asked[group] == name] for group in groups for name in np.unique(asked[group])]
        parts = [self._together(encoding, group, asked[group]) for group in groups]
        width = max(part.values.shape[1] for part in parts)
        wide = [
            replace(part, values=torch.nn.functional.pad(part.values, (0, width - part.values.shape[1])))
            for part in parts
        ]
        found = Outputs.joined(wide)[np.argsort(np.concatenate(groups))]
        return found if encoding.reads is None else without_unseen(found, encoding.reads.values)

    def _together(self, encoding: Encoding, rows: NDArray[np.int64], adapters: NDArray[Any]) -> Outputs:
        """What ``rows`` get, in their order, by one forward."""
        names, kind = np.unique(adapters, return_inverse=True)
        lengths = encoding.tokens.lengths_of(rows)
        order = np.lexsort((-lengths, kind))
        bounds = np.searchsorted(kind[order], np.arange(len(names) + 1))
        count = np.ones_like(lengths) if encoding.reads is None else encoding.reads.lengths_of(rows)
        tokens, reads = (np.concatenate([[0], np.cumsum(one[order])])[bounds] for one in (lengths, count))
        if isinstance(self._forward, Packed):
            tokens[-1] += self._forward.filler(int(tokens[-1]))
            reads[-1] += self._forward.filler(int(reads[-1]))
        token = _active.set(_Segments(tuple(names.tolist()), reads, tokens))
        try:
            found = self._forward(self.model, encoding, rows[order])
        finally:
            _active.reset(token)
        return found[np.argsort(order, kind="stable")]


def reads_texts(model: Any, path: str) -> bool:
    """Whether the module at ``path`` stands behind the trunk's blocks, where there is one position a text."""
    trunk = f"{model.base_model_prefix}."
    return not path.startswith(trunk) or "pooler" in path.removeprefix(trunk).split(".")
