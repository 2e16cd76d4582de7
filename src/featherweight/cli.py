"""The command line: arguments to ``workflow``, errors to one line and an exit code. Thin, and quick to import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from featherweight import __version__
from featherweight.errors import ConfigError, DataError, FeatherweightError, ResourceError

if TYPE_CHECKING:
    from featherweight.recipe import Recipe

Arguments = argparse.Namespace


class _Parser(argparse.ArgumentParser):
    """One-line errors, and no guessing of abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or that of the error (see ``errors``); 130 after a Ctrl-C that could not be resumed.
    """
    arguments = build_parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except FeatherweightError as error:
        if arguments.debug:
            raise
        for line in str(error).splitlines():
            print(f"featherweight: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("featherweight: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; there is nobody to tell
        return 0
    except MemoryError:
        if arguments.debug:
            raise
        print("featherweight: out of memory; lower training.per_device_train_batch_size", file=sys.stderr)
        return ResourceError.exit_code
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Building it imports nothing heavy."""
    parser = _Parser(prog="featherweight", description="Lightweight fine-tuning of foundation models, with proof.")
    parser.add_argument("--version", action="version", version=f"featherweight {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    adders = (
        _add_run, _add_evaluate, _add_compare, _add_report, _add_predict, _add_plan, _add_inspect, _add_doctor,
    )  # fmt: skip
    for add in adders:
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[Arguments], None], help: str, example: str) -> Any:  # noqa: A002
    parser = commands.add_parser(
        name, help=help, description=help[0].upper() + help[1:] + ".", epilog=f"example:\n  {example}"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, alone on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress and no tables")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def _add_set(parser: Any, what: str = "set a key of the recipe; VALUE is TOML, or plain text") -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="assignments", help=what
    )


def _add_run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        _run,
        "measure the base model, tune it, measure again, compare, publish",
        "featherweight run recipes/demo.toml --set training.num_train_epochs=1 --output-dir runs/try",
    )
    _add_recipe(parser)
    parser.add_argument("--output-dir", metavar="DIR", help="the run's folder (default: runs/<recipe's name>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="continue the run in its folder, from the newest checkpoint that is whole or from the one named",
    )


def _add_recipe(parser: Any) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a TOML file; flags and --set go over it")
    parser.add_argument("--model", help="hub id, folder, .gguf file or package:NAME/PATH")
    parser.add_argument("--data", help="file, folder, hub id or package:NAME/PATH")
    _add_set(parser)


def _add_plan(commands: Any) -> None:
    parser = _command(
        commands,
        "plan",
        _plan,
        "what a run will take here: steps, time, memory, disk; trains nothing that is kept",
        "featherweight plan recipes/demo.toml",
    )
    _add_recipe(parser)


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "measure a run, an adapter or any model",
        "featherweight evaluate runs/demo --data new.csv --set data.text=review",
    )
    parser.add_argument(
        "model", metavar="MODEL_OR_RUN", help="run, adapter, folder, hub id, .gguf file or package file"
    )
    parser.add_argument("--data", help="what to measure on (default: the run's own held-out rows)")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="which split of the data")
    _add_set(parser, "set a key of the data section, such as data.label=stars")


def _add_compare(commands: Any) -> None:
    parser = _command(
        commands,
        "compare",
        _compare,
        "paired comparison of finished runs, from their saved predictions",
        "featherweight compare runs/demo runs/try",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="one: against its base model; more: each against the first"
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="M",
        help="a loss of accuracy that would not matter; says whether more is ruled out",
    )


def _add_report(commands: Any) -> None:
    parser = _command(
        commands,
        "report",
        _report,
        "write the HTML report again, or of several runs side by side",
        "featherweight report runs/demo runs/try --output both.html",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished runs; no model is loaded")
    parser.add_argument("--output", metavar="FILE", help="where to (default: the run's report.html, or ./report.html)")


def _add_predict(commands: Any) -> None:
    parser = _command(
        commands,
        "predict",
        _predict,
        "label and probability of texts",
        'featherweight predict runs/demo --text "A film I would gladly see again."',
    )
    parser.add_argument("run", metavar="RUN", help="a run, or whatever `evaluate` takes")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", help="a text; may be given again")
    source.add_argument("--input", metavar="FILE", help="CSV, TSV, JSONL or Parquet; - reads JSONL from a pipe")
    parser.add_argument("--output", metavar="FILE", help="where the rows go, with their predictions (default: -)")
    parser.add_argument("--calibrated", action="store_true", help="probabilities at the run's fitted temperature")
    parser.add_argument("--column", default="text", help="the column of --input that holds the text (default: text)")


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="look into data before training", description="Look into data.")
    kinds = inspect.add_subparsers(title="what", metavar="KIND", required=True)
    parser = _command(
        kinds,
        "data",
        _inspect_data,
        "label shares, lengths, duplicates and leaks, words that give the label away, suspected label errors",
        "featherweight inspect data train.tsv validation.tsv --set data.text=sentence",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="up to three files; each is looked at as one split")
    _add_set(parser, "set a key of the data section, such as data.text=sentence")


def _add_doctor(commands: Any) -> None:
    _command(
        commands,
        "doctor",
        _doctor,
        "what this machine and this installation can do, and what to fix",
        "featherweight doctor",
    )


def _console(arguments: Arguments) -> Any:
    from featherweight.report.console import Console

    return Console(quiet=arguments.quiet, as_json=arguments.json)


def _recipe(arguments: Arguments) -> Recipe:
    from featherweight import recipe as recipes

    overrides: dict[str, Any] = recipes.parse_set(arguments.assignments)
    if arguments.model:
        overrides.setdefault("model", {})["name"] = arguments.model
    if arguments.data:
        overrides["data"] = _data_keys(arguments.data) | overrides.get("data", {})
    if arguments.recipe is None and not ("model" in overrides and "data" in overrides):
        raise ConfigError("give a RECIPE, or --model and --data")
    return recipes.load(arguments.recipe, overrides)


def _plan(arguments: Arguments) -> None:
    recipe = _recipe(arguments)
    _quiet_libraries()
    from featherweight import workflow

    console = _console(arguments)
    try:
        console.result(workflow.plan(recipe, console=console))
    finally:
        console.close()


def _run(arguments: Arguments) -> None:
    recipe = _recipe(arguments)
    _quiet_libraries()
    from featherweight import workflow

    console = _console(arguments)
    try:
        record = workflow.run(recipe, arguments.output_dir, resume=arguments.resume, console=console)
    finally:
        console.close()
    console.result({"run": record.path, **record.metrics})


def _evaluate(arguments: Arguments) -> None:
    section = _data_section(arguments.model, arguments.data, arguments.assignments)
    _quiet_libraries()
    from featherweight import workflow

    console = _console(arguments)
    try:
        console.result(workflow.evaluate(arguments.model, section, split=arguments.split, console=console))
    finally:
        console.close()


def _compare(arguments: Arguments) -> None:
    from featherweight import workflow

    console = _console(arguments)
    console.result(workflow.compare(arguments.runs, margin=arguments.margin, console=console))


def _report(arguments: Arguments) -> None:
    from featherweight import workflow

    console = _console(arguments)
    console.result({"report": str(workflow.report(arguments.runs, arguments.output, console=console))})


def _predict(arguments: Arguments) -> None:
    if arguments.text and arguments.output:
        raise ConfigError("--output goes with --input")
    _quiet_libraries()
    from featherweight import workflow

    console = _console(arguments)
    if arguments.text:
        predictions = list(workflow.predict(arguments.run, arguments.text, calibrated=arguments.calibrated))
        if arguments.json:
            console.result({"predictions": predictions})
            return
        for text, prediction in zip(arguments.text, predictions, strict=True):
            print(f"{prediction['label']}  {prediction['probabilities'][prediction['label']]:.4f}  {text}")
        return
    output = arguments.output or "-"
    count = _predict_file(arguments.run, arguments.input, output, arguments.column, arguments.calibrated)
    if output != "-":
        console.say(f"{count:,} rows in {output}")
        console.result({"rows": count, "output": output})


def _predict_file(run: str, source: str, output: str, column: str, calibrated: bool) -> int:
    """Stream a file's rows through the model into another file, which appears when it is complete."""
    from featherweight import workflow
    from featherweight.registry import FORMATS
    from featherweight.sources import data
    from featherweight.sources.formats import Row, format_of

    jsonl = FORMATS["jsonl"]()
    writer = jsonl if output == "-" else format_of(output)
    rows = jsonl.read(sys.stdin.buffer, "standard input") if source == "-" else data.open_file(Path(source))
    waiting: list[Row] = []

    def texts() -> Iterator[str]:
        for number, row in rows:
            text = row.get(column)
            if not isinstance(text, str) and text is not None:
                raise DataError(f"{source}: row {number}: the column {column!r} holds no text; set --column")
            if column not in row:
                raise DataError(f"{source}: no column {column!r}; it has {', '.join(map(repr, row))}; set --column")
            if clash := {"prediction", "probabilities"} & set(row):
                raise DataError(f"{source}: the column {sorted(clash)[0]!r} would be overwritten; rename it")
            waiting.append(row)
            yield text or ""

    def answered() -> Iterator[Row]:
        for prediction in workflow.predict(run, texts(), calibrated=calibrated):
            yield {
                **waiting.pop(0),
                "prediction": prediction["label"],
                "probabilities": prediction["probabilities"],
            }

    if output == "-":
        return int(writer.write(sys.stdout.buffer, answered()))
    target = Path(output)
    aside = target.with_name(f".{target.name}.part")
    try:
        with aside.open("wb") as stream:
            count = int(writer.write(stream, answered()))
        aside.replace(target)
    except OSError as error:
        raise ResourceError(f"{output}: can't be written: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)
    return count


def _inspect_data(arguments: Arguments) -> None:
    from featherweight import recipe as recipes
    from featherweight import workflow
    from featherweight.recipe import FILE_KEYS

    if len(arguments.files) > len(FILE_KEYS):
        raise ConfigError(f"at most {len(FILE_KEYS)} files, taken as train, validation and test")
    keys = dict(zip(FILE_KEYS, arguments.files, strict=False))
    overrides = recipes.parse_set(arguments.assignments)
    section = recipes.load_data_section({**keys, **overrides.get("data", {})})
    console = _console(arguments)
    console.result(workflow.inspect_data(section, console=console))


def _doctor(arguments: Arguments) -> None:
    from featherweight import workflow

    console = _console(arguments)
    console.result(workflow.doctor(console=console))


def _data_keys(value: str) -> dict[str, Any]:
    """What ``--data`` means: a file is a train file, all else is the data set's name; a recipe's own source goes."""
    from featherweight.recipe import FILE_KEYS

    nothing: dict[str, Any] = dict.fromkeys(("name", *FILE_KEYS))
    return nothing | ({"train_file": value} if Path(value).is_file() else {"name": value})


def _data_section(target: str, value: str | None, assignments: Sequence[str]) -> Any:
    """The data that ``evaluate`` measures on: a run's own columns and labels, under what was given."""
    from featherweight import recipe as recipes
    from featherweight.runs import RunDirectory

    overrides = recipes.parse_set(assignments).get("data", {})
    if value is None and not overrides:
        return None
    run = RunDirectory(target)
    known: dict[str, Any] = {}
    if run.recipe.is_file():
        known = recipes.load(run.recipe).data.model_dump(exclude_none=True, exclude={"max_length"})
    if value is not None:
        for key in ("filter", "slices", "group"):
            known.pop(key, None)
        known |= _data_keys(value)
    return recipes.load_data_section({**known, **overrides})


def _quiet_libraries() -> None:
    """Our own progress is the only one; must run before transformers is imported."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bar for GGUF knows no other switch
