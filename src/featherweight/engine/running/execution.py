"""How one model is run: packed or padded, with which dropout masks and which exchanged modules. Chosen once a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine import Observer, StopRequested
from featherweight.engine.fast import kernels, linear
from featherweight.engine.fast.dropout import Masks
from featherweight.engine.fast.exchanges import forget_weights, give_up_weights, keep_weights, put_back, speed_up
from featherweight.engine.fast.machine_speed import probe
from featherweight.engine.fleet import ALONE, Fleet
from featherweight.engine.hardware import give_back_freed_memory, keep_freed_memory
from featherweight.engine.running.choosing import adopted, choose, evaluating, trial_texts
from featherweight.engine.running.packed import Packed
from featherweight.engine.running.padded import Padded
from featherweight.engine.running.recomputing import recompute_blocks
from featherweight.engine.running.scoring import Scoring
from featherweight.engine.running.trunk import CachedTrunk
from featherweight.errors import ConfigError
from featherweight.methods.peft.targets import linear_layers
from featherweight.records.batching import by_tokens
from featherweight.records.outcome import TrunkCache
from featherweight.records.outputs import Outputs
from featherweight.records.rows import UNSEEN, Encoding
from featherweight.sources.trial_texts import NO_FRAME, Frame


class Execution:
    """Makes a model ready and runs it.

    Args:
        model: a transformers model with a head, on its device; changed in place.
        pad_token_id: fills rows of unequal length where they are padded.
        seed: of the dropout masks.
        frame: what the tokenizer puts around every text.
        reads_tokens: whether encodings say which tokens the head reads, and it is one that answers for each; else it
            answers once a row, for a token that it finds itself.
        precision: ``fp32``; or, after all that is tried is tried in fp32, ``bf16`` for products within the model's
            blocks on a processor. On other devices autocast sees to it, as it does to ``fp16``.
        fleet: the processes that share steps and passes over rows.

    Raises:
        ModelError: the model can't read a text, or has no head that reads tokens where it is to.
    """

    def __init__(
        self,
        model: Any,
        pad_token_id: int,
        seed: int = 0,
        frame: Frame = NO_FRAME,
        reads_tokens: bool = False,
        precision: str = "fp32",
        fleet: Fleet = ALONE,
    ) -> None:
        self.fleet = fleet
        self.probe = probe()
        on_processor = next(model.parameters()).device.type == "cpu"
        if on_processor:
            give_back_freed_memory()  # what loading the model took
            keep_freed_memory()
        self.frame = frame
        self.reads_tokens = reads_tokens
        self.masks = Masks(seed, fast=on_processor)
        self._way = choose(model, pad_token_id, self.masks, frame, reads_tokens)
        self.forward: Padded | Packed | CachedTrunk = self._way.forward
        speed_up(model, self.masks)
        self._scoring: Scoring | None = None
        self._multiplying = list(linear_layers(model).values()) if on_processor else []
        self.multiply_in(precision)

    def multiply_in(self, precision: str) -> None:
        """From now on this is the precision of products."""
        self.precision = precision
        if precision == "bf16":
            linear.multiply_in_bf16(self._multiplying)
        else:
            linear.multiply_in_fp32(self._multiplying)

    @contextmanager
    def _unrounded(self) -> Iterator[None]:
        """Within this context products are in fp32, as proofs are."""
        linear.multiply_in_fp32(self._multiplying)
        try:
            yield
        finally:
            self.multiply_in(self.precision)

    def score_next_tokens(self, model: Any) -> None:
        """From now on :meth:`outputs` gives, for each token that is read, how likely the one behind it is; see
        :class:`Scoring`."""
        with self._unrounded():
            self._scoring = Scoring(model)
            self._prove_scoring(model)

    def _prove_scoring(self, model: Any) -> None:
        if self._scoring is None:
            return
        self._scoring.install(model)
        with evaluating(model), torch.no_grad():
            self._scoring.prove(model, self.forward, trial_texts(model, self.frame, self.reads_tokens))

    def adopt(self, model: Any) -> bool:
        """Run the model with what a method put into it since: as before where a trial shows that it still answers
        alike.

        Returns:
            Whether it is run as before.

        Raises:
            ModelError: what the method put into it can't be run.
        """
        before, exchange = self._way.forward, partial(speed_up, model, self.masks)
        with self._unrounded():
            if hasattr(model, "peft_config"):
                self._way = adopted(self._way, model, exchange, self.frame, self.reads_tokens)
                self.forward = self._way.forward
            else:
                exchange()
            self._prove_scoring(model)
        return self.forward == before

    def recompute(self, model: Any) -> None:
        """From now on compute the model's blocks again in the backward pass, for less memory.

        Raises:
            ConfigError: this architecture can't.
        """
        packed = self.forward if isinstance(self.forward, Packed) else None
        recompute_blocks(model, self.masks, packed.known if packed is not None else list)

    @property
    def padded(self) -> Padded:
        """How rows are padded, where they are."""
        return self._way.padded

    def cache_trunk(
        self,
        model: Any,
        encodings: Mapping[str, Encoding],
        identity: str,
        dtype: str,
        observer: Observer,
        stop: StopRequested,
    ) -> TrunkCache:
        """Run the frozen blocks once over ``encodings``, and from now on only those above.

        Returns:
            What the report has to say of it.

        Raises:
            ConfigError: there is no frozen trunk, or batches are padded on this model.
            ResourceError: the disk has not enough room.
        """
        if not isinstance(self.forward, Packed):
            raise ConfigError(
                f"training.trunk_cache: needs packed batches, and they are padded: {self.describe()['reason']}"
            )
        trunk = CachedTrunk(self.forward, model, encodings, identity, dtype, observer, stop)
        self.forward = trunk
        return {"frozen_blocks": trunk.first, "dtype": dtype, "disk_bytes": trunk.bytes, "dropout_in_trunk": False}

    @contextmanager
    def answering(self, model: Any) -> Iterator[None]:
        """Within this context the model is in evaluation mode, without gradients, and its weights stay as they are."""
        was_training = model.training
        model.eval()
        try:
            keep_weights(model)
            with torch.no_grad():
                yield
        finally:
            forget_weights(model)
            model.train(was_training)

    @contextmanager
    def reading_given_tokens(self, model: Any) -> Iterator[Padded | Packed]:
        """Within this context a forward for rows that say which tokens are read, whatever the model's head reads."""
        forward = self.forward.packed if isinstance(self.forward, CachedTrunk) else self.forward
        if isinstance(forward, Padded):
            yield forward
            return
        packed = Packed(model, forward.pad_token_id, replace(forward.plan, reads="given", short=False), self.masks)
        try:
            yield packed
        finally:
            packed.remove()

    @torch.no_grad()
    def answer_for_good(self, model: Any) -> None:
        """Be in :meth:`answering` from now on, where the model does nothing else. In evaluation mode already.

        The layers' own weights are given up, so that their copies take no further memory, where a trial shows that
        nobody else reads them.
        """
        keep_weights(model)
        before = self.trial_logits(model)
        own = give_up_weights(model)
        try:
            same = torch.equal(self.trial_logits(model), before)
        except Exception:  # noqa: BLE001 - whatever the model's own code then meets
            same = False
        if not same:
            put_back(own)

    def trial_logits(self, model: Any) -> torch.Tensor:
        """Logits of a few random texts; shape (reads, classes)."""
        texts = trial_texts(model, self.frame, self.reads_tokens)
        return self.forward(model, texts, np.arange(len(texts))).values

    def start(self, step: int, rank: int = 0) -> None:
        """Begin an optimizer step, counted from 0: its dropout masks depend on the seed, on it and on which process
        this is."""
        self.masks.start(step, rank)

    def outputs(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> Outputs:
        """What the head gives for the rows, in their order; where rows are several sequences, pooled or compared."""
        if encoding.windows is not None:
            several = self._compared if encoding.compares else self._pooled
            return several(model, encoding, np.asarray(rows, dtype=np.int64))
        if (encoding.reads is not None) != self.reads_tokens:
            raise ValueError("the model was not tried on rows that are read as these are")
        if self._scoring is not None:
            return self._scoring(self.forward, model, encoding, np.asarray(rows, dtype=np.int64))
        outputs = self.forward(model, encoding, rows)
        return outputs if encoding.reads is None else without_unseen(outputs, encoding.reads[np.asarray(rows)].values)

    def _pooled(self, model: Any, encoding: Encoding, rows: NDArray[np.int64]) -> Outputs:
        """Few windows at a time, so that a row may have any number of them."""
        windows, single = encoding.windows_of(rows), replace(encoding, windows=None)
        places, parts = [], []
        for chosen in by_tokens(encoding.tokens.lengths_of(windows.values)):
            values = self.outputs(model, single, windows.values[chosen]).values
            # A head that picks its token itself may hand on them all, and encoders' heads read the first.
            parts.append(values[:, 0] if values.dim() == 3 else values)
            places.append(chosen)
        order = torch.from_numpy(np.argsort(np.concatenate(places))).to(parts[0].device)
        counts = torch.from_numpy(windows.lengths).to(parts[0].device)
        joined = torch.cat(parts)[order].float()
        return Outputs.one_each(torch.segment_reduce(joined, encoding.pool, lengths=counts, axis=0))

    def _compared(self, model: Any, encoding: Encoding, rows: NDArray[np.int64]) -> Outputs:
        """For each sequence of the rows its log-probability, of how many tokens that is, and the reference where there
        is one; fp32, shape (sequences, 2 or 3)."""
        sequences = encoding.windows_of(rows)
        outputs = self.outputs(model, replace(encoding, windows=None), sequences.values)
        counts = outputs.ends.diff().to(outputs.values.device)
        columns = [torch.segment_reduce(outputs.values[:, 0], "sum", lengths=counts), counts.float()]
        if encoding.reference is not None:
            columns.append(torch.from_numpy(encoding.reference[sequences.values]).to(counts.device))
        return Outputs(torch.stack(columns, dim=1), torch.from_numpy(sequences.offsets))

    def groups(self, encoding: Encoding, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Which of ``rows`` :meth:`outputs` runs together, as places in it."""
        return [np.arange(len(rows))] if encoding.windows is not None else self.forward.groups(encoding, rows)

    @property
    def equal_lengths(self) -> bool:
        """Whether only texts of equal length run together."""
        return isinstance(self.forward, Padded) and self.forward.equal_lengths

    def describe_batches(self) -> dict[str, Any]:
        """Whether rows are packed, and why."""
        reason = self.forward.reason if isinstance(self.forward, Padded) else None
        return {
            "batches": "padded" if reason else "packed",
            "reason": reason or "packed and padded logits agree on this model",
            "batch_dependence": (isinstance(self.forward, Padded) and self.forward.dependence) or None,
        }

    def describe(self) -> dict[str, Any]:
        """For ``environment.json`` and the log: every choice with its reason."""
        return {
            **self.describe_batches(),
            "compiled_kernels": kernels.load() is not None,
            "compiled_kernels_reason": kernels.status(),
            "precision_reason": self.probe.precision_reason,
            "matrix_products": self.probe.product,
            "matrix_products_reason": self.probe.product_reason,
            "threads": torch.get_num_threads(),
            "threads_reason": self.probe.threads_reason,
            "token_budget": self.probe.token_budget,
            "token_budget_reason": self.probe.budget_reason,
        }


def without_unseen(outputs: Outputs, reads: NDArray[np.int64]) -> Outputs:
    """The same, with 0 where there was nothing to read.

    Args:
        reads: the places of all rows, end to end.
    """
    if (reads != UNSEEN).all():
        return outputs
    seen = torch.from_numpy(reads != UNSEEN).to(outputs.values.device)
    return replace(outputs, values=torch.where(seen[:, None], outputs.values, 0), seen=seen)
