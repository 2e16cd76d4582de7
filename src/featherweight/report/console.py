"""The terminal: tables on standard output, progress on standard error.

With JSON asked for, standard output is the JSON's alone and everything else goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from featherweight.report.fitted import FittedTable
from featherweight.report.progress import Nothing, Progress, Tqdm, Within, on_standard_error

_WIDTH_OF_FILES = 120  # where standard output is no terminal and COLUMNS is not set


class Console:
    """Where a command writes.

    Args:
        quiet: no progress and no tables.
        as_json: the result is printed as JSON, alone on standard output.
        progress: how far work has come; what suits standard error if None, and nothing where ``quiet``.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False, progress: Progress | None = None) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._progress = progress or (Nothing() if quiet else on_standard_error())
        self._shown: Any = None

    @classmethod
    def in_python(cls, progress: bool) -> Console:
        """For a function that is called from Python: bars by tqdm where ``progress``, and nothing else."""
        return cls(quiet=True, progress=Tqdm() if progress else Nothing())

    def within(self, what: str) -> Console:
        """For a part of the work, called ``what``, of which nothing is shown but how far it has come."""
        return Console(quiet=True, progress=Within(self._progress, what))

    def show(self, *renderables: Any) -> None:
        """Print tables and paragraphs."""
        self._progress.end()
        if self.quiet:
            return
        from rich.console import Console as Rich

        stream = sys.stderr if self.as_json else sys.stdout
        known = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
        width = None if known else _WIDTH_OF_FILES
        # Texts and labels are the user's: nothing in them is markup.
        rich = Rich(file=stream, highlight=False, width=width, soft_wrap=False, markup=False, emoji=False)
        for renderable in renderables:
            if isinstance(self._shown, str) and isinstance(renderable, FittedTable):
                rich.print()
            rich.print(renderable, soft_wrap=getattr(renderable, "no_wrap", None) is True)  # a line to copy
            self._shown = renderable

    def say(self, line: str) -> None:
        """One line about what goes on."""
        self._progress.end()
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def begin(self, what: str) -> None:
        """Work begins that says no more until it is done, or until something else is shown."""
        self._progress.begin(what)

    def result(self, content: Any) -> None:
        """The command's result, where JSON was asked for."""
        self._progress.end()
        if self.as_json:
            print(json.dumps(content, ensure_ascii=False), flush=True)  # noqa: T201

    def observe(self, event: dict[str, Any]) -> None:
        """Follow the engine's events."""
        if tell := _TOLD.get(event["event"]):
            self.say(tell(event))
        elif draw := _DRAWN.get(event["event"]):
            self._progress.update(*draw(event))

    def close(self) -> None:
        self._progress.end()


def _draw_step(event: dict[str, Any]) -> tuple[str, int, int, str, str]:
    detail = f"loss {event['loss']:.4f}, {event['samples_per_second']:.0f} samples/s"
    return "training", event["step"], event["steps"], "steps", detail


def _draw_evaluating(event: dict[str, Any]) -> tuple[str, int, int, str, str]:
    return event["what"], event["rows"], event["total"], "rows", ""


def _evaluated(event: dict[str, Any]) -> str:
    from featherweight.answers import headline_of  # and numpy with it, which `--help` does without

    metrics = event["metrics"]
    best = ", the best so far" if event["is_best"] else ""
    first = headline_of(event)
    return (
        f"epoch {event['epoch']:g}: training loss {event['training_loss']:.4f}, validation loss "
        f"{metrics['eval_loss']:.4f}, {first.title} {metrics[f'eval_{first.name}']:.4f}{best}"
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
_DRAWN: dict[str, Callable[[dict[str, Any]], tuple[str, int, int, str, str]]] = {
    "stepping": _draw_step,
    "evaluating": _draw_evaluating,
}
