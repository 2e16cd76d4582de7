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
    parser.add_argument("--force", action="store_true", help="begin even where the disk seems too small")


def _run(arguments: Arguments) -> None:
    from featherweight.process.signals import stop_on_signals

    console = console_for(arguments)
    # Before anything large is imported, which takes seconds: a signal during that is heard, too.
    with stop_on_signals(console.say):
        recipe = recipe_of(arguments)
        quiet_libraries()
        from featherweight import workflow
        from featherweight.workflow.resuming import command_line

        try:
            record = workflow.run(
                recipe,
                arguments.output_dir,
                resume=arguments.resume,
                force=arguments.force,
                console=console,
                continue_with=command_line(arguments.given, arguments.resume),
            )
        finally:
            console.close()
    console.result({"run": record.path, **record.metrics})
