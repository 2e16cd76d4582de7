"""``featherweight compare``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for


def add(commands: Any) -> None:
    parser = command(
        commands,
        "compare",
        _compare,
        "paired comparison of finished runs, from their saved predictions",
        "featherweight compare runs/demo runs/try",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="one: against its base model; more: each against the first"
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="M",
        help="a loss of the headline that would not matter; says whether more is ruled out",
    )


def _compare(arguments: Arguments) -> None:
    from featherweight import workflow

    console = console_for(arguments)
    console.result(workflow.compare(arguments.runs, margin=arguments.margin, console=console))
