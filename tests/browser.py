"""Headless Chromium through chromedriver's own HTTP interface (W3C WebDriver), without a client library."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib import request

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


class Browser:
    """One page of one browser."""

    def __init__(self, address: str, session: str) -> None:
        self._base = f"{address}/session/{session}"

    def open(self, page: Path | str, width: int = 1200, scheme: str = "light", media: str = "screen") -> None:
        """Load a file or an address at a width in CSS pixels, under a colour scheme, for the screen or for print."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=features)
        _post(f"{self._base}/url", {"url": page if isinstance(page, str) else page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page; a promise is waited for."""
        return _post(f"{self._base}/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Keys one after the other, as a keyboard sends them (WebDriver's code points for those without a letter)."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        _post(f"{self._base}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def log(self) -> list[dict[str, Any]]:
        """What the console holds since it was asked last: errors, refused requests."""
        found: list[dict[str, Any]] = _post(f"{self._base}/se/log", {"type": "browser"})
        return found

    def devtools(self, command: str, **parameters: Any) -> Any:
        return _post(f"{self._base}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, target: Path, top: int, height: int, scale: float = 1.0) -> None:
        """A part of the page, beyond the window too, as PNG."""
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": scale}
        taken = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        target.write_bytes(base64.b64decode(taken["data"]))


@contextlib.contextmanager
def start() -> Iterator[Browser]:
    """A browser of its own profile, ended at the end."""
    assert CHROMIUM
    assert DRIVER
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = _session(address, {"capabilities": {"alwaysMatch": wanted}})
            yield Browser(address, session)
            with contextlib.suppress(OSError):
                request.urlopen(request.Request(f"{address}/session/{session}", method="DELETE"), timeout=30).close()
        finally:
            driver.terminate()
            try:
                driver.wait(10)
            except subprocess.TimeoutExpired:  # it does not always hear that
                driver.kill()
                driver.wait()


def _session(address: str, capabilities: dict[str, Any]) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            return str(_post(f"{address}/session", capabilities)["sessionId"])
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _post(address: str, content: dict[str, Any]) -> Any:
    data = json.dumps(content).encode()
    asked = request.Request(address, data=data, headers={"Content-Type": "application/json"})
    with request.urlopen(asked, timeout=120) as answer:
        return json.load(answer)["value"]
