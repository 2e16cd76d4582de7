"""Saved predictions: ``predictions/<model>-<split>.parquet`` and what is read back from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import FIRST, Answer
from featherweight.errors import DataError
from featherweight.records.answers import Answers
from featherweight.registry import ANSWERS
from featherweight.storage.whole import write_file

_KIND = b"answer"


@dataclass(frozen=True)
class Predictions:
    """Saved predictions of one model on one split.

    Attributes:
        ids: int64, shape (rows,), the row's number in its source.
        kind: of the answers.
        truth: as the kind has it.
        groups: what each row belongs to, where the recipe has ``data.group``; None is a group of its own.
    """

    ids: NDArray[np.int64]
    kind: Answer
    answers: Answers
    truth: Any
    groups: list[str | None] | None = None

    def write(self, path: Path) -> None:
        """The id, the kind's own columns and, where there are groups, the group of each row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = self.kind.table(self.answers, self.truth)
        metadata = {**(table.schema.metadata or {}), _KIND: self.kind.name.encode()}
        table = table.add_column(0, "id", pa.array(self.ids))
        if self.groups is not None:
            table = table.append_column("group", pa.array(self.groups, pa.string()))
        table = table.replace_schema_metadata(metadata)
        write_file(path, lambda stream: pq.write_table(table, stream))

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Raises DataError where there are none, or what is there is something else."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.is_file():
            raise DataError(f"{path}: no such predictions; the run did not finish, or measured another split")
        try:
            table = pq.read_table(path)
            name = table.schema.metadata.get(_KIND, FIRST.encode()).decode()
            kind, answers, truth = ANSWERS[name].of_table(table)
            groups = table["group"].to_pylist() if "group" in table.column_names else None
            return cls(table["id"].to_numpy(), kind, answers, truth, groups)
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
            raise DataError(f"{path}: not readable as predictions: {error}") from error
