"""``featherweight completion``."""

from __future__ import annotations

import argparse
from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for

SHELLS = ("bash", "zsh", "fish")
# What the names of arguments in --help mean to a shell.
_FILES = {"RECIPE", "RUN", "MODEL", "MODEL_OR_RUN", "PATH", "FILE", "CHECKPOINT"}
_FOLDERS = {"DIR"}


def add(commands: Any) -> None:
    parser = command(
        commands,
        "completion",
        _completion,
        "a script that completes commands, options and files in a shell",
        "featherweight completion bash",
    )
    parser.add_argument("shell", choices=SHELLS, help="source what is printed, or put it where the shell looks")


def _completion(arguments: Arguments) -> None:
    import shtab

    from featherweight.cli import build_parser

    parser = build_parser()
    _say_what_are_files(parser, shtab)
    script = shtab.complete(parser, arguments.shell)
    if not arguments.json:
        print(script)
    console_for(arguments).result({"shell": arguments.shell, "script": script})


def _say_what_are_files(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Mark, in each command, what takes a file or a folder."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _say_what_are_files(one, shtab)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
