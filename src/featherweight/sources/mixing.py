"""Train rows out of several files, with a share of each: ``data.mix``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError
from featherweight.records.rows import Split
from featherweight.sources.row_store import ROW, ROWS_FILE
from featherweight.storage.cache import cached, key_of

COLUMN = "data.mix"  # of the rows: the name of the file that each is from
_FORMAT = 1  # goes up where the same files are mixed otherwise


def mixed(parts: Mapping[Path, Split], weights: Sequence[float], seed: int, origin: str) -> Split:
    """As many rows of each file as its weight allows beside the others, drawn by the seed, none of them twice.

    Args:
        parts: the rows of each file, read as train.
        origin: what messages call them all.

    Raises:
        DataError: a file is so small that nothing of it, or of another, would be left.
    """
    shares = np.asarray(weights) / sum(weights)
    sizes = np.asarray([len(one.rows) for one in parts.values()])
    counts = np.floor(shares * (sizes / shares).min() + 1e-9).astype(np.int64)
    for path, count in zip(parts, counts, strict=True):
        if count == 0:
            raise DataError(f"data.mix: no row of {path} would be left at a share of its weight; change the weights")
    fingerprint = key_of(_FORMAT, [one.fingerprint for one in parts.values()], shares.tolist(), seed)
    names = _names([*parts])
    key = key_of(fingerprint, names, [one.rows.column_names for one in parts.values()])
    folder = cached("mixed", key, partial(_write, [*parts.values()], counts, names, seed))
    import datasets

    rows = datasets.Dataset.from_file(str(folder / ROWS_FILE))
    return Split("train", rows, origin, fingerprint, skipped=sum(one.skipped for one in parts.values()))


def _write(parts: Sequence[Split], counts: NDArray[np.int64], names: Sequence[str], seed: int, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    tables, before = [], 0
    for index, (part, count) in enumerate(zip(parts, counts, strict=True)):
        whole = part.rows.data.table
        rows = np.sort(np.random.default_rng((seed, index)).choice(len(whole), size=int(count), replace=False))
        table = whole.take(pa.array(rows)).append_column(COLUMN, pa.array([names[index]] * int(count), pa.string()))
        numbers = pc.add(table[ROW], before)  # rows count on from file to file
        tables.append(table.set_column(table.column_names.index(ROW), ROW, numbers))
        before += int(pc.max(whole[ROW]).as_py())
    table = pa.concat_tables(tables, promote_options="default")
    with pa.OSFile(str(folder / ROWS_FILE), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def _names(paths: Sequence[Path]) -> list[str]:
    """What each file is called: its own name, and its folder's too where two have the same."""
    own = [path.name for path in paths]
    return own if len(set(own)) == len(own) else [f"{path.parent.name}/{path.name}" for path in paths]
