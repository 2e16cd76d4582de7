"""Every error a user can meet, on one page, each with its exit code.

An error's text is one line that names the file, row, key or option and the fix. The command line prints that line
and exits with the code; a traceback appears only with ``--debug``. Foreign exceptions are mapped to one of these
where they enter (``sources``, ``methods``), so nothing above needs to know who raised what.
"""

from __future__ import annotations

from collections.abc import Sequence

UNFORESEEN = 70  # the exit code of an error that is ours and not the user's (EX_SOFTWARE)


class FeatherweightError(Exception):
    """Base of all errors that are the user's to fix."""

    exit_code = 1


class ConfigError(FeatherweightError):
    """A recipe, an option or an environment variable is wrong. Carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(FeatherweightError):
    """A data file can't be read, or what is in it can't be trained or measured on."""

    exit_code = 3


class ModelError(FeatherweightError):
    """A model, adapter or checkpoint can't be found, read or trusted."""

    exit_code = 4


class DivergedError(FeatherweightError):
    """Training, or the model itself, left the finite numbers."""

    exit_code = 5


class UnprovenError(FeatherweightError):
    """An export does not answer as its run does, within the stated margin; nothing is published."""

    exit_code = 5


class ResourceError(FeatherweightError):
    """Disk or memory ran out, or the output folder can't be written."""

    exit_code = 6


class OutOfMemory(ResourceError):
    """Memory ran out, with whatever was asked of it; the disk is not at fault."""


class Interrupted(FeatherweightError):
    """Stopped by a signal; the run can be resumed (EX_TEMPFAIL)."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """What a foreign exception says, in one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
