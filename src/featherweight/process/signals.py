"""Ctrl-C and SIGTERM as a wish: long work looks at it between two steps, and work that loses nothing ends at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from featherweight.errors import Interrupted
from featherweight.process import launch

_ECHO = 10.0  # seconds in which a launcher may hand on a signal that its processes have got themselves, or end them all


class _AtOnce(BaseException):
    """Raised out of the signal's handler; no library's ``except Exception`` can swallow it."""


class Stop:
    """Whether a stop was asked for: call it to know.

    Args:
        say: is told that the wish was heard.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._asked = False
        self._asked_at = 0.0
        self._echo = 0.0 if launch.place().is_alone else _ECHO
        self._immediate = False

    def __call__(self) -> bool:
        return self._asked

    @contextmanager
    def at_once(self, what: str) -> Iterator[None]:
        """Inside, the wish ends the work where it stands; for work that can be done again and writes whole files.

        Raises:
            Interrupted: a stop was asked for, before or inside; it says that this happened while ``what``.
        """
        try:
            try:
                self._immediate = True
                if self._asked:
                    raise _AtOnce
                yield
            finally:
                self._immediate = False
        except _AtOnce:
            raise Interrupted(f"stopped while {what}") from None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What a signal does: the first is the wish, the second stops at once, as KeyboardInterrupt."""
        now = time.monotonic()
        if self._asked:
            if now - self._asked_at >= self._echo:
                raise KeyboardInterrupt
            return
        self._asked, self._asked_at = True, now
        more = f" in {self._echo:.0f} s" if self._echo else ""
        self._say(f"{signal.Signals(number).name}: stopping at the next safe point; once more{more} stops at once")
        if self._immediate:
            raise _AtOnce


def ignore() -> None:
    """From now on no signal but a kill ends this process, which is about to end by itself."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


_active: Stop | None = None


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Stop]:
    """Give a :class:`Stop` that SIGINT and SIGTERM ask; inside another one, that one.

    Only a process's main thread can receive signals; elsewhere (a notebook's worker) it always says no.
    """
    global _active  # noqa: PLW0603
    if _active is not None:
        yield _active
        return
    stop = Stop(say)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    _active = stop
    try:
        yield stop
    finally:
        _active = None
        for number, handler in before.items():
            signal.signal(number, handler)
