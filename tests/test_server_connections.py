"""What a client can do to the server before its key is looked at: row 87, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import io
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.serving.connections import MAX_HEADERS
from featherweight.serving.settings import Settings

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
KEYED = f"Authorization: Bearer {serving.KEY}\r\n".encode()
LIMIT = Settings().max_head_bytes
CONNECTIONS = 60
MOST = 40_000_000  # bytes that any of these may add to the server's memory


@pytest.fixture(scope="module")
def run(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    train = tiny.save_csv(folder / "train.csv", tiny.rows(80))
    workflow.run(recipes.parse(tiny.recipe(models("bert"), train, training={"max_steps": 3})), folder / "one")
    return folder / "one"


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[serving.Server]:
    with serving.running(run, "--head-timeout", "3", "--timeout", "3", key=serving.KEY) as started:
        for _ in range(3):
            assert started.predict(["great"], key=serving.KEY).status == 200
        yield started


def sent(server: serving.Server, content: bytes) -> list[serving.Answer]:
    """Every answer to these very bytes, until the server closes."""
    found = b""
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        while part := connection.recv(65536):
            found += part
    return list(answers(found))


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)

    def makefile(self, *_: object) -> io.BytesIO:
        return self.stream


def answers(content: bytes) -> Iterator[serving.Answer]:
    source = _Bytes(content)
    while source.stream.tell() < len(content):
        one = http.client.HTTPResponse(source)  # type: ignore[arg-type]
        source.stream.close = lambda: None  # type: ignore[method-assign]
        one.begin()
        yield serving.Answer(one.status, {name.lower(): value for name, value in one.getheaders()}, one.read())


def get(path: bytes = b"/health", *headers: bytes, close: bool = True) -> bytes:
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: localhost", *headers, *([b"Connection: close"] if close else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (get(b"/" + b"x" * LIMIT), 431),
        (get(b"/health", b"X: " + b"x" * LIMIT), 431),
        (get(b"/health", *[b"X%d: y" % number for number in range(MAX_HEADERS)]), 431),
        (get(b"/health", *[b"A: b"] * 5000), 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2 * LIMIT, 431),
        (b"GET /" + b"x" * 2 * LIMIT, 431),
        (b"\r\n" * LIMIT, 431),
        (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (get(b"/health", b"Host: localhost"), 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + KEYED + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (HEAD + KEYED + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: " + b"x" * 2 * LIMIT, 431),
        (HEAD + KEYED + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2 * LIMIT, 431),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)  # fmt: skip
def test_row_87_what_the_protocol_refuses_is_answered_as_all_else(
    content: bytes, status: int, server: serving.Server
) -> None:
    (got,) = sent(server, content)
    assert got.status == status
    assert isinstance(got.json["detail"], str)
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["connection"] == "close"
    time.sleep(0.05)
    lines = [line for line in server.lines if line.get("request_id") == got.headers["x-request-id"]]
    assert [line["status"] for line in lines] == [status]
    assert server.ask("GET", "/health").status == 200


def test_row_87_what_is_within_the_limits_is_answered(server: serving.Server) -> None:
    room = LIMIT - 200
    assert [one.status for one in sent(server, get(b"/health?" + b"x" * room))] == [200]
    assert [one.status for one in sent(server, get(b"/health", b"X: " + b"x" * room))] == [200]
    many = [b"X%d: y" % number for number in range(MAX_HEADERS - 2)]
    assert [one.status for one in sent(server, get(b"/health", *many))] == [200]
    assert [one.status for one in sent(server, b"GET /health HTTP/1.0\r\n\r\n")] == [200], "1.0 has no Host"
    slowly = get(b"/health", b"X: " + b"x" * room)
    with server.connect() as connection:
        for start in range(0, len(slowly), 1000):
            connection.sendall(slowly[start : start + 1000])
            time.sleep(0.01)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_row_87_what_came_before_is_answered_first(server: serving.Server) -> None:
    text = b'{"texts": ["great"]}'
    asked = HEAD + KEYED + b"Content-Length: %d\r\n\r\n" % len(text) + text
    assert [one.status for one in sent(server, asked + b"\x00")] == [200, 400]
    assert [one.status for one in sent(server, asked + get() + get())] == [200, 200]
    ahead = [one.status for one in sent(server, asked + get(close=False) * 50)]
    assert ahead == [200] * (len(ahead) - 1) + [429]
    assert 2 < len(ahead) < 12


def test_row_87_trailers_are_no_headers(server: serving.Server) -> None:
    body = b'14\r\n{"texts": ["great"]}\r\n0\r\n'
    assert sent(server, CHUNKED + body + KEYED + b"Connection: close\r\n\r\n")[0].status == 401
    end = HEAD + KEYED + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert [one.status for one in sent(server, end + body + b"T: x\r\n\r\n")] == [200]


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "a header without end": (get()[:-2] + b"X: ", b"x"),
    "headers without end": (get()[:-2], b"A: b\r\n"),
    "an address without end": (b"GET /", b"x"),
    "a method without end": (b"", b"GET"),
    "no lines": (b"", b"\x00"),
    "blank lines": (b"", b"\r\n"),
    "requests ahead": (b"", get(b"/openapi.json", close=False)),
    "small requests ahead": (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a body": (HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x"),
    "a body of small chunks": (CHUNKED, b"1\r\nx\r\n"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "a chunk's size": (CHUNKED, b"0"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n"),
    "a trailer without end": (CHUNKED + b"0\r\nA: ", b"b"),
}


def flood(server: serving.Server, begin: bytes, more: bytes, seconds: float) -> tuple[int, int, list[float]]:
    """Send without end on many connections, each opened again once it is closed.

    Returns:
        Bytes sent, the most that the server's memory grew by, and how long others waited for an answer.
    """
    before, most, total, waits = server.memory(), 0, 0, []
    content = more * (65536 // len(more))
    selector = selectors.DefaultSelector()

    def connect() -> None:
        connection = server.connect()
        connection.sendall(begin)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_WRITE)

    for _ in range(CONNECTIONS):
        connect()
    end = asked = time.monotonic()
    end += seconds
    while (now := time.monotonic()) < end:
        for key, _ in selector.select(timeout=0.1):
            try:
                total += key.fileobj.send(content)  # type: ignore[union-attr]
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                with contextlib.suppress(OSError):
                    connect()
        most = max(most, server.memory() - before)
        if now - asked > 0.3:
            asked = time.monotonic()
            assert server.ask("GET", "/health").status == 200
            waits.append(time.monotonic() - asked)
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return total, max(most, server.memory() - before), waits


@pytest.mark.parametrize("kind", FLOODS)
def test_row_87_floods_without_a_key_take_little_memory(kind: str, server: serving.Server) -> None:
    sent_bytes, grown, waits = flood(server, *FLOODS[kind], seconds=1.5)
    assert sent_bytes > CONNECTIONS * LIMIT
    assert max(waits) < 10
    assert grown < MOST
    assert server.predict(["great"], key=serving.KEY).status == 200


def test_row_87_bodies_that_wait_are_bounded_together(run: Path) -> None:
    """The room is for about three of these bodies; who comes later is told, and served once there is room again."""
    limits = ["--max-body-bytes", "100000", "--max-head-bytes", "1000", "--max-waiting-bytes", "310000"]
    with serving.running(run, *limits, "--timeout", "20", "--max-text-characters", "100000") as server:
        unfinished = HEAD + b"Content-Length: 99000\r\n\r\n" + b'{"texts": ["' + b"x" * 95000
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(server.connect()).sendall(unfinished)
            until(lambda: server.predict(["great"] * 100, model="x" * 90000).status == 503)
            (got,) = sent(server, unfinished)
            assert got.status == 503
            assert got.headers["retry-after"]
            assert server.predict(["great"]).status == 200, "small ones still fit"
        until(lambda: server.predict(["great"], model="x" * 90000).status == 404)
        before = server.memory()
        for _ in range(200):
            assert server.predict(["great"], model="x" * 90000).status == 404
        assert server.memory() - before < 10_000_000


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_row_87_a_body_that_nobody_reads_ends_its_connection(server: serving.Server) -> None:
    """By its bytes, or by the time that it takes."""
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 900000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x" * 65536)
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 20:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() < began + 6
    with server.connect() as connection:  # a small rest does not cost the connection
        connection.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
        assert connection.recv(12) == b"HTTP/1.1 401"
        connection.sendall(b"67890" + get())
        rest = b""
        while part := connection.recv(65536):
            rest += part
        assert b"HTTP/1.1 200 " in rest


def test_row_87_answers_that_nobody_takes_end_their_connection(server: serving.Server) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    asked = get(b"/openapi.json", KEYED.strip(), close=False)
    with contextlib.closing(connection):
        began, ended = time.monotonic(), False
        while not ended and time.monotonic() < began + 20:
            try:
                connection.send(asked)
                time.sleep(0.002)
            except ConnectionError:
                ended = True
        assert ended


def test_row_87_settings_that_can_not_hold_one_request_are_refused(run: Path, cli: Callable[..., object]) -> None:
    ended = cli("serve", run, "--max-waiting-bytes", "1000")
    assert ended.returncode == 2  # type: ignore[attr-defined]
    assert "--max-waiting-bytes" in ended.stderr  # type: ignore[attr-defined]
