"""``featherweight doctor``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for


def add(commands: Any) -> None:
    command(
        commands,
        "doctor",
        _doctor,
        "what this machine and this installation can do, and what to fix",
        "featherweight doctor",
    )


def _doctor(arguments: Arguments) -> None:
    from featherweight import workflow

    console = console_for(arguments)
    console.result(workflow.doctor(console=console))
