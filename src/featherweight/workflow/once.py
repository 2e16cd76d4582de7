"""What runs of like recipes have in common and make once: rows, tokens, and what was measured before any training.

A run that is alone has all of this to itself. Those of a sweep share it: in memory, and what was measured also between
processes, in the trials' own folders. Nothing that a run changes is among it: each loads its model anew, from files
that the system has in memory, which takes a fraction of a second and leaves nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from featherweight.runs.directory import RunDirectory

T = TypeVar("T")
_MEASURED_AS = "measured_as"


class Once:
    """What is made for the first run that asks and kept for the others.

    Args:
        folder: holds a folder for each of the runs; None for a run that is alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._made: dict[Hashable, Any] = {}

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gave for everything that it depends on."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def marked(self, key: str) -> dict[str, str]:
        """What an event in a run's history needs besides for :meth:`measured` to find it."""
        return {} if self._folder is None else {_MEASURED_AS: key}

    def measured(self, key: str, directory: RunDirectory) -> dict[str, Any] | None:
        """The event in another run's history of what was measured under the same ``key``, whose answers are from now on
        also in ``directory``; None where no run has it."""
        others = sorted(self._folder.iterdir()) if self._folder is not None and self._folder.is_dir() else []
        for other in (RunDirectory(path) for path in others if path != directory.path):
            for event in other.read_history():
                if event["event"] == "base" and event.get(_MEASURED_AS) == key:
                    directory.take_measured(other)
                    return dict(event)
        return None
