"""What the commands share: their common options, and how options become a recipe or a data section."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError
from featherweight.process import launch
from featherweight.records.questions import GENERATION

if TYPE_CHECKING:
    from featherweight.recipe import Recipe

Arguments = argparse.Namespace


def command(commands: Any, name: str, run: Callable[[Arguments], None], help: str, example: str) -> Any:  # noqa: A002
    parser = commands.add_parser(
        name, help=help, description=help[0].upper() + help[1:] + ".", epilog=f"example:\n  {example}"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, alone on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress and no tables")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=run, in_fleet=False)
    return parser


def add_set(parser: Any, what: str = "set a key of the recipe; VALUE is TOML, or plain text") -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="assignments", help=what
    )


def add_reading(parser: Any) -> None:
    """How data files are read; the same as the keys of the data section."""
    parser.add_argument("--encoding", metavar="NAME", help="encoding of the data files, such as cp1252 or utf-16")
    add_delimiter(parser)
    parser.add_argument(
        "--skip-bad-rows",
        nargs="?",
        type=float,
        const=0.01,
        metavar="SHARE",
        help="leave out rows that can't be read, up to this share of a file (default, where given: 0.01)",
    )


def add_delimiter(parser: Any) -> None:
    parser.add_argument(
        "--delimiter",
        metavar="CHARACTER",
        help="what separates the fields of CSV and TSV: ';', '|', tab (default: found)",
    )


def add_generation(parser: Any) -> None:
    """How text is written, by the names of transformers' GenerationConfig."""
    group = parser.add_argument_group("of models that write text")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="at most so many tokens (default: 256)")
    group.add_argument(
        "--num-beams",
        type=int,
        metavar="N",
        help="texts that are weighed side by side (default: the model's own, or 1)",
    )
    group.add_argument(
        "--temperature", type=float, metavar="T", help="0 takes the likeliest token each time (default: 0)"
    )
    group.add_argument(
        "--top-p", type=float, metavar="P", help="draw among the likeliest tokens with so much probability (default: 1)"
    )
    group.add_argument("--seed", type=int, metavar="N", help="of what is drawn (default: 0)")


def generation_of(arguments: Arguments) -> dict[str, Any]:
    """What those flags say. Raises ConfigError for what is no length, temperature or probability."""
    given = {key: getattr(arguments, key) for key in GENERATION if getattr(arguments, key) is not None}
    right = {
        "max_new_tokens": given.get("max_new_tokens", 1) >= 1,
        "num_beams": given.get("num_beams", 1) >= 1,
        "temperature": 0 <= given.get("temperature", 0) < float("inf"),
        "top_p": 0 < given.get("top_p", 1) <= 1,
        "seed": 0 <= given.get("seed", 0) < 2**63,
    }
    if wrong := [key for key in given if not right[key]]:
        wanted = {"temperature": "from 0", "top_p": "above 0 up to 1", "seed": "from 0"}.get(wrong[0], "from 1")
        flag = wrong[0].replace("_", "-")
        raise ConfigError(f"--{flag} {given[wrong[0]]}: a number {wanted} was expected")
    return given


def add_ray(parser: Any, workers: str) -> None:
    """Where work is done on a Ray cluster."""
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument(
        "--ray", metavar="ADDRESS", help="of the cluster; local starts one on this machine, auto takes the running one"
    )
    group.add_argument("--workers", type=int, metavar="N", help=workers)


def cluster_of(arguments: Arguments) -> dict[str, Any]:
    """``cluster``, where those flags name one. Raises ConfigError where they don't go together."""
    if arguments.ray is None and arguments.workers is None:
        return {}
    if arguments.ray is None:
        raise ConfigError("--workers: goes with --ray ADDRESS")
    if arguments.workers is None or arguments.workers < 1:
        raise ConfigError("--ray: say with --workers how many there are, 1 or more")
    from featherweight.workflow.on_ray import Cluster

    return {"cluster": Cluster(arguments.ray, arguments.workers)}


def add_base_model(parser: Any) -> None:
    parser.add_argument(
        "--base-model",
        metavar="MODEL",
        help="where an adapter's base model is on this machine (default: as it says itself)",
    )


def reading_keys(arguments: Arguments) -> dict[str, Any]:
    given = {key: getattr(arguments, key) for key in ("encoding", "delimiter", "skip_bad_rows")}
    return {key: value for key, value in given.items() if value is not None}


def add_recipe(parser: Any) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a TOML file; flags and --set go over it")
    parser.add_argument("--model", metavar="MODEL", help="hub id, folder, .gguf file or package:NAME/PATH")
    parser.add_argument("--data", metavar="FILE", help="file, pattern for files, folder, hub id or package:NAME/PATH")
    add_set(parser)
    add_reading(parser)


def console_for(arguments: Arguments) -> Any:
    from featherweight.report.console import Console

    follows = launch.place().rank > 0  # and says nothing
    return Console(quiet=arguments.quiet or follows, as_json=arguments.json and not follows)


def recipe_of(arguments: Arguments, more: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """What the recipe and the flags over it say; ``more`` of a command's own flags, by section and key."""
    from featherweight import recipe as recipes

    overrides: dict[str, Any] = recipes.parse_set(arguments.assignments)
    for section, values in (more or {}).items():
        if values:
            overrides[section] = overrides.get(section, {}) | values
    if arguments.model:
        overrides.setdefault("model", {})["name"] = arguments.model
    if arguments.data:
        overrides["data"] = data_keys(arguments.data) | overrides.get("data", {})
    if reading := reading_keys(arguments):
        overrides["data"] = overrides.get("data", {}) | reading
    if arguments.recipe is None and not ("model" in overrides and "data" in overrides):
        raise ConfigError("give a RECIPE, or --model and --data")
    return recipes.load(arguments.recipe, overrides)


def data_keys(value: str) -> dict[str, Any]:
    """What ``--data`` means: a file, or a pattern for files, is a train file, all else is the data set's name; a
    recipe's own source goes."""
    from featherweight.recipe import FILE_KEYS
    from featherweight.sources.formats import on_disk

    nothing: dict[str, Any] = dict.fromkeys(("name", *FILE_KEYS))
    path = Path(value)
    is_file = on_disk(path).is_file() or (has_magic(value) and not path.exists())
    return nothing | ({"train_file": value} if is_file and not may_hold_splits(value) else {"name": value})


def may_hold_splits(value: str) -> bool:
    """Whether it is a folder or a zip file, which may hold several files."""
    from featherweight.sources.formats import zipped

    path = Path(value)
    return path.is_dir() or zipped.of(path) == path


def data_section(
    target: str, value: str | None, assignments: Sequence[str], reading: dict[str, Any], task: str | None = None
) -> Any:
    """The data that ``evaluate`` measures on: a run's own columns and labels, under what was given."""
    from featherweight import recipe as recipes
    from featherweight.inference.facts import task_named
    from featherweight.runs.directory import RunDirectory
    from featherweight.sources import archives

    overrides = recipes.parse_set(assignments).get("data", {}) | reading
    if value is None and not overrides:
        return None
    run = RunDirectory(archives.unpacked(target))
    known: dict[str, Any] = {}
    if run.recipe.is_file():
        known = recipes.load(run.recipe).data.model_dump(exclude_none=True, exclude={"max_length"})
    if value is not None:
        for key in ("filter", "slices", "group"):
            known.pop(key, None)
        known |= data_keys(value)
    return recipes.load_data_section({**known, **overrides}, task or task_named(target))


def quiet_libraries() -> None:
    """Our own progress is the only one; must run before transformers is imported."""
    import logging
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bar for GGUF knows no other switch
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it; it misses kernels of its own
