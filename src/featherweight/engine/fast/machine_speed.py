"""What this machine does well, measured once and kept: which library multiplies, evaluation batches, bf16's worth.

A round counts where this process had its processors to itself. What is found without one is used by this process and
not kept, so it may only choose what costs little when it is wrong: never fewer threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from featherweight.engine.fast.kernels import processor_features
from featherweight.engine.fast.products import DEFAULT, IN_BF16, PRODUCTS, Product, works, works_in_bf16
from featherweight.engine.fleet import Fleet
from featherweight.engine.hardware import describe, has_bf16
from featherweight.errors import ResourceError
from featherweight.process import launch
from featherweight.records.batching import TOKEN_BUDGET
from featherweight.storage.cache import cached, key_of

_BUDGETS = (1024, 2048, 4096, 8192)
# A default is left only for what is so many times as fast: a measurement of a moment is not exact.
_WORTH, _WORTH_OF_LIBRARY = 1.25, 1.05
_ROWS, _WIDTH, _ROUNDS = 448, 768, 24
_FEW_ROWS = 64  # for a processor that has no instructions for it, and is hundreds of times as slow
_WRONG = 1.5  # what was kept is measured again where another is so many times as fast at a look
_UNDISTURBED = 0.8  # of the processors' time while a product ran, which its threads spend at work or waiting for it
_PATIENCE, _LOOK = 1.0, 0.05  # seconds that a comparison, and a look, may take for an undisturbed round of each

Key = TypeVar("Key")
_kept_to: dict[str, Any] = {}  # by a run that is taken up
_agreed: list[Probe] = []  # on with other processes


@dataclass(frozen=True)
class Probe:
    """What was found, in floating-point operations a second where it is a rate.

    Attributes:
        fp32, bf16: matrix products of a block's size.
        bf16_product: which of :data:`featherweight.engine.fast.products.IN_BF16` to use where the recipe asks for bf16.
        product: which of :data:`featherweight.engine.fast.products.PRODUCTS` to use.
        product_reason, threads_reason: why, and why PyTorch's own number of threads.
        token_budget: tokens of an evaluation batch.
        budget_reason: why.
        undisturbed: whether nothing else took the processors meanwhile, so that it was kept.
    """

    fp32: float
    bf16: float
    bf16_product: str
    product: str
    product_reason: str
    threads_reason: str
    token_budget: int
    budget_reason: str
    undisturbed: bool

    @property
    def gains_by_bf16(self) -> bool:
        """Whether products in bf16 are faster by more than a measurement of a moment is wrong by."""
        return self.bf16 > _WORTH * self.fp32

    @property
    def precision_reason(self) -> str:
        """Why training is in fp32 unless the recipe says otherwise."""
        return (
            f"fp32 at {self.fp32 / 1e9:.0f} GFLOP/s, bf16 at {self.bf16 / 1e9:.0f}; lower precision is not the same "
            "mathematics, so it is used only where the recipe asks for it"
        )


class _Disturbed(Exception):
    """Carries what was measured in a busy moment past the cache."""


@cache
def probe(again: bool = False) -> Probe:
    """Measure, in less than 4 s, or read what was measured on this machine before.

    Args:
        again: measure in any case, and keep that if nothing disturbed it.
    """
    if _agreed:
        return _agreed[-1]
    machine = describe()
    key = key_of(
        *(machine[name] for name in ("processor", "cores", "device")),
        processor_features(),
        torch.get_num_threads(),
        torch.__version__,
        list(Probe.__dataclass_fields__),
    )

    def build(folder: Path) -> None:
        found = _measure()
        if not found.undisturbed:
            raise _Disturbed(found)
        (folder / "probe.json").write_text(json.dumps(asdict(found)), encoding="utf-8")

    try:
        folder = cached("probe", key, build, is_whole=lambda folder: not again and _is_plausible(_kept(folder)))
        found = _kept(folder)
    except _Disturbed as disturbed:
        found = disturbed.args[0]
    except (ResourceError, OSError, ValueError, TypeError):
        found = _measure()  # a cache that can't be written or read costs its second again
    return replace(found, **_kept_to)


@contextmanager
def agreeing(fleet: Fleet) -> Iterator[None]:
    """Within this context every process of a fleet multiplies and batches as rank 0 found best, alone on its machine.

    A library that another machine lacks gives way to PyTorch's there.
    """
    if fleet.size == 1:
        yield
        return
    found = Probe(**fleet.share(asdict(probe()) if fleet.rank == 0 else None))
    found = replace(found, threads_reason=launch.said())
    if not works(found.product, _device()):
        found = replace(found, product=DEFAULT, product_reason=f"{found.product} is not on this machine")
    _agreed.append(found)
    probe.cache_clear()
    try:
        yield
    finally:
        _agreed.clear()
        probe.cache_clear()


@contextmanager
def keeping_to(execution: Mapping[str, Any]) -> Iterator[None]:
    """Within this context multiply and batch as a run did that is taken up, where this machine still can.

    Another look at the machine may find otherwise, and a run that goes on in another library's order of sums does not
    end at the bytes that it would have ended at.

    Args:
        execution: of its ``environment.json``.
    """
    before = dict(_kept_to)
    product, budget = execution.get("matrix_products"), execution.get("token_budget")
    if product in PRODUCTS and works(product, _device()):
        reason = "as the run began"
        _kept_to.update(product=product, product_reason=reason, token_budget=budget, budget_reason=reason)
    probe.cache_clear()
    try:
        yield
    finally:
        _kept_to.clear()
        _kept_to.update(before)
        probe.cache_clear()


def _kept(folder: Path) -> Probe:
    return Probe(**json.loads((folder / "probe.json").read_text(encoding="utf-8")))


def _is_plausible(found: Probe) -> bool:
    """Whether what was kept still stands: no undisturbed look shows another library as clearly faster."""
    rates, quiet = _rates(_products(), rounds=3, patience=_LOOK)
    return not quiet or max(rates.values()) < _WRONG * rates.get(found.product, 0.0)


def _products() -> dict[str, tuple[int, Callable[[], float]]]:
    return {name: _product(_ROWS, PRODUCTS[name]) for name in PRODUCTS if works(name, _device())}


def _measure() -> Probe:
    products, quiet = _rates(_products(), rounds=_ROUNDS)
    # What is not kept would differ from one process to the next, and the last digits of answers with it.
    product = _choose(products, DEFAULT, _WORTH_OF_LIBRARY if quiet else _WORTH)
    budgets, quiet_too = _rates({budget: _product(budget, PRODUCTS[product]) for budget in _BUDGETS})
    rows, rounds = (_ROWS, _ROUNDS) if has_bf16() else (_FEW_ROWS, 1)
    ways = {name: partial(way, added=None) for name, way in IN_BF16.items() if works_in_bf16(name, _device())}
    in_bf16 = _rates({name: _product(rows, way) for name, way in ways.items()}, rounds)[0]
    before = torch.get_num_threads()
    threads = {before: products[product]}
    if before > 1:
        torch.set_num_threads(before // 2)
        threads |= _rates({before // 2: _product(_ROWS, PRODUCTS[product])})[0]
        torch.set_num_threads(before)
    return Probe(
        fp32=products[product],
        bf16=max(in_bf16.values()),
        bf16_product=_choose(in_bf16, next(reversed(ways)), _WORTH),  # ours adds bias and adapter on the way, too
        product=product,
        product_reason=f"measured: {_shown(products, 'by')}",
        threads_reason=f"PyTorch's own number; measured: {_shown(threads, 'with')}",
        token_budget=_choose(budgets, TOKEN_BUDGET, _WORTH),
        budget_reason=f"measured: {_shown(budgets, 'at')}",
        undisturbed=quiet and quiet_too,
    )


def _choose(rates: Mapping[Key, float], default: Key, worth: float) -> Key:
    """The fastest, where it is so by enough."""
    fastest = max(rates, key=lambda key: rates[key])
    return fastest if rates[fastest] > worth * rates[default] else default


def _shown(rates: Mapping[Any, float], word: str) -> str:
    return ", ".join(f"{rate / 1e9:.0f} GFLOP/s {word} {key}" for key, rate in rates.items())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _product(rows: int, product: Product) -> tuple[int, Callable[[], float]]:
    """A product of (rows, width) by (width, width): its operations, and what makes it."""
    one, other = (torch.ones(size, _WIDTH, device=_device()) for size in (rows, _WIDTH))
    return 2 * rows * _WIDTH**2, lambda: float(product(one, other, None)[0, 0])  # which waits for the device


def _rates(
    arms: Mapping[Key, tuple[int, Callable[[], object]]], rounds: int = 8, patience: float | None = None
) -> tuple[dict[Key, float], bool]:
    """The best of a few rounds for each, in turn, and whether each had an undisturbed one; only those count then."""
    best: dict[Key, tuple[bool, float]] = dict.fromkeys(arms, (True, float("inf")))
    end = time.perf_counter() + (_PATIENCE if patience is None else patience)
    done = 0

    def is_disturbed() -> bool:
        return any(disturbed for disturbed, _ in best.values())

    while done < 3 or (time.perf_counter() < end and (done < rounds or is_disturbed())):
        for key, (_, work) in arms.items():
            best[key] = min(best[key], _timed(work))
        done += 1
    return {key: operations / best[key][1] for key, (operations, _) in arms.items()}, not is_disturbed()


def _timed(work: Callable[[], object]) -> tuple[bool, float]:
    """Whether ``work`` was disturbed, and its seconds."""
    started, used = time.perf_counter(), time.process_time()
    work()
    used, seconds = time.process_time() - used, time.perf_counter() - started
    return _device() == "cpu" and used < _UNDISTURBED * seconds * torch.get_num_threads(), seconds
