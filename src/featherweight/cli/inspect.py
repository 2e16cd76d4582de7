"""``featherweight inspect``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, add_set, command, console_for
from featherweight.errors import ConfigError


def add(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="look into data before training", description="Look into data.")
    kinds = inspect.add_subparsers(title="what", metavar="KIND", required=True)
    parser = command(
        kinds,
        "data",
        _inspect_data,
        "label shares, lengths, duplicates and leaks, words that give the label away, suspected label errors",
        "featherweight inspect data train.tsv validation.tsv --set data.text=sentence",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="up to three files; each is looked at as one split")
    add_set(parser, "set a key of the data section, such as data.text=sentence")


def _inspect_data(arguments: Arguments) -> None:
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.recipe import FILE_KEYS

    if len(arguments.files) > len(FILE_KEYS):
        raise ConfigError(f"at most {len(FILE_KEYS)} files, taken as train, validation and test")
    keys = dict(zip(FILE_KEYS, arguments.files, strict=False))
    overrides = recipes.parse_set(arguments.assignments)
    section = recipes.load_data_section({**keys, **overrides.get("data", {})})
    console = console_for(arguments)
    console.result(workflow.inspect_data(section, console=console))
