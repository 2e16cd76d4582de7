"""``featherweight export``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, add_base_model, command, console_for, quiet_libraries


def add(commands: Any) -> None:
    parser = command(
        commands,
        "export",
        _export,
        "a finished run in another form, proved to answer as the run does",
        "featherweight export runs/demo --format onnx --output-dir demo-onnx",
    )
    parser.add_argument("run", metavar="RUN", help="a finished run; its data must be there as it was")
    parser.add_argument("--format", required=True, help="adapter, merged, onnx or onnx-int8")
    parser.add_argument("--output-dir", metavar="DIR", help="where (default: RUN/exports/FORMAT)")
    add_base_model(parser)
    parser.add_argument(
        "--margin",
        type=float,
        default=0.02,
        help="int8: loss of the headline (of a standard deviation, for numbers) to rule out at 95 %% (default: 0.02)",
    )
    parser.add_argument(
        "--min-agreement", type=float, default=0.99, help="int8: share of labels that must be the same (default: 0.99)"
    )


def _export(arguments: Arguments) -> None:
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    console.result(
        workflow.export(
            arguments.run,
            arguments.format,
            arguments.output_dir,
            margin=arguments.margin,
            min_agreement=arguments.min_agreement,
            base_model=arguments.base_model,
            console=console,
        )
    )
