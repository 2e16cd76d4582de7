"""The frozen trunk, run once: what enters the lowest adapted block is a fixed function of the text, kept on disk.

With adapters in the top blocks alone, every later epoch, evaluation and run of the same data costs only those blocks.
What changes: the trunk runs without dropout, since its output is one fixed vector for each token.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine import Watch
from featherweight.engine.running.packed import Packed, block_list
from featherweight.errors import ConfigError, Interrupted, ResourceError
from featherweight.methods.peft import adapters
from featherweight.records.batching import by_tokens
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Encoding, Ragged
from featherweight.storage.cache import cache_folder, cached, key_of
from featherweight.storage.whole import free_bytes

_DTYPES = {"fp32": np.float32, "fp16": np.float16}


class CachedTrunk:
    """A packed forward that starts at the lowest adapted block, from the trunk's output on disk.

    Args:
        packed: how the whole model runs.
        model: as adapted; decides where the trunk ends.
        encodings: the splits to keep, each with its key.
        identity: what else the trunk's output depends on, such as the base model's fingerprint.
        dtype: ``fp32``, or ``fp16`` at half the disk.
        observer: is told how far the first pass is.
        stop: is asked between batches whether to stop.

    Raises:
        ConfigError: the lowest block is adapted, so there is no trunk.
        ResourceError: the disk has not enough room.
    """

    def __init__(
        self,
        packed: Packed,
        model: Any,
        encodings: Mapping[str, Encoding],
        identity: str,
        dtype: str,
        observer: Any,
        stop: Any,
    ) -> None:
        self.packed = packed
        self.blocks = block_list(packed.trunk)
        self.first = _lowest_trained(model, packed.trunk, self.blocks)
        width = int(packed.trunk.config.hidden_size)
        kind = _DTYPES[dtype]
        self.bytes = sum(int(one.tokens.offsets[-1]) for one in encodings.values()) * width * np.dtype(kind).itemsize
        _require_disk(self.bytes)
        self._states: dict[str, Ragged] = {}  # float, values of shape (tokens, width)
        for name, encoding in encodings.items():
            key = key_of(identity, encoding.key, self.first, dtype)

            def build(folder: Path, encoding: Encoding = encoding, name: str = name) -> None:
                shape = (int(encoding.tokens.offsets[-1]), width)
                _reserve(folder / "states.bin", math.prod(shape) * np.dtype(kind).itemsize)
                target = np.memmap(folder / "states.bin", dtype=kind, mode="r+", shape=shape)
                for done, rows in self._run_trunk(model, encoding, target):
                    if stop():
                        raise Interrupted("stopped while running the frozen trunk")
                    Watch(f"running the frozen trunk over {name}", observer).tell(done, rows)
                target.flush()

            path = cached("trunk", key, build) / "states.bin"
            offsets = encoding.tokens.offsets
            kept: Any = np.memmap(path, dtype=kind, mode="r", shape=(int(offsets[-1]), width))
            self._states[encoding.key] = Ragged(kept, offsets)

    groups = staticmethod(Packed.groups)

    def __call__(self, model: Any, encoding: Encoding, rows: Sequence[int] | NDArray[np.int64]) -> Outputs:
        """What the head gives for the rows, in their order."""
        states = self._states.get(encoding.key)
        if states is None:
            return self.packed(model, encoding, rows)
        chosen = np.asarray(rows, dtype=np.int64)
        with self._from_cache(states, encoding, chosen):
            return self.packed(model, encoding, chosen)

    @contextmanager
    def _from_cache(self, states: Ragged, encoding: Encoding, rows: NDArray[np.int64]) -> Iterator[None]:
        """Blocks of the trunk hand on what they get; the first block above gets the trunk's kept output."""
        real = states[rows[self.packed.order(encoding, rows)]].values
        filler = np.zeros((self.packed.filler(len(real)), real.shape[1]), dtype=real.dtype)
        kept = torch.from_numpy(np.concatenate([real, filler]).astype(np.float32)).to(self.packed.device).unsqueeze(0)

        def replace(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
            if "hidden_states" in options:
                return arguments, options | {"hidden_states": kept}
            return (kept, *arguments[1:]), options

        hook = self.blocks[self.first].register_forward_pre_hook(replace, with_kwargs=True)
        try:
            for block in self.blocks[: self.first]:
                block.forward = _hand_on
            yield
        finally:
            hook.remove()
            for block in self.blocks[: self.first]:
                del block.forward

    @torch.no_grad()
    def _run_trunk(self, model: Any, encoding: Encoding, target: Any) -> Iterator[tuple[int, int]]:
        """Fill ``target`` with what enters the lowest adapted block."""
        caught: list[torch.Tensor] = []

        def catch(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            caught.append(options["hidden_states"] if "hidden_states" in options else arguments[0])
            raise _Enough

        before = model.training
        model.eval()
        hook = self.blocks[self.first].register_forward_pre_hook(catch, with_kwargs=True)
        done = 0
        try:
            for rows in by_tokens(encoding.lengths):
                try:
                    self.packed(model, encoding, rows)
                except _Enough:
                    states = caught.pop()[0].float().cpu().numpy()
                start = 0
                for row in rows[self.packed.order(encoding, rows)]:
                    first, last = encoding.tokens.offsets[row : row + 2]
                    target[first:last] = states[start : start + last - first]
                    start += last - first
                done += len(rows)
                yield done, len(encoding)
        finally:
            hook.remove()
            model.train(before)


class _Enough(Exception):
    """The trunk is done; what lies above need not run."""


def _hand_on(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    return hidden_states


def _lowest_trained(model: Any, trunk: Any, blocks: Any) -> int:
    """Index of the lowest block with a parameter that trains.

    Raises:
        ConfigError: it is the lowest of all, or something trains of which nobody knows where it acts: embeddings, or
            what a method shares between layers.
    """
    path = next(name for name, module in trunk.named_modules() if module is blocks)
    pattern = re.compile(rf"(?:^|\.){re.escape(path)}\.(\d+)\.")
    indices = [
        int(found.group(1))
        for name, one in trunk.named_parameters()
        if one.requires_grad and (found := pattern.search(name))
    ]
    others = [
        name for name, one in trunk.named_parameters()
        if one.requires_grad and not pattern.search(name) and name.startswith(("embed", "wte", "wpe"))
    ]  # fmt: skip
    own = {id(one) for one in adapters.base_of(model).parameters()}
    others += [name for name, one in model.named_parameters() if one.requires_grad and id(one) not in own]
    first = min(indices, default=len(blocks) - 1)
    if first == 0 or others:
        what = f"{others[0]!r} trains" if others else "the lowest block is adapted"
        raise ConfigError(
            f"training.trunk_cache: {what}, so there is no frozen trunk below; set method.layers_to_transform to the "
            f"top blocks, such as [{len(blocks) - 2}, {len(blocks) - 1}]"
        )
    return first


def _reserve(path: Path, size: int) -> None:
    """A file of ``size`` bytes that the disk has room for: found full by the mapping, it would end the process."""
    with path.open("wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def _require_disk(needed: int) -> None:
    folder = cache_folder()
    free = free_bytes(folder)
    if needed > free:
        raise ResourceError(
            f"{folder}: the trunk's output takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; set "
            "FEATHERWEIGHT_CACHE to a larger disk, or training.trunk_cache to fp16 or off"
        )
