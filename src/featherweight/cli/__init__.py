"""The command line: arguments to ``workflow``, errors to one line and an exit code. Thin, and quick to import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from featherweight import __version__
from featherweight.errors import FeatherweightError, ResourceError
from featherweight.names import printable

# One module each in this package, in the order in which --help lists them.
COMMANDS = (
    "run",
    "evaluate",
    "compare",
    "report",
    "predict",
    "export",
    "serve",
    "plan",
    "learning_curve",
    "inspect",
    "doctor",
)


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
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser().parse_args(given)
    arguments.given = given
    try:
        arguments.command(arguments)
    except FeatherweightError as error:
        if arguments.debug:
            raise
        for line in str(error).splitlines():
            print(f"featherweight: {printable(line)}", file=sys.stderr)
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
    for name in COMMANDS:
        import_module(f"featherweight.cli.{name}").add(commands)
    return parser
