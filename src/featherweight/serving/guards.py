"""What stands before the application, as plain ASGI: the log, the key, the host, the body. Outermost first."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from featherweight.serving.batching import Batcher, Overloaded
from featherweight.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_JSON = [(b"content-type", b"application/json")]
OPEN = ("/health", "/ready")  # exactly these, and nothing that only looks like them
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_log = logging.getLogger("featherweight.serving")


class Observe:
    """A line in the log and a count for every request, whoever answers it. Never a text, a query or a header."""

    def __init__(self, app: App, metrics: Metrics, routes: frozenset[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = uuid.uuid4().hex
        facts = scope.setdefault("state", {})
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            seconds = time.perf_counter() - began
            path = str(scope["path"])
            self.metrics.request(path if path in self.routes else "other", status, seconds)
            noted = {key: facts[key] for key in ("model", "texts", "cancelled") if key in facts}
            client = scope.get("client") or ("",)
            _log.info(
                "request",
                extra={
                    "facts": {
                        "request_id": request_id,
                        "client": client[0],
                        "method": scope["method"],
                        "path": path[:200],
                        "status": status,
                        "seconds": round(seconds, 6),
                        **noted,
                    }
                },
            )


class Refuse:
    """The answer to what the connection refused: no whole request, or one that is too large."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await refused(scope, send):
            await self.app(scope, receive, send)


async def refused(scope: Scope, send: Send) -> bool:
    """Answer, where the connection has refused the request by now."""
    found = scope.get("state", {}).get("refused")
    if found is None:
        return False
    status, detail = found
    again = [(b"retry-after", b"1")] if status in {429, 503} else []
    await respond(send, status, _json(detail), [*_JSON, (b"connection", b"close"), *again])
    return True


class RequireHost:
    """400 for HTTP/1.1 without its ``Host``, or with several, which others may read in another way."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = sum(name == b"host" for name, _ in scope["headers"])
            if hosts > 1 or (hosts == 0 and scope["http_version"] != "1.0"):
                detail = f"a request has one Host header, this one {hosts or 'none'}"
                await respond(send, 400, _json(detail), [*_JSON, (b"connection", b"close")])
                return
        await self.app(scope, receive, send)


class RequireKey:
    """401 for everything but health, unless the request bears the key. No list of routes, so none is forgotten."""

    def __init__(self, app: App, key: str | None) -> None:
        self.app = app
        self._digest = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._digest is None or scope["path"] in OPEN or self._bears(scope):
            await self.app(scope, receive, send)
            return
        body, kind = _json("this server wants its key: Authorization: Bearer KEY"), b"application/json"
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/":
            from featherweight.serving import page  # holds nothing of the server's, but asks for the key

            body, kind = page.html(), b"text/html; charset=utf-8"
        await respond(send, 401, body, [(b"content-type", kind), (b"www-authenticate", b"Bearer"), *_security(kind)])

    def _bears(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        assert self._digest is not None
        return hmac.compare_digest(_digest(key.strip()), self._digest) and scheme.lower() == b"bearer"


class RequireLocalHost:
    """For a server on this machine alone that wants no key: refuse other names for it, which a page on the web could
    give itself to be let in by the browser (DNS rebinding)."""

    _NAMES = (b"localhost", b"127.0.0.1", b"[::1]")

    def __init__(self, app: App, wanted: bool) -> None:
        self.app = app
        self.wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.wanted and scope["type"] == "http" and not self._is_local(scope):
            await respond(send, 421, _json("ask this server as localhost, or start it with an API key"))
            return
        await self.app(scope, receive, send)

    def _is_local(self, scope: Scope) -> bool:
        hosts = [value.lower() for name, value in scope["headers"] if name == b"host"]
        host = hosts[0] if len(hosts) == 1 else b""
        name = host.rpartition(b":")[0] if host.rpartition(b":")[2].isdigit() and not host.endswith(b"]") else host
        return name in self._NAMES or not hosts


class Shed:
    """429 for work while the queue is full, before its body is read: to refuse must cost far less than to answer."""

    def __init__(self, app: App, paths: Collection[str], batcher: Batcher) -> None:
        self.app = app
        self.paths = paths
        self.batcher = batcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self.paths and self.batcher.is_shedding:
            busy = Overloaded(self.batcher.retry_after)
            headers = [*_JSON, (b"retry-after", str(busy.retry_after).encode())]
            await respond(send, 429, _json(str(busy)), headers)
            return
        await self.app(scope, receive, send)


class _Gone(Exception):
    """The client went away before its body was here."""


class LimitBody:
    """Read the body before the application does, within a size and a time."""

    def __init__(self, app: App, max_bytes: int, timeout: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = [value for name, value in scope["headers"] if name == b"content-length"]
        if announced and (not announced[0].isdigit() or int(announced[0][:20]) > self.max_bytes):
            await self._refuse(send, 413, f"the body is larger than {self.max_bytes:,} bytes")
            return
        try:
            async with asyncio.timeout(self.timeout):
                body = await self._read(receive)
        except _Gone:
            scope.setdefault("state", {})["cancelled"] = True
            return
        except TimeoutError:
            await self._refuse(send, 408, f"the body did not arrive within {self.timeout:g} s")
            return
        if await refused(scope, send):
            return
        if body is None:
            await self._refuse(send, 413, f"the body is larger than {self.max_bytes:,} bytes")
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        parts = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts += message.get("body", b"")
            if len(parts) > self.max_bytes:
                return None
            if not message.get("more_body"):
                return bytes(parts)

    async def _refuse(self, send: Send, status: int, detail: str) -> None:
        # What is still under way is not read: the connection ends with the answer.
        await respond(send, status, _json(detail), [*_JSON, (b"connection", b"close")])


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """A whole answer."""
    headers = [*(_JSON if headers is None else headers), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _security(kind: bytes) -> list[tuple[bytes, bytes]]:
    if not kind.startswith(b"text/html"):
        return []
    from featherweight.serving import page

    return [(b"content-security-policy", page.policy().encode())]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _json(detail: str) -> bytes:
    return json.dumps({"detail": detail}).encode()
