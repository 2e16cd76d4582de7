"""How far long work has come: a live bar on a terminal, a line now and then elsewhere, tqdm's bar in Python."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any, Protocol

_SECONDS_BETWEEN_LINES = 15.0
_BAR_WIDTH = 20


class Progress(Protocol):
    """Where progress goes. One piece of work at a time; another name, or :meth:`end`, ends it."""

    def begin(self, what: str) -> None:
        """Work whose length nobody knows."""
        ...

    def update(self, what: str, done: int, total: int, unit: str, detail: str) -> None:
        """So much of it is done; ``detail`` is what else there is to say, or empty."""
        ...

    def end(self) -> None: ...


class Nothing:
    """No progress."""

    def begin(self, what: str) -> None: ...

    def update(self, what: str, done: int, total: int, unit: str, detail: str) -> None: ...

    def end(self) -> None: ...


class Lines:
    """A line as work begins, and one every quarter of a minute, without control characters; on standard error."""

    def __init__(self) -> None:
        self._what = ""
        self._started = self._spoke = 0.0
        self._first = 0

    def begin(self, what: str) -> None:
        print(what, file=sys.stderr, flush=True)  # noqa: T201

    def update(self, what: str, done: int, total: int, unit: str, detail: str) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._spoke, self._first = what, now, now, done
        elif now - self._spoke >= _SECONDS_BETWEEN_LINES:
            left = (now - self._started) / max(done - self._first, 1) * (total - done)
            parts = [f"{what}: {done:,} of {total:,} {unit}", detail, f"{clock(left)} left"]
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)  # noqa: T201
            self._spoke = now

    def end(self) -> None:
        self._what = ""


class Bar:
    """One live line on a terminal, drawn ten times a second by a thread, whatever the work does."""

    def __init__(self) -> None:
        self._live: Any = None
        self._task: Any = None
        self._what = ""

    def begin(self, what: str) -> None:
        self._start(what, None, 0, "")

    def update(self, what: str, done: int, total: int, unit: str, detail: str) -> None:
        detail = ", ".join(filter(None, [unit, detail]))
        if what != self._what:
            self._start(what, total, done, detail)
        self._live.update(self._task, completed=done, detail=detail)
        if done >= total:
            self.end()

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._what = ""

    def _start(self, what: str, total: int | None, done: int, detail: str) -> None:
        from rich import progress
        from rich.console import Console as Rich

        self.end()
        counted = total is not None
        shown = [
            progress.BarColumn(_BAR_WIDTH),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[detail]},"),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("left"),
        ]
        self._live = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            *(shown if counted else [progress.TimeElapsedColumn()]),
            console=Rich(file=sys.stderr),
            transient=True,
        )
        self._live.start()
        self._task = self._live.add_task(what, total=total, completed=done, detail=detail)
        self._what = what


class Tqdm:
    """tqdm's bar: a widget in a notebook that has widgets, and a line elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def begin(self, what: str) -> None: ...

    def update(self, what: str, done: int, total: int, unit: str, detail: str) -> None:
        if what != self._what:
            self.end()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a notebook has no widgets, and gets lines
                from tqdm.auto import tqdm
            self._bar = tqdm(total=total, initial=done, desc=what, unit=f" {unit}", leave=False)
            self._what = what
        if detail:
            self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.end()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._what = ""


class Within:
    """Progress of a part of larger work, which is said before it."""

    def __init__(self, whole: Progress, part: str) -> None:
        self._whole = whole
        self._part = part

    def begin(self, what: str) -> None:
        """Parts begin much that takes a moment, of which the whole says nothing."""

    def update(self, what: str, done: int, total: int, unit: str, detail: str) -> None:
        self._whole.update(f"{self._part}: {what}", done, total, unit, detail)

    def end(self) -> None:
        self._whole.end()


def on_standard_error() -> Progress:
    """What suits where standard error goes."""
    return Bar() if sys.stderr.isatty() else Lines()


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
