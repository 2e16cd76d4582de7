"""The command line: arguments to ``workflow``, errors to one line and an exit code. Thin, and quick to import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from featherweight import __version__
from featherweight.errors import UNFORESEEN, FeatherweightError, ResourceError
from featherweight.process import launch, signals, waiting
from featherweight.storage.names import printable

# One module each in this package, in the order in which --help lists them.
COMMANDS = (
    "demo",
    "run",
    "evaluate",
    "compare",
    "report",
    "predict",
    "chat",
    "export",
    "push",
    "serve",
    "plan",
    "sweep",
    "learning_curve",
    "inspect",
    "methods",
    "doctor",
    "completion",
)

_LONGEST_MESSAGE = 300  # characters of a foreign error; some list half a model


class _Parser(argparse.ArgumentParser):
    """One-line errors, and no guessing of abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or that of the error (see ``errors``); 70 for one that nobody foresaw; 130 after a Ctrl-C
        that could not be resumed.
    """
    waiting.settle()
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser().parse_args(given)
    arguments.given = given
    try:
        if not arguments.in_fleet:
            launch.require_alone(given[0])
        arguments.command(arguments)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; there is nobody to tell
    except (Exception, KeyboardInterrupt) as error:
        if arguments.debug:
            raise
        return _last_words(*_explained(error))
    return 0


def _explained(error: BaseException) -> tuple[list[str], int]:
    """What to print of an error, and the exit code. The last net: nothing that goes wrong ends in a traceback."""
    if isinstance(error, FeatherweightError):
        return str(error).splitlines(), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ["stopped"], 130
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return [
            "out of memory; close other programs, or give fewer or shorter texts at a time"
        ], ResourceError.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return [f"{error.filename}: {error.strerror}"], ResourceError.exit_code
    first = next(iter(str(error).strip().splitlines()), "")[:_LONGEST_MESSAGE]
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return [f"an error that nobody foresaw: {what}; --debug shows where it comes from; please report it"], UNFORESEEN


def _last_words(lines: list[str], code: int) -> int:
    """Print what is to be said of an error, where several processes fail in one of them; and the exit code of all."""

    def say() -> None:
        for line in lines:
            print(f"featherweight: {printable(line)}", file=sys.stderr)

    here = launch.place()
    if not here.is_alone:
        signals.ignore()  # a launcher ends whoever is left
        if "featherweight.engine.fleet" in sys.modules:
            from featherweight.engine import fleet

            if (processes := fleet.joined()) is not None:
                return processes.last_words(code, say)
    if here.local_rank == 0:  # all fail alike before they have met
        say()
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    """The end of the memory as torch says it; nothing is imported for the question."""
    if not isinstance(error, RuntimeError) or "torch" not in sys.modules:
        return False
    from featherweight.engine.memory import is_out_of_memory

    return is_out_of_memory(error)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Building it imports nothing heavy."""
    parser = _Parser(prog="featherweight", description="Lightweight fine-tuning of foundation models, with proof.")
    parser.add_argument("--version", action="version", version=f"featherweight {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"featherweight.cli.{name}").add(commands)
    return parser
