"""A server under test: the installed command as a process of its own, asked over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import warm
from warm import Started

KEY = "a-key-of-enough-characters"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running server. ``lines`` are those of its log, parsed."""

    process: Started
    port: int
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, key: str | None = None
    ) -> Answer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def predict(self, texts: Sequence[str], model: str | None = None, **more: Any) -> Answer:
        content = {"texts": list(texts)} | ({"model": model} if model else {})
        return self.ask("POST", "/v1/predict", content, **more)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def memory(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def running(*arguments: str | Path, key: str | None = None) -> Iterator[Server]:
    """``featherweight serve`` on a free port, until the block ends, in a process that finds all libraries imported."""
    environment = {name: value for name, value in os.environ.items() if name != "FEATHERWEIGHT_API_KEY"}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"FEATHERWEIGHT_API_KEY": key} if key else {})
    process = warm.shared().start(["serve", "--port", "0", *map(str, arguments)], environment)
    server = Server(process, 0)
    listening: queue.Queue[str] = queue.Queue()
    said: list[str] = []

    def read() -> None:
        for line in process.stderr:
            said.append(line)
            if not line.startswith("{"):
                continue
            server.lines.append(json.loads(line))
            if server.lines[-1]["event"] == "listening":
                listening.put(server.lines[-1]["url"])
        listening.put("")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        url = listening.get(timeout=120)
        assert url, "".join(said)
        server.port = int(url.rpartition(":")[2])
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
