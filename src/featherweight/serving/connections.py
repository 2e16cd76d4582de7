"""uvicorn's HTTP connections, with what it leaves out: limits on the bytes, the headers and the time of a request's
head, on requests sent ahead, on connections, and on all the bytes that wait for an answer.

What a connection refuses is answered by the application (:class:`featherweight.serving.guards.Refuse`), as a request
of its own, so that it is logged, counted and has the headers that every answer has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from featherweight.serving.settings import Settings

MAX_HEADERS = 100
_PIECE = 4096  # bytes that the parser is given at once, so that an endless line is seen before it is kept
_AHEAD = 8  # requests that may wait on a connection for the answer to an earlier one
_UNREAD = 65_536  # bytes of a body that may still come in once its request is answered


class _Stopped(Exception):
    """Ends the parser's work from within one of its callbacks."""


@dataclass
class Shared:
    """What all connections of a server have in common.

    Attributes:
        idle: connections without a request, in the order in which they became so.
        waiting: bytes of all requests that are not answered yet.
    """

    idle: dict[Connection, None] = field(default_factory=dict)
    waiting: int = 0


def protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """The connection class of one server, for ``uvicorn.Config(http=...)``."""
    return type("Connection", (Connection,), {"settings": settings, "shared": Shared()})


class Connection(HttpToolsProtocol):
    """One client's; :func:`protocol` gives it what it shares with the others."""

    settings: ClassVar[Settings]
    shared: ClassVar[Shared]
    _deadline: asyncio.TimerHandle | None = None  # for the next head, or the rest of an unread body
    _stuck: asyncio.TimerHandle | None = None  # for an answer that nobody takes
    _refusal: tuple[int, str] | None = None
    _refused = False
    _in_head = _in_body = False
    _parsed = False  # whether the parser has found anything whole in the piece that it has
    _line = 0  # bytes given to the parser since it found anything whole
    _head = 0  # bytes of the head, or of the trailers, as far as they are parsed
    _unread = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._held: deque[int] = deque()  # bytes of each request that is not answered yet
        self.shared.idle[self] = None
        self._expect(self.settings.head_timeout)
        if len(self.connections) > self.settings.max_connections:
            oldest = next(iter(self.shared.idle))  # there is always one: this
            del self.shared.idle[oldest]  # at once: more may come before it is told that it is lost
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.idle.pop(self, None)
        self._is_there()
        self.resume_writing()
        while self._held:
            self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect(self.settings.head_timeout)  # a head, whatever comes before it
        for start in range(0, len(data), _PIECE):
            if self._refused or self.transport.is_closing():
                return
            piece = data[start : start + _PIECE]
            self._parsed = False
            super().data_received(piece)
            self._line = 0 if self._parsed else self._line + len(piece)
            if self._line > self.settings.max_head_bytes and not self._refused:
                self._refuse(*self._too_large())

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._refusal or (400, "this is no valid HTTP request")))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._parsed = self._in_head = True
        self._head = self._unread = 0
        self._held.append(0)
        if self._deadline is None:
            self._expect(self.settings.head_timeout)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(": \r\n"))
        if not self._in_head:
            return  # a trailer, which nobody here asks for
        if len(self.headers) >= MAX_HEADERS:
            self._stop(431, f"the head has more than {MAX_HEADERS} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _AHEAD:
            self._stop(429, f"more than {_AHEAD} requests wait on this connection; wait for answers")
        super().on_headers_complete()
        self.shared.idle.pop(self, None)
        self._is_there()
        self._in_head, self._in_body, self._head = False, True, 0

    def on_body(self, body: bytes) -> None:
        self._parsed = True
        if self.cycle.response_complete:
            self._unread += len(body)
            if self._unread > _UNREAD:
                self.transport.close()
            return
        self._hold(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()
        if self.cycle.response_complete:
            self.shared.idle[self] = None

    def on_response_complete(self) -> None:
        self._release()
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        self.cycle.body = bytearray()
        if self._in_body:
            self._expect(self.settings.head_timeout)
        else:
            self.shared.idle[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.settings.timeout, self._too_slow)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _count(self, size: int) -> None:
        """More of the head, or of the trailers."""
        self._parsed = True
        self._head += size
        if self._head > self.settings.max_head_bytes:
            self._stop(*self._too_large())
        self._hold(size)

    def _hold(self, size: int) -> None:
        """More bytes that stay until their request is answered."""
        if not self._held:  # it is answered already
            return
        if self.shared.waiting + size > self.settings.max_waiting_bytes:
            self._stop(503, "too many bytes of other requests wait for an answer; try again")
        self.shared.waiting += size
        self._held[-1] += size

    def _release(self) -> None:
        """The oldest request is answered, or nobody waits for the answer."""
        self.shared.waiting -= self._held.popleft() if self._held else 0

    def _too_large(self) -> tuple[int, str]:
        return 431, f"the head is larger than {self.settings.max_head_bytes:,} bytes"

    def _stop(self, status: int, detail: str) -> None:
        self._refusal = status, detail
        raise _Stopped

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what is before, then this, then close; whatever else comes in is not looked at."""
        self._refused = True
        if self._in_body:  # whoever reads the body is told
            if self.cycle.response_complete:
                self.transport.close()
                return
            self.cycle.scope["state"]["refused"] = status, detail
            self.cycle.more_body = self.cycle.keep_alive = False
            self.cycle.message_event.set()
            return
        path = self.url.partition(b"?")[0].decode("ascii", "replace") if self._in_head else ""
        if not self._in_head:
            self._held.append(0)
        self.shared.idle.pop(self, None)
        self._is_there()
        super().on_message_begin()
        self.scope |= {"method": "-", "path": path, "raw_path": b"", "query_string": b""}
        self.scope["state"]["refused"] = status, detail
        before, self.cycle = self.cycle, self._cycle_of(self.scope)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.pipeline.appendleft((self.cycle, self.app))

    def _cycle_of(self, scope: Any) -> RequestResponseCycle:
        """One that has no body and is the connection's last."""
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        return cycle

    def _expect(self, seconds: float) -> None:
        """Close the connection unless what is expected :meth:`_is_there` in time."""
        self._is_there()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
