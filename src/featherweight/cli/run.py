"""``featherweight run``."""

from __future__ import annotations

import sys
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
from featherweight.errors import ConfigError
from featherweight.process import launch


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
    parser.add_argument(
        "--seeds",
        metavar="N",
        help="a run for each of so many seeds, counted on from the recipe's, or of a list such as 1,2,3, and what they "
        "show together (default folder: runs/<recipe's name>-seeds)",
    )
    parser.set_defaults(in_fleet=True)
    parser.add_argument(
        "--num-processes",
        type=int,
        metavar="N",
        help="share the run between so many processes of this machine; torchrun and accelerate launch do it, too",
    )
    add_ray(parser, "processes that share the run; the cluster starts them again where one or its machine is gone")
    parser.add_argument("--force", action="store_true", help="begin even where the disk seems too small")


def _run(arguments: Arguments) -> None:
    from featherweight.process.signals import stop_on_signals

    if _is_for_several(arguments):
        from featherweight.process.starting import start

        sys.exit(start(arguments.given, arguments.num_processes))
    seeds = _seeds_of(arguments)
    console = console_for(arguments)
    # Before anything large is imported, which takes seconds: a signal during that is heard, too.
    with stop_on_signals(console.say):
        recipe = recipe_of(arguments)
        quiet_libraries()
        from featherweight import workflow
        from featherweight.workflow.resuming import command_line

        common = {
            "resume": arguments.resume or launch.place().restarts > 0,
            "force": arguments.force,
            "console": console,
            "continue_with": command_line(arguments.given, arguments.resume),
        }
        cluster = cluster_of(arguments)
        try:
            if seeds is not None:
                found = workflow.run_seeds(recipe, seeds, arguments.output_dir, **common)
            else:
                run = workflow.run_on_ray if cluster else workflow.run
                record = run(recipe, arguments.output_dir, **common, **cluster)
                found = {"run": record.path, **record.metrics}
        finally:
            console.close()
    console.result(found)


def _is_for_several(arguments: Arguments) -> bool:
    """Whether this process is to start those that run."""
    launch.require_whole()
    if arguments.ray is not None and (arguments.num_processes is not None or arguments.seeds is not None):
        raise ConfigError("--ray: goes with --workers, and neither with --num-processes nor with --seeds")
    asked, here = arguments.num_processes, launch.place()
    if asked is None or (asked == here.size and not here.is_alone):
        return False
    if not here.is_alone:
        raise ConfigError(f"--num-processes {asked}: a launcher has started {here.size} already; leave it out")
    if asked < 2:
        raise ConfigError(f"--num-processes {asked}: give 2 or more, or leave it out")
    return True


def _seeds_of(arguments: Arguments) -> int | list[int] | None:
    """How many, or which."""
    if arguments.seeds is None:
        return None
    if isinstance(arguments.resume, str):
        raise ConfigError(f"--resume {arguments.resume}: with --seeds, --resume names no checkpoint")
    try:
        named = [int(one) for one in arguments.seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {arguments.seeds}: give how many, or a list of them such as 1,2,3") from None
    return named if len(named) > 1 else named[0]
