"""uvicorn's HTTP connections, with what it leaves out: a limit on the time that a request's head may take, and on how
many connections may stand open with nothing on them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def protocol(head_timeout: float, max_connections: int) -> type[HttpToolsProtocol]:
    """The connection class for ``uvicorn.Config(http=...)``.

    Args:
        head_timeout: seconds from a connection's opening, or a further request's first byte, to the end of its head.
        max_connections: beyond it, the connection that has been idle for longest is closed.
    """
    idle: dict[Any, None] = {}  # in the order in which they became idle

    class Connection(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            idle[self] = None
            self._expect_head()
            if len(self.connections) > max_connections:
                oldest = next(iter(idle))  # there is always one: this
                del idle[oldest]  # at once: more may come before it is told that it is lost
                oldest.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            idle.pop(self, None)
            self._head_is_there()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._deadline is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            idle.pop(self, None)
            self._head_is_there()
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing() and self.cycle.response_complete:
                idle[self] = None

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(head_timeout, self._too_slow)

        def _head_is_there(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _too_slow(self) -> None:
            self._deadline = None
            if not self.transport.is_closing():
                self.transport.abort()

    return Connection
