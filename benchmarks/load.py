"""A load generator that costs little of the two cores it shares with the server: one thread, prebuilt requests."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Outcome:
    """Latencies in seconds of each status, and how long it all took."""

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, latency: float) -> None:
        self.latencies.setdefault(status, []).append(latency)

    def summary(self) -> dict[str, Any]:
        good = np.asarray(self.latencies.get(200, [float("nan")])) * 1e3
        found: dict[str, Any] = {
            "statuses": dict(Counter({str(status): len(all_) for status, all_ in self.latencies.items()})),
            "requests_per_second": len(self.latencies.get(200, ())) / self.seconds,
            "p50_ms": float(np.percentile(good, 50)),
            "p99_ms": float(np.percentile(good, 99)),
        }
        refused = [one for status, all_ in self.latencies.items() if status not in (0, 200) for one in all_]
        if refused:
            found["refused_p50_ms"], found["refused_p99_ms"] = (
                float(value) * 1e3 for value in np.percentile(refused, [50, 99])
            )
        return found


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    """One request at a time on one kept connection; answers must have a Content-Length."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] | None = None
        self.found = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.found += data
        head, separator, body = self.found.partition(b"\r\n\r\n")
        if not separator:
            return
        start = head.lower().index(b"content-length:") + 15
        if len(body) >= int(head[start:].split(b"\r\n", 1)[0]) and self.answer and not self.answer.done():
            status, self.found = int(head[9:12]), b""
            self.answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_result(0)

    async def ask(self, sent: bytes) -> int:
        if self.transport.is_closing():
            return 0
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(sent)
        return await self.answer


async def _connect(port: int) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
    return connection


async def closed(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """Clients that each send the next request when the last is answered."""
    outcome = Outcome()
    began = time.perf_counter()

    async def client(number: int) -> None:
        connection = await _connect(port)
        index = number
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            status = await connection.ask(requests[index % len(requests)])
            outcome.add(status, time.perf_counter() - sent)
            index += clients
            if connection.transport.is_closing():
                connection = await _connect(port)
        connection.transport.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def opened(port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int = 512) -> Outcome:
    """Requests at random times (Poisson), whether or not the server keeps up. Latency counts from the time when a
    request was due, so a server that falls behind can't hide it; due without a free connection counts as status 0."""
    outcome = Outcome()
    free = [await _connect(port) for _ in range(min(connections, 64))]
    made = len(free)
    due = np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)))
    under_way: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(index: int, at: float) -> None:
        nonlocal made
        if not free and made >= connections:
            outcome.add(0, 0.0)
            return
        if free:
            connection = free.pop()
        else:
            made += 1
            connection = await _connect(port)
        status = await connection.ask(requests[index % len(requests)])
        outcome.add(status, time.perf_counter() - began - at)
        if connection.transport.is_closing():
            made -= 1
        else:
            free.append(connection)

    for index, at in enumerate(due):
        if (wait := began + at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        elif index % 32 == 0:
            await asyncio.sleep(0)
        task = asyncio.ensure_future(one(index, float(at)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    outcome.seconds = time.perf_counter() - began
    await asyncio.wait_for(asyncio.gather(*under_way), 60)
    for connection in free:
        connection.transport.close()
    return outcome
