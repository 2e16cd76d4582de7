"""``featherweight chat``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherweight.cli.arguments import (
    Arguments,
    add_base_model,
    add_generation,
    command,
    console_for,
    generation_of,
    quiet_libraries,
)
from featherweight.storage.names import on_screen

if TYPE_CHECKING:
    from featherweight.workflow.chatting import Talk

_HELP = "/reset forgets what was said, /exit ends"


def add(commands: Any) -> None:
    parser = command(
        commands,
        "chat",
        _chat,
        "talk with a model that writes text, in the terminal",
        "featherweight chat runs/chat --compare",
    )
    parser.add_argument("run", metavar="RUN", help="a run, an adapter or a model that writes text")
    parser.add_argument("--compare", action="store_true", help="the model before tuning answers, too")
    parser.add_argument("--system", metavar="TEXT", help="the system's message, which comes first")
    add_base_model(parser)
    add_generation(parser)


def _chat(arguments: Arguments) -> None:
    generation = generation_of(arguments)
    quiet_libraries()
    from featherweight.workflow.chatting import talks

    console = console_for(arguments)
    console.begin("loading the model")
    found = talks(
        arguments.run,
        compare=arguments.compare,
        system=arguments.system,
        base_model=arguments.base_model,
        generation=generation,
    )
    console.say(_HELP)
    for line in _lines():
        if line == "/exit":
            return
        if line == "/reset":
            for one in found.values():
                one.reset()
        elif line:
            _answer(found, line, arguments.json, console)


def _answer(talks: Mapping[str, Talk], line: str, as_json: bool, console: Any) -> None:
    """What each model replies, as it writes it; as JSON once it has."""
    if as_json:
        console.result({"prompt": line, **{name: one.say(line) for name, one in talks.items()}})
        return
    for name, one in talks.items():
        if len(talks) > 1:
            print(f"{name}: ", end="", flush=True)
        one.say(line, lambda part: print(on_screen(part), end="", flush=True))
        print(flush=True)


def _lines() -> Any:
    """What is typed, or comes from a pipe, line by line."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
