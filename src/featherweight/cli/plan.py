"""``featherweight plan``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, add_recipe, command, console_for, quiet_libraries, recipe_of


def add(commands: Any) -> None:
    parser = command(
        commands,
        "plan",
        _plan,
        "what a run will take here: steps, time, memory, disk; trains nothing that is kept",
        "featherweight plan recipes/demo.toml",
    )
    add_recipe(parser)


def _plan(arguments: Arguments) -> None:
    recipe = recipe_of(arguments)
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    try:
        console.result(workflow.plan(recipe, console=console))
    finally:
        console.close()
