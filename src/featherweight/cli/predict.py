"""``featherweight predict``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import (
    Arguments,
    add_base_model,
    add_delimiter,
    add_generation,
    command,
    console_for,
    generation_of,
    quiet_libraries,
)
from featherweight.errors import ConfigError
from featherweight.storage.names import on_screen


def add(commands: Any) -> None:
    parser = command(
        commands,
        "predict",
        _predict,
        "the answers of a model to texts, such as a label and its probability",
        'featherweight predict runs/demo --text "Warm, funny and beautifully acted."',
    )
    parser.add_argument("run", metavar="RUN", help="a run, an export, a hub id, or whatever `evaluate` takes")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", help="a text; may be given again")
    parser.add_argument(
        "--text-pair", action="append", metavar="TEXT", help="the second text of each --text, for a model of pairs"
    )
    source.add_argument(
        "--input",
        metavar="FILE",
        help="CSV, TSV, JSON, JSONL, Parquet, Arrow or Excel, also .gz or .zip; - reads JSONL from a pipe",
    )
    parser.add_argument("--output", metavar="FILE", help="where the rows go, with their predictions (default: -)")
    add_base_model(parser)
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="with what was fitted: probabilities at a temperature, labels from thresholds, or intervals of numbers",
    )
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="encoding of --input, such as cp1252")
    add_delimiter(parser)
    parser.add_argument(
        "--max-error-rate",
        type=float,
        metavar="RATE",
        help="abstain (no label) where more of the answers would be wrong: 0.01, 0.02, 0.05 or 0.1; calibrated",
    )
    parser.add_argument(
        "--column",
        action="append",
        help="the column of --input that holds the text, given twice for pairs (default: what the run was tuned with, "
        "or else text)",
    )
    add_generation(parser)


def _predict(arguments: Arguments) -> None:
    if arguments.text and arguments.output:
        raise ConfigError("--output goes with --input")
    if arguments.text_pair and len(arguments.text_pair) != len(arguments.text or ()):
        raise ConfigError("--text-pair: give one for each --text, in the same order")
    if len(arguments.column or ()) > 2:
        raise ConfigError("--column: a text has one column, and a pair has two")
    generation = generation_of(arguments)
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    options: dict[str, Any] = {"calibrated": arguments.calibrated, "max_error_rate": arguments.max_error_rate}
    options |= {"base_model": arguments.base_model, "generation": generation}
    if arguments.text:
        from featherweight.inference.predictor import load_predictor
        from featherweight.records.questions import JOINT

        predictor = load_predictor(arguments.run, **options)
        seconds = arguments.text_pair or [None] * len(arguments.text)
        asked = [
            one if other is None else {"text": one, "text_pair": other}
            for one, other in zip(arguments.text, seconds, strict=True)
        ]
        predictions = predictor.predict(asked)
        if arguments.json:
            console.result({"predictions": predictions})
            return
        for one, other, prediction in zip(arguments.text, seconds, predictions, strict=True):
            line, asked_for = predictor.kind.line(prediction), one if other is None else one + JOINT + other
            # What is written may be long, and begins where the prompt ends.
            print(on_screen(f"> {asked_for}\n{line}" if predictor.task.scores_tokens else f"{line}  {asked_for}"))
        return
    from featherweight.recipe import load_data_section

    output = arguments.output or "-"
    reading = {"encoding": arguments.encoding, "delimiter": arguments.delimiter}
    checked = load_data_section({"name": "-", **reading})  # as in a recipe
    options |= {key: getattr(checked, key) for key in reading}
    count = workflow.predict_file(arguments.run, arguments.input, output, column=arguments.column, **options)
    if output != "-":
        console.say(f"{count:,} rows in {output}")
        console.result({"rows": count, "output": output})
