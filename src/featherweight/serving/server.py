"""The listening process: uvicorn, with a drain before it stops."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import FrameType
from typing import Any

import uvicorn

from featherweight.errors import ConfigError
from featherweight.serving import logs
from featherweight.serving.app import build
from featherweight.serving.catalogue import Catalogue
from featherweight.serving.connections import protocol
from featherweight.serving.settings import Settings

# The model's thread gives Python's lock up and takes it again around each of some hundred operations; where requests
# keep the other thread busy, it waits for as long as this each time.
_SWITCH_SECONDS = 2e-4
_log = logging.getLogger("featherweight.serving")


class _Server(uvicorn.Server):
    """The first SIGTERM or SIGINT drains, so that nobody's answer is lost; the second stops at once."""

    def __init__(self, config: uvicorn.Config, batcher: Any, timeout: float) -> None:
        super().__init__(config)
        self._batcher = batcher
        self._timeout = timeout
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started and self.servers:
            address = self.servers[0].sockets[0].getsockname()
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            _log.info("listening", extra={"facts": {"url": f"http://{host}:{address[1]}"}})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is None and self.started:
            self._batcher.draining = True  # /ready says so from now on
            self._draining = self._loop.create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        _log.info("draining", extra={"facts": {"waiting_tokens": self._batcher.waiting_tokens}})
        await self._batcher.drain(self._timeout)
        self.should_exit = True


def serve(catalogue: Catalogue, settings: Settings, quiet: bool) -> None:
    """Answer until a signal says stop.

    Raises:
        ConfigError: the address can't be listened on.
    """
    app, batcher = build(catalogue, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.head_timeout),
        timeout_graceful_shutdown=int(settings.timeout),
        h11_max_incomplete_event_size=None,
    )
    logs.configure(quiet)
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = _Server(config, batcher, settings.timeout)
    try:
        server.run()
    except SystemExit:
        server.started = False
    if not server.started:
        raise ConfigError(f"--host {settings.host} --port {settings.port}: can't be listened on; is it in use?")
    _log.info("stopped")
