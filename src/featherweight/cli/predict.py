"""``featherweight predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for, quiet_libraries
from featherweight.errors import ConfigError, DataError, ResourceError


def add(commands: Any) -> None:
    parser = command(
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
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="encoding of --input, such as cp1252")
    parser.add_argument("--column", default="text", help="the column of --input that holds the text (default: text)")


def _predict(arguments: Arguments) -> None:
    if arguments.text and arguments.output:
        raise ConfigError("--output goes with --input")
    quiet_libraries()
    from featherweight import workflow
    from featherweight.recipe import load_data_section

    console = console_for(arguments)
    if arguments.text:
        predictions = list(workflow.predict(arguments.run, arguments.text, calibrated=arguments.calibrated))
        if arguments.json:
            console.result({"predictions": predictions})
            return
        for text, prediction in zip(arguments.text, predictions, strict=True):
            print(f"{prediction['label']}  {prediction['probabilities'][prediction['label']]:.4f}  {text}")
        return
    output = arguments.output or "-"
    encoding = load_data_section({"name": "-", "encoding": arguments.encoding}).encoding  # checked as in a recipe
    count = _predict_file(arguments.run, arguments.input, output, arguments.column, arguments.calibrated, encoding)
    if output != "-":
        console.say(f"{count:,} rows in {output}")
        console.result({"rows": count, "output": output})


def _predict_file(run: str, source: str, output: str, column: str, calibrated: bool, encoding: str) -> int:
    """Stream a file's rows through the model into another file, which appears when it is complete."""
    from featherweight import workflow
    from featherweight.registry import FORMATS
    from featherweight.sources import data
    from featherweight.sources.formats import Row, format_of

    jsonl = FORMATS["jsonl"]()
    writer = jsonl if output == "-" else format_of(output)
    rows = jsonl.read(sys.stdin.buffer, "standard input") if source == "-" else data.open_file(Path(source), encoding)
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
