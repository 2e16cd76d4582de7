"""The global random states of Python, NumPy and torch, as tensors that safetensors can hold; of several processes each
has its own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from featherweight.engine.fleet import Fleet


def capture() -> dict[str, torch.Tensor]:
    """Every global generator's state, by name."""
    _, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    states = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
        "numpy_position": torch.tensor([numpy["state"]["pos"], numpy["has_gauss"]], dtype=torch.int64),
        "numpy_gauss": torch.tensor([numpy["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states |= {f"cuda:{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore(states: dict[str, torch.Tensor]) -> None:
    """Go on drawing where :func:`capture` was called; devices that are not there are passed over."""
    gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss = states["numpy_position"].tolist()
    key = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, position, has_gauss, float(states["numpy_gauss"])))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if (state := states.get(f"cuda:{index}")) is not None:
                torch.cuda.set_rng_state(state, index)


def part(seed: int, rank: int) -> None:
    """Let a process draw otherwise than the others from here on; rank 0 draws as one that is alone."""
    if rank == 0:
        return
    drawn = int(np.random.SeedSequence((seed, rank)).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)
    torch.manual_seed(drawn)


def group_of(rank: int) -> str:
    """The group of a checkpoint's tensors that holds a process's states."""
    return f"rng-{rank}" if rank else "rng"


def of_all(fleet: Fleet) -> dict[str, dict[str, torch.Tensor]]:
    """Every process's states, by their groups."""
    return {group_of(rank): load(states) for rank, states in enumerate(fleet.gather(save(capture())))}
