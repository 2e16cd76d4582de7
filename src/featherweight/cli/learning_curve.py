"""``featherweight learning-curve``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, add_recipe, command, console_for, quiet_libraries, recipe_of


def add(commands: Any) -> None:
    parser = command(
        commands,
        "learning-curve",
        _learning_curve,
        "accuracy with an eighth of train up to all of it, and what more labels would bring",
        "featherweight learning-curve recipes/demo.toml --seeds 5",
    )
    add_recipe(parser)
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="draws of the rows for each size (default: 5)"
    )
    parser.add_argument(
        "--tune", action="store_true", help="tune at every size and seed, not only a linear probe on frozen features"
    )
    parser.add_argument(
        "--output-dir", metavar="DIR", help="where it goes (default: runs/<recipe's name>-learning-curve)"
    )


def _learning_curve(arguments: Arguments) -> None:
    recipe = recipe_of(arguments)
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    try:
        found = workflow.learning_curve(
            recipe, arguments.output_dir, seeds=arguments.seeds, tune=arguments.tune, console=console
        )
    finally:
        console.close()
    console.result(found)
