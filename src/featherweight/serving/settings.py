"""What a server may be told, with its defaults. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Limits and addresses of a server.

    Attributes:
        host: address to listen on; any but this machine's own wants a key.
        port: 0 takes a free one.
        key: what clients send as ``Authorization: Bearer KEY``.
        dynamic: folder out of which adapters may be loaded while the server runs; None for never.
        max_texts: texts of a request.
        max_text_characters: of one text. Tokens beyond the model's length are cut, and the answer says so.
        max_head_bytes: of a request's line and headers.
        max_body_bytes: of a request.
        max_waiting_bytes: of all requests that are not answered yet; beyond it they get 503.
        token_budget: tokens of a batch.
        max_waiting_tokens: admitted and unanswered; beyond it requests get 429.
        timeout: seconds that a request may wait for its answer, or for the next part of one that is streamed, a body to
            arrive, and the shutdown for what is left.
        head_timeout: seconds that a request's head may take, and a connection may be idle.
        max_connections: beyond it, idle ones are closed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    dynamic: Path | None = None
    max_texts: int = 128
    max_text_characters: int = 32_768
    max_head_bytes: int = 16_384
    max_body_bytes: int = 1_048_576
    max_waiting_bytes: int = 67_108_864
    token_budget: int = 2048
    max_waiting_tokens: int = 16_384
    timeout: float = 30.0
    head_timeout: float = 10.0
    max_connections: int = 1000

    @property
    def is_local(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}
