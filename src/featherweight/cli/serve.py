"""``featherweight serve``."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from featherweight.cli.arguments import Arguments, add_base_model, command, quiet_libraries
from featherweight.errors import ConfigError
from featherweight.serving.settings import Settings

_KEY = "FEATHERWEIGHT_API_KEY"
_SHORTEST_KEY = 16
_NUMBERS = {
    "max_texts": "texts of a request",
    "max_text_characters": "characters of a text",
    "max_head_bytes": "bytes of a request's head; beyond it it gets 431",
    "max_body_bytes": "bytes of a request's body",
    "max_waiting_bytes": "bytes of all requests that wait for an answer; beyond it they get 503",
    "token_budget": "tokens of a batch",
    "max_waiting_tokens": "tokens that may wait; beyond it requests get 429",
    "timeout": "seconds that an answer may take, or its next part where it is streamed, and the shutdown",
    "head_timeout": "seconds that a request's head may take, and a connection be idle",
    "max_connections": "connections; beyond it idle ones are closed",
}


def add(commands: Any) -> None:
    parser = command(
        commands,
        "serve",
        _serve,
        "answer over HTTP, several adapters on one base model in memory",
        "featherweight serve runs/demo --port 8000",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, or whatever `evaluate` takes")
    add_base_model(parser)
    parser.add_argument("--host", default=Settings.host, help="any but 127.0.0.1 (the default) needs a key")
    parser.add_argument(
        "--port", type=int, default=Settings.port, help=f"0 takes a free one (default: {Settings.port})"
    )
    parser.add_argument(
        "--api-key-file", metavar="FILE", help=f"file with the key that clients must send; or set {_KEY}"
    )
    parser.add_argument(
        "--allow-dynamic-adapters",
        metavar="DIR",
        help="let clients load adapters out of this folder, and unload, while it runs",
    )
    for field in fields(Settings):
        if field.name in _NUMBERS:
            option, default = f"--{field.name.replace('_', '-')}", field.default
            parser.add_argument(
                option,
                type=type(default),
                default=default,
                metavar="N",
                help=f"{_NUMBERS[field.name]} (default: {default})",
            )


def _serve(arguments: Arguments) -> None:
    numbers = {name: getattr(arguments, name) for name in _NUMBERS}
    if low := [name for name, value in numbers.items() if not value > 0]:
        raise ConfigError(f"--{low[0].replace('_', '-')}: must be more than 0")
    if numbers["max_waiting_bytes"] < (least := numbers["max_head_bytes"] + numbers["max_body_bytes"]):
        raise ConfigError(f"--max-waiting-bytes: must hold one request, so {least:,} or more")
    if not 0 <= arguments.port < 65536:
        raise ConfigError(f"--port {arguments.port}: there are the ports 0 to 65535")
    dynamic = arguments.allow_dynamic_adapters
    settings = Settings(
        host=arguments.host,
        port=arguments.port,
        key=_key(arguments.api_key_file),
        dynamic=Path(dynamic) if dynamic else None,
        **numbers,
    )
    quiet_libraries()
    from featherweight import workflow

    def say(line: str) -> None:
        if not arguments.quiet:
            print(line, file=sys.stderr, flush=True)

    workflow.serve(arguments.runs, settings, quiet=arguments.quiet, say=say, base_model=arguments.base_model)


def _key(file: str | None) -> str | None:
    """The key, from the file or the environment; never from an argument, which every user of the machine can read."""
    if file is None:
        origin, key = _KEY, os.environ.get(_KEY)
        if key is None:
            return None
    else:
        origin = f"--api-key-file {file}"
        try:
            key = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"{origin}: can't be read: {reason}") from None
    key = key.strip()
    if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{origin}: a key has {_SHORTEST_KEY} characters or more, ASCII without spaces; try: openssl rand -hex 32"
        )
    return key
