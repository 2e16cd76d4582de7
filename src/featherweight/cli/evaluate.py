"""``featherweight evaluate``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import (
    Arguments,
    add_base_model,
    add_reading,
    add_set,
    command,
    console_for,
    data_section,
    quiet_libraries,
    reading_keys,
)


def add(commands: Any) -> None:
    parser = command(
        commands,
        "evaluate",
        _evaluate,
        "measure a run, an adapter, an export or any model",
        "featherweight evaluate runs/demo --data new.csv --set data.text=review",
    )
    parser.add_argument(
        "model",
        metavar="MODEL_OR_RUN",
        help="run, adapter, export, folder, hub id (also USER/NAME@REVISION), .gguf file or package file",
    )
    parser.add_argument("--data", help="what to measure on (default: the run's own held-out rows)")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="which split of the data")
    parser.add_argument(
        "--task", metavar="NAME", help="what a model that was not tuned is measured as (default: its own)"
    )
    add_base_model(parser)
    add_set(parser, "set a key of the data section, such as data.label=stars; data.labels names the outputs")
    add_reading(parser)


def _evaluate(arguments: Arguments) -> None:
    quiet_libraries()
    reading = reading_keys(arguments)
    section = data_section(arguments.model, arguments.data, arguments.assignments, reading, arguments.task)
    from featherweight import workflow

    console = console_for(arguments)
    try:
        console.result(
            workflow.evaluate(
                arguments.model,
                section,
                split=arguments.split,
                base_model=arguments.base_model,
                task=arguments.task,
                console=console,
            )
        )
    finally:
        console.close()
