"""``featherweight push``."""

from __future__ import annotations

from typing import Any

from featherweight.cli.arguments import Arguments, command, console_for, quiet_libraries


def add(commands: Any) -> None:
    parser = command(
        commands,
        "push",
        _push,
        "upload a finished run to the Hugging Face hub: adapter or model, card, report, in one commit",
        "featherweight push runs/demo user/demo --dry-run",
    )
    parser.add_argument("run", metavar="RUN", help="a finished run")
    parser.add_argument("repository", metavar="USER/NAME", help="where to; made where there is none, private")
    parser.add_argument("--public", action="store_true", help="let anybody see it")
    parser.add_argument(
        "--no-report",
        action="store_true",
        help="leave out report.html and metrics.json, which quote examples of the data",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would go, with sizes, and upload nothing")


def _push(arguments: Arguments) -> None:
    quiet_libraries()
    from featherweight import workflow

    console = console_for(arguments)
    console.result(
        workflow.push(
            arguments.run,
            arguments.repository,
            public=arguments.public,
            report=not arguments.no_report,
            dry_run=arguments.dry_run,
            console=console,
        )
    )
