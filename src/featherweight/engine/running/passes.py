"""A pass over rows, batch by batch, that the processes of a fleet make together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from featherweight.engine import Watch
from featherweight.engine.fleet import Fleet
from featherweight.engine.memory import is_out_of_memory
from featherweight.errors import Interrupted
from featherweight.records.answers import Answers
from featherweight.records.rows import Column, Ragged, numbers_of

_TOLD = "told"  # in a pass: a table's name, and an error's mark


class Kept:
    """What is kept of rows that are answered batch by batch, put together in the order of the rows.

    Args:
        rows: how many there are in all.
    """

    def __init__(self, rows: int) -> None:
        self._total = rows
        self._rows: list[NDArray[np.int64]] = []
        self._dense: dict[str, NDArray[Any]] = {}
        self._ragged: dict[str, list[tuple[NDArray[np.int64], Ragged]]] = {}

    def add(self, rows: NDArray[np.int64], answers: Mapping[str, Column]) -> None:
        """Keep the answers of these rows, which are in their order."""
        self._rows.append(rows)
        for name, column in answers.items():
            if isinstance(column, Ragged):
                self._ragged.setdefault(name, []).append((rows, column))
            else:
                if name not in self._dense:
                    self._dense[name] = np.empty((self._total, *column.shape[1:]), dtype=column.dtype)
                self._dense[name][rows] = column

    def answers(self) -> Answers:
        """Every column, now that all rows are answered."""
        found: dict[str, Column] = {**self._dense}
        for name, batches in self._ragged.items():
            rows, parts = zip(*batches, strict=True)
            found[name] = Ragged.joined(parts)[np.argsort(np.concatenate(rows))]
        return Answers(found)

    def added(self) -> tuple[NDArray[np.int64], dict[str, Column]]:
        """The rows that were answered so far, in the order in which they were, and their answers."""
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        ragged = {name: Ragged.joined([one for _, one in parts]) for name, parts in self._ragged.items()}
        return rows, {**{name: column[rows] for name, column in self._dense.items()}, **ragged}


class Pass:
    """Rows that are answered batch by batch. Each process runs whole batches, the very ones that it would run alone, so
    that no answer depends on how many processes there are; when the context ends, each has all of them.

    Args:
        rows: how many there are in all.
        stopped: what a pass that is stopped says.

    Raises:
        Interrupted: a stop was asked for between two batches, in any of the processes.
        MemoryError, RuntimeError: another process met an error; it has told what.
    """

    def __init__(self, fleet: Fleet, watch: Watch, rows: int, stopped: str) -> None:
        self._fleet = fleet
        self._watch = watch
        self._rows = rows
        self._stopped = stopped
        self._stop = False
        self._kept = Kept(rows)
        self._place = 0
        self._figures: dict[int, tuple[float, ...]] = {}

    def __enter__(self) -> Pass:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # the process ends, and whoever waits for it will notice
        met = [self._taken(packed) for packed in self._fleet.others(lambda: self._packed(error))]
        failed = error or next(filter(None, met), None)
        if failed is not None:
            setattr(failed, _TOLD, True)
        if error is None and failed is not None:
            raise failed
        if error is None and self._stop:
            raise Interrupted(self._stopped)

    def of(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        """This process's of these batches."""
        done = 0
        for place, rows in enumerate(batches):
            done += len(rows)
            if place % self._fleet.size != self._fleet.rank:
                continue
            if self._watch.stop():
                self._stop = True
                return
            self._place = place
            yield rows
            self._watch.tell(done, self._rows)

    def add(self, rows: NDArray[np.int64], answers: Mapping[str, Column], *figures: float) -> None:
        """Keep the answers of these rows, which are in their order, and figures of the batch."""
        self._kept.add(rows, answers)
        self._figures[self._place] = figures

    def answers(self) -> Answers:
        """Every column, of all rows."""
        return self._kept.answers()

    def figures(self) -> list[tuple[float, ...]]:
        """Those of each batch, in the order of the batches."""
        return [self._figures[place] for place in sorted(self._figures)]

    def _packed(self, error: Exception | None) -> bytes:
        """What this process tells the others: its answers and figures, or what it met."""
        rows, columns = self._kept.added() if error is None else (np.empty(0, dtype=np.int64), {})
        met = {"error": str(error) or type(error).__name__, "memory": is_out_of_memory(error)} if error else {}
        arrays: dict[str, NDArray[Any]] = {
            _TOLD: np.frombuffer(json.dumps({"stop": self._stop, **met}).encode(), dtype=np.uint8),
            "rows": rows,
            "places": np.asarray([*self._figures], dtype=np.int64),
            "figures": np.asarray([*self._figures.values()], dtype=np.float64),
        }
        for name, column in columns.items():
            arrays[f"{name}/values"] = numbers_of(column)
            if isinstance(column, Ragged):
                arrays[f"{name}/offsets"] = column.offsets
        return save(arrays)

    def _taken(self, packed: bytes) -> Exception | None:
        """What another process tells is kept; returned is what it met."""
        arrays = load(packed)
        told = json.loads(arrays[_TOLD].tobytes())
        self._stop |= told["stop"]
        if "error" in told:
            return (MemoryError if told["memory"] else RuntimeError)(f"in another process: {told['error']}")
        places, figures = arrays["places"].tolist(), arrays["figures"].tolist()
        self._figures.update({place: tuple(row) for place, row in zip(places, figures, strict=True)})
        columns: dict[str, Column] = {}
        for key in arrays:
            if key.endswith("/values"):
                name = key.removesuffix("/values")
                offsets = arrays.get(f"{name}/offsets")
                columns[name] = arrays[key] if offsets is None else Ragged(arrays[key], offsets)
        if columns:
            self._kept.add(arrays["rows"], columns)
        return None


def is_told(error: Exception) -> bool:
    """Whether every process knows of an error, because it was met in a pass."""
    return getattr(error, _TOLD, False)
