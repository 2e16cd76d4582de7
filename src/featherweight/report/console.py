"""The terminal: tables on standard output, progress on standard error.

On a terminal progress is a live bar; elsewhere it is a line now and then without control characters. With JSON asked
for, standard output is the JSON's alone and everything else goes to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

_SECONDS_BETWEEN_LINES = 15.0


class Console:
    """Where a command writes.

    Args:
        quiet: no progress and no tables.
        as_json: the result is printed as JSON, alone on standard output.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._live: Any = None
        self._bar: Any = None
        self._what = ""
        self._started = self._spoke = 0.0
        self._first = 0

    def show(self, *renderables: Any) -> None:
        """Print tables and paragraphs."""
        if self.quiet:
            return
        self._end_progress()
        from rich.console import Console as Rich

        stream = sys.stderr if self.as_json else sys.stdout
        width = None if stream.isatty() else 120
        # Texts and labels are the user's: nothing in them is markup.
        rich = Rich(file=stream, highlight=False, width=width, soft_wrap=False, markup=False, emoji=False)
        for renderable in renderables:
            rich.print(renderable)

    def say(self, line: str) -> None:
        """One line about what goes on."""
        if not self.quiet:
            self._end_progress()
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def result(self, content: Any) -> None:
        """The command's result, where JSON was asked for."""
        self._end_progress()
        if self.as_json:
            print(json.dumps(content, ensure_ascii=False), flush=True)  # noqa: T201

    def observe(self, event: dict[str, Any]) -> None:
        """Follow the engine's events."""
        if tell := _TOLD.get(event["event"]):
            self.say(tell(event))
        elif not self.quiet and (draw := _DRAWN.get(event["event"])):
            what, done, total, detail = draw(event)
            self._progress(what, done, total, detail)

    def close(self) -> None:
        self._end_progress()

    def _progress(self, what: str, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        if what != self._what:
            self._end_progress()
            self._what, self._started, self._spoke, self._first = what, now, now, done
        if sys.stderr.isatty():
            self._draw_bar(what, done, total, detail)
        elif now - self._spoke >= _SECONDS_BETWEEN_LINES:
            left = (now - self._started) / max(done - self._first, 1) * (total - done)
            print(f"{what}: {done:,} of {total:,}{detail}, {_clock(left)} left", file=sys.stderr, flush=True)  # noqa: T201
            self._spoke = now
        if done >= total:
            self._end_progress()

    def _draw_bar(self, what: str, done: int, total: int, detail: str) -> None:
        from rich import progress
        from rich.console import Console as Rich

        if self._live is None:
            self._live = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=30),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[detail]}"),
                console=Rich(file=sys.stderr),
                transient=True,
            )
            self._live.start()
            self._bar = self._live.add_task(what, total=total, completed=done, detail=detail)
        self._live.update(self._bar, completed=done, detail=detail)

    def _end_progress(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._what = ""


def _draw_step(event: dict[str, Any]) -> tuple[str, int, int, str]:
    detail = f" steps, loss {event['loss']:.4f}, {event['samples_per_second']:.0f} samples/s"
    return "training", event["step"], event["steps"], detail


def _draw_evaluating(event: dict[str, Any]) -> tuple[str, int, int, str]:
    return event["what"], event["rows"], event["total"], " rows"


def _evaluated(event: dict[str, Any]) -> str:
    metrics = event["metrics"]
    best = ", the best so far" if event["is_best"] else ""
    return (
        f"epoch {event['epoch']:g}: training loss {event['training_loss']:.4f}, validation loss "
        f"{metrics['eval_loss']:.4f}, accuracy {metrics['eval_accuracy']:.4f}{best}"
    )


def _skipped(event: dict[str, Any]) -> str:
    scale = event.get("loss_scale")
    now = "" if scale is None else f"; the loss scale of fp16 is {scale:g} now"
    return f"step {event['step']} left out: its loss is {event['loss']}, its gradient's norm {event['norm']}{now}"


def _out_of_memory(event: dict[str, Any]) -> str:
    return f"out of memory: going on with {event['micro_batch_rows']} rows at a time, as many a step as before"


_TOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    "evaluation": _evaluated,
    "skipped_step": _skipped,
    "out_of_memory": _out_of_memory,
}
_DRAWN: dict[str, Callable[[dict[str, Any]], tuple[str, int, int, str]]] = {
    "step": _draw_step,
    "evaluating": _draw_evaluating,
}


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
