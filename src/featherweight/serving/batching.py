"""Dynamic micro-batching: a bounded queue in front of one thread that runs the models.

Nothing waits for company. Whatever has come in while a batch ran makes up the next one, in the order of arrival, up to
a budget of tokens; so a lone request is answered at once, and under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from featherweight.inference.backends import Ready, estimated_tokens
from featherweight.records.questions import Question
from featherweight.serving.catalogue import Catalogue, Served
from featherweight.serving.metrics import Metrics

_log = logging.getLogger("featherweight.serving")
_READ_AHEAD = 4  # budgets of tokens made ready beyond the batch that runs
_FREE_AGAIN = 0.75  # of the room, below which a queue that was full takes requests again
_REMEMBERED = 0.8  # weight of the past in the measured speed


class Overloaded(Exception):
    """The queue is full. Carries after how many seconds to try again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the server is busy")
        self.retry_after = retry_after


class Draining(Exception):
    """The server is shutting down."""


@dataclass(eq=False)
class _Request:
    served: Served
    asked: Sequence[Question]
    cost: int  # estimated tokens
    future: asyncio.Future[list[dict[str, Any]]]
    answers: list[Any] = field(default_factory=list)
    missing: int = 0

    def __post_init__(self) -> None:
        self.answers = [None] * len(self.asked)
        self.missing = len(self.asked)


@dataclass(frozen=True)
class _Item:
    request: _Request
    index: int
    ready: Ready


class Batcher:
    """Admits requests, packs their texts into batches, answers them.

    Args:
        token_budget: tokens of a batch; a longer text is a batch of its own.
        max_waiting_tokens: estimated tokens admitted and not answered yet; beyond it, requests are refused.
    """

    def __init__(self, catalogue: Catalogue, metrics: Metrics, *, token_budget: int, max_waiting_tokens: int) -> None:
        self.catalogue = catalogue
        self.metrics = metrics
        self.token_budget = token_budget
        self.max_waiting_tokens = max_waiting_tokens
        self.draining = False
        self._waiting = 0
        self._shedding = False
        self._speed = 0.0  # estimated tokens a second
        self._incoming: deque[_Request] = deque()
        self._ready: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._idle = asyncio.Event()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle.set()
        self._thread.start()

    @property
    def waiting_tokens(self) -> int:
        return self._waiting

    @property
    def retry_after(self) -> int:
        """Seconds until what waits now will be done, 1 to 60."""
        return min(max(ceil(self._waiting / self._speed) if self._speed else 1, 1), 60)

    @property
    def is_shedding(self) -> bool:
        """Whether requests are refused unread: from the first that found no room until a quarter is free again."""
        self._shedding = self._shedding and self._waiting > _FREE_AGAIN * self.max_waiting_tokens
        return self._shedding

    async def predict(self, served: Served, asked: Sequence[Question]) -> list[dict[str, Any]]:
        """The predictions for what is asked, in its order. Cancelling it takes the questions out of the queue.

        Raises:
            Overloaded: the queue is full.
            Draining: the server is shutting down.
        """
        if self.draining:
            raise Draining("the server is shutting down")
        cutting = served.backend.cutting(served.key)
        cost = sum(estimated_tokens(one.characters, cutting) + one.new_tokens for one in asked)
        if self._waiting and self._waiting + cost > self.max_waiting_tokens:
            self._shedding = True
            raise Overloaded(self.retry_after)
        request = _Request(served, asked, cost, self._loop.create_future())
        self._waiting += cost
        self._idle.clear()
        with self._changed:
            self._incoming.append(request)
            self._changed.notify()
        try:
            return await request.future
        finally:  # answered, failed or cancelled: all on the event loop's thread
            self._waiting -= cost
            if self._waiting == 0:
                self._idle.set()

    async def drain(self, timeout: float) -> None:
        """Refuse what is new, and wait until what was admitted is answered."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5)

    # From here on: the model's thread.

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._incoming or self._ready or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                fresh = self._pull()
            self._prepare(fresh)
            if batch := self._next_batch():
                self._run(batch)

    def _pull(self) -> list[_Request]:
        """Requests to make ready, in the order of arrival; those whose client left are skipped."""
        room = _READ_AHEAD * self.token_budget - sum(item.ready.cost for item in self._ready)
        fresh = []
        while self._incoming and room > 0:
            request = self._incoming.popleft()
            if not request.future.done():
                fresh.append(request)
                room -= request.cost
        return fresh

    def _prepare(self, requests: Sequence[_Request]) -> None:
        """Tokenise, all texts of one model together."""
        together: dict[str, list[_Request]] = {}
        for request in requests:
            together.setdefault(request.served.key, []).append(request)
        made: dict[_Request, list[Ready]] = {}
        for members in together.values():
            served = members[0].served
            try:
                rows = iter(served.backend.prepare(served.key, [question for one in members for question in one.asked]))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next request must be answered
                self._fail(members, error)
                continue
            made |= {one: [next(rows) for _ in one.asked] for one in members}
        for request in requests:
            self._ready.extend(_Item(request, index, one) for index, one in enumerate(made.get(request, ())))

    def _next_batch(self) -> list[_Item]:
        """The oldest text and what fits beside it of the same backend."""
        batch: list[_Item] = []
        left: deque[_Item] = deque()
        room = self.token_budget
        for item in self._ready:
            if item.request.future.done():
                continue
            fits = not batch or (
                item.ready.cost <= room and item.request.served.backend is batch[0].request.served.backend
            )
            if fits:
                batch.append(item)
                room -= item.ready.cost
            else:
                left.append(item)
        self._ready = left
        return batch

    def _run(self, batch: Sequence[_Item]) -> None:
        backend = batch[0].request.served.backend
        began = time.perf_counter()
        try:
            answers = backend.answer([item.request.served.key for item in batch], [item.ready for item in batch])
        except Exception as error:  # noqa: BLE001 - as above
            if len(batch) == 1:
                self._fail([batch[0].request], error)
            else:
                for item in batch:  # so that one text can't spoil the others' answers
                    if not item.request.future.done():
                        self._run([item])
            return
        tokens = sum(item.ready.cost for item in batch)
        speed = sum(item.request.cost / len(item.request.asked) for item in batch) / (time.perf_counter() - began)
        self._speed = _REMEMBERED * self._speed + (1 - _REMEMBERED) * speed if self._speed else speed
        self.metrics.batch(len(batch), tokens, time.perf_counter() - began)
        done = []
        for item, answer in zip(batch, answers, strict=True):
            request = item.request
            request.answers[item.index] = answer
            request.missing -= 1
            if request.missing == 0:
                done.append(request)
        if done:
            self._loop.call_soon_threadsafe(_resolve, done)

    def _fail(self, requests: Sequence[_Request], error: Exception) -> None:
        if any(not request.future.done() for request in requests):
            _log.error("failed", exc_info=error)
        self._loop.call_soon_threadsafe(_reject, list(requests), error)


def _resolve(requests: Sequence[_Request]) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_result(request.answers)


def _reject(requests: Sequence[_Request], error: Exception) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)
