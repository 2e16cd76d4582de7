"""``featherweight report``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for


def add(commands: Any) -> None:
    parser = command(
        commands,
        "report",
        _report,
        "write the HTML report again, or of several runs side by side",
        "featherweight report runs/demo runs/try --output both.html",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished runs; no model is loaded")
    parser.add_argument("--output", metavar="FILE", help="where to (default: the run's report.html, or ./report.html)")


def _report(arguments: Arguments) -> None:
    from featherweight import workflow

    console = console_for(arguments)
    console.result({"report": str(workflow.report(arguments.runs, arguments.output, console=console))})
