"""``featherweight run``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, add_recipe, command, console_for, quiet_libraries, recipe_of


def add(commands: Any) -> None:
    parser = command(
        commands,
        "run",
        _run,
        "measure the base model, tune it, measure again, compare, publish",
        "featherweight run recipes/demo.toml --set training.num_train_epochs=1 --output-dir runs/try",
    )
    add_recipe(parser)
    parser.add_argument("--output-dir", metavar="DIR", help="the run's folder (default: runs/<recipe's name>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="continue the run in its folder, from the newest checkpoint that is whole or from the one named",
    )


def _run(arguments: Arguments) -> None:
    recipe = recipe_of(arguments)
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    try:
        record = workflow.run(recipe, arguments.output_dir, resume=arguments.resume, console=console)
    finally:
        console.close()
    console.result({"run": record.path, **record.metrics})
