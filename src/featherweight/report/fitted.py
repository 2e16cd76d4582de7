"""A table that fits the terminal: columns leave, the least important first, before a word or a number is broken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from featherweight.records.parts import Brief, Column
from featherweight.storage.names import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

_GAP = 2
_LONG = 26  # characters of a name or head: what is longer is cut before a column leaves
_MARK = "…"


class FittedTable:
    """Rows of cells under a title, for rich to print. What is cut, for it can't be helped, has an ellipsis in it.

    Args:
        columns: the first is never left out.
        head: whether the names of the columns are shown.
    """

    def __init__(self, title: str, columns: Sequence[Column], head: bool = True) -> None:
        self.title = title
        self.columns = columns
        self.head = head
        self.rows: list[Sequence[str]] = []

    @classmethod
    def of(cls, brief: Brief) -> FittedTable:
        table = cls(brief.title, brief.columns)
        for row in brief.rows:
            table.add_row(*row)
        return table

    def add_row(self, *cells: str) -> None:
        # Texts and names are the user's: nothing in them moves the cursor or colours the terminal.
        self.rows.append(["\n".join(printable(line) for line in cell.split("\n")) for cell in cells])

    def fit(self, width: int) -> dict[int, int]:
        """The columns that are shown at a width in characters, by index, with the width of each."""
        kept = list(range(len(self.columns)))
        while self._least(kept) > width and any(self.columns[one].leaves for one in kept):
            kept.remove(max(kept, key=lambda one: (self.columns[one].leaves, one)))
        widths = self._spread(kept, width - _GAP * (len(kept) - 1))
        while sum(widths.values()) + _GAP * (len(kept) - 1) > max(width, 4 * len(kept)):
            widths[max(widths, key=lambda one: widths[one])] -= 1  # nothing can leave any more
        return dict(sorted(widths.items()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        widths = self.fit(options.max_width)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), show_header=self.head)
        for index, width in widths.items():
            column = self.columns[index]
            head = _shortened(column.name, width, words=True)
            table.add_column(Text(head), justify="left" if column.words else "right", width=width)
        for row in self.rows:
            table.add_row(*(Text(_shortened(row[one], at, self.columns[one].words)) for one, at in widths.items()))
        yield Text(self.title, style="bold")
        yield table
        if left_out := [column.name for index, column in enumerate(self.columns) if index not in widths]:
            yield Text(f"(no room for: {', '.join(left_out)})", style="dim")
        yield Text("")

    def _spread(self, kept: Sequence[int], room: int) -> dict[int, int]:
        """Widths that fill the room: all that it needs to a column that needs little, to the others by the root of it.

        The root, because a column half as wide takes twice the lines: it keeps the tallest cells low.
        """
        widths: dict[int, int] = {}
        while waiting := [one for one in kept if one not in widths]:
            left = room - sum(widths.values())
            whole = sum(math.sqrt(self._widest(one)) for one in waiting)
            share = {one: left * math.sqrt(self._widest(one)) / whole for one in waiting}
            widths |= (
                {one: self._widest(one) for one in waiting if self._widest(one) <= share[one]}
                or {one: self._narrowest(one) for one in waiting if self._narrowest(one) >= share[one]}
                or {one: int(share[one]) for one in waiting}
            )
        return widths

    def _least(self, kept: Sequence[int]) -> int:
        return sum(map(self._narrowest, kept)) + _GAP * (len(kept) - 1)

    def _narrowest(self, index: int) -> int:
        """Characters that a column has to have: a value whole, a word or a head up to some."""
        from rich.cells import cell_len

        column = self.columns[index]
        head = max((min(cell_len(word), _LONG) for word in column.name.split()), default=0) if self.head else 0
        cells = [word for row in self.rows for word in (row[index].split() if column.words else [row[index]])]
        longest = max(map(cell_len, cells), default=0)
        return max(head, min(longest, _LONG) if column.words else longest, 1)

    def _widest(self, index: int) -> int:
        """Characters with which nothing wraps."""
        from rich.cells import cell_len

        lines = [line for row in self.rows for line in row[index].split("\n")]
        return max(map(cell_len, [*lines, *([self.columns[index].name] if self.head else [])]), default=1)


def _shortened(text: str, width: int, words: bool) -> str:
    """The text with its middle left out, or in words that of each, where wider than ``width``."""
    from rich.cells import cell_len

    if words:
        return "\n".join(
            " ".join(_shortened(word, width, False) for word in line.split(" ")) for line in text.split("\n")
        )
    if cell_len(text) <= width:
        return text
    return f"{_start(text, width // 2)}{_MARK}{_start(text[::-1], (width - 1) // 2)[::-1]}"


def _start(text: str, width: int) -> str:
    from rich.cells import cell_len

    kept = ""
    for char in text:
        if cell_len(kept + char) > width:
            break
        kept += char
    return kept
