"""``featherweight sweep``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import (
    Arguments,
    add_ray,
    add_recipe,
    cluster_of,
    command,
    console_for,
    quiet_libraries,
    recipe_of,
)


def add(commands: Any) -> None:
    parser = command(
        commands,
        "sweep",
        _sweep,
        "try many settings of a recipe, publish the best, compare it with the recipe as it stands",
        "featherweight sweep recipes/demo.toml --defaults --time-limit '15 min'",
    )
    add_recipe(parser)
    parser.add_argument(
        "--defaults",
        action="store_true",
        help="try the few keys that matter most for the method, without a [sweep] table (time limit: 15 min)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="at most so many, the recipe as it stands among them (default: 20 where there is no time limit)",
    )
    parser.add_argument("--time-limit", metavar="TIME", help="for all of it, such as '15 min' or '2 h'")
    parser.add_argument("--output-dir", metavar="DIR", help="the sweep's folder (default: runs/<recipe's name>-sweep)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the sweep in its folder, where it was stopped or killed, or to more trials",
    )
    add_ray(parser, "trials at a time; the cluster begins one again whose machine is gone")
    parser.add_argument("--force", action="store_true", help="begin even where the disk seems too small")


def _sweep(arguments: Arguments) -> None:
    from featherweight.process.signals import stop_on_signals

    console = console_for(arguments)
    # Before anything large is imported, which takes seconds: a signal during that is heard, too.
    with stop_on_signals(console.say):
        budget = {"trials": arguments.trials, "time_limit": arguments.time_limit}
        recipe = recipe_of(arguments, {"sweep": {key: one for key, one in budget.items() if one is not None}})
        quiet_libraries()
        from featherweight import workflow
        from featherweight.workflow.resuming import command_line

        cluster = cluster_of(arguments)
        sweep = workflow.sweep_on_ray if cluster else workflow.sweep
        try:
            found = sweep(
                recipe,
                arguments.output_dir,
                defaults=arguments.defaults,
                resume=arguments.resume,
                force=arguments.force,
                console=console,
                continue_with=command_line(arguments.given, arguments.resume),
                **cluster,
            )
        finally:
            console.close()
    console.result(found)
