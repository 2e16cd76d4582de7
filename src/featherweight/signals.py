"""Ctrl-C and SIGTERM as a wish that long work looks at between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether a stop was asked for.

    The first SIGINT or SIGTERM is the wish; the second stops at once, as KeyboardInterrupt. Only a process's main
    thread can receive signals; elsewhere (a notebook's worker) the function always says no.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say(f"{signal.Signals(number).name}: stopping at the next safe point; once more stops at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
