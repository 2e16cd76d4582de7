"""Rows of data: as a source has them, as a task reads them, as the engine sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from featherweight.records.cutting import Pool
from featherweight.records.dialogues import Dialogue
from featherweight.records.grouping import group_names
from featherweight.records.questions import JOINT, Question, Tokens

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from numpy.typing import NDArray

_BATCH_ROWS = 10_000
DIALOGUE = "dialogue"  # the column of what is continued, as JSON
UNSEEN = -1  # among reads: what was cut off, for which no token answers


@dataclass(frozen=True)
class Ragged:
    """Rows of unlike length, end to end, so that they can be memory-mapped.

    Attributes:
        values: shape (all rows' entries, ...).
        offsets: int64, shape (rows + 1,); row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: type[np.integer[Any]] = np.int64) -> Ragged:
        """Rows of integers that are in memory."""
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(np.fromiter(chain.from_iterable(rows), dtype=dtype, count=int(offsets[-1])), offsets)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one part after the other; there is at least one."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: NDArray[np.int64]) -> Ragged:
        """These rows, in this order, in memory."""
        places = places_of(self.offsets, rows)
        return Ragged(self.values[places.values], places.offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Entries of each row; int64, shape (rows,)."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries of each of these rows, without a look at the others; int64, shape (rows,)."""
        return np.asarray(self.offsets[rows + 1] - self.offsets[rows])

    def row(self, index: int) -> NDArray[Any]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


def places_of(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> Ragged:
    """Where the entries of these rows stand, without a look at others.

    Args:
        offsets: as :class:`Ragged` has them.
    """
    lengths = offsets[rows + 1] - offsets[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(np.arange(ends[-1]) + np.repeat(offsets[rows] - ends[:-1], lengths), ends)


def next_tokens(tokens: Ragged, reads: Ragged) -> Ragged:
    """The ids behind the tokens that are read, int64; behind the last of a row its own."""
    starts, ends = (np.repeat(edges, reads.lengths) for edges in (tokens.offsets[:-1], tokens.offsets[1:]))
    return Ragged(tokens.values[np.minimum(starts + reads.values + 1, ends - 1)].astype(np.int64), reads.offsets)


def numbers_of(column: Column) -> NDArray[Any]:
    """All numbers of a column, whichever row they are of."""
    return column.values if isinstance(column, Ragged) else column


def join(parts: Sequence[Column]) -> Column:
    """The rows of all parts, one part after the other; there is at least one."""
    ragged = [part for part in parts if isinstance(part, Ragged)]
    return Ragged.joined(ragged) if ragged else np.concatenate([numbers_of(part) for part in parts])


def equal(one: Column, other: Column) -> bool:
    """Whether two columns hold the same rows."""
    if isinstance(one, Ragged) and isinstance(other, Ragged):
        return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.values, other.values)
    return np.array_equal(numbers_of(one), numbers_of(other))


# What has one entry a row, or a row of entries: ``len`` counts rows, and an array of rows selects them.
Column: TypeAlias = "NDArray[Any] | Ragged"


@dataclass(frozen=True)
class Split:
    """One split as read, before any task looked at it.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        rows: memory-mapped Arrow rows with the columns of the source.
        origin: what messages call the source, such as a file's path.
        fingerprint: content hash or hub commit.
        label_names: names that the source itself declares for integer labels, by integer.
        skipped: rows left out because they can't be read.
    """

    name: str
    rows: datasets.Dataset
    origin: str
    fingerprint: str
    label_names: tuple[str, ...] | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Rows:
    """Rows of a memory-mapped Arrow table, all or some of them, read in their order and a batch at a time.

    Attributes:
        table: all rows of the source.
        chosen: which of them, ascending; int64, shape (rows,). None is all.
    """

    table: pa.Table
    chosen: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rows: datasets.Dataset, names: Mapping[str, str]) -> Rows:
        """The columns of a data set that ``names`` maps to what they are called here."""
        table = rows.data.table.select(list(names)).rename_columns(list(names.values()))
        kept = rows._indices  # what a filter left of the table, which has no public name
        return cls(table, None if kept is None else kept.column(0).to_numpy().astype(np.int64))

    def __len__(self) -> int:
        return self.table.num_rows if self.chosen is None else len(self.chosen)

    @property
    def column_names(self) -> list[str]:
        return list(self.table.column_names)

    def select(self, rows: NDArray[np.int64]) -> Rows:
        """Some of these rows. Raises ValueError where they are not ascending, so that reading is one pass."""
        if (np.diff(rows) <= 0).any():
            raise ValueError("rows are selected in ascending order, each once")
        return Rows(self.table, rows if self.chosen is None else self.chosen[rows])

    def only(self, column: str) -> Rows:
        """The same rows with this column alone, as their ``text``."""
        return Rows(self.table.select([column]).rename_columns(["text"]), self.chosen)

    def batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """These columns, at most 10,000 rows at a time and never more than the source has in one piece."""
        import pyarrow as pa

        start = 0
        for batch in self.table.select(list(columns)).to_batches(max_chunksize=_BATCH_ROWS):
            end = start + batch.num_rows
            if self.chosen is None:
                yield batch
            else:
                low, high = np.searchsorted(self.chosen, [start, end])
                if high - low == batch.num_rows:
                    yield batch
                elif high > low:
                    yield batch.take(pa.array(self.chosen[low:high] - start))
            start = end

    def values(self, column: str) -> Iterator[Any]:
        """One column's values in order."""
        for batch in self.batches(column):
            yield from batch.column(0).to_pylist()

    def value(self, column: str, row: int) -> Any:
        place = row if self.chosen is None else int(self.chosen[row])
        return self.table.column(column)[place].as_py()

    def coded(self, column: str) -> tuple[list[Any], NDArray[np.int64]]:
        """A column's distinct values, missing ones as None, and for each row which of them; int64, shape (rows,)."""
        known: dict[Any, int] = {}
        codes = [np.empty(0, dtype=np.int64)]
        for batch in self.batches(column):
            encoded = batch.column(0).dictionary_encode(null_encoding="encode")
            found = [known.setdefault(value, len(known)) for value in encoded.dictionary.to_pylist()]
            codes.append(np.asarray(found, dtype=np.int64)[encoded.indices.to_numpy(zero_copy_only=False)])
        return list(known), np.concatenate(codes)


@dataclass(frozen=True)
class Examples:
    """One split as a task sees it: texts on disk, the truth about them in memory.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        texts: rows with the string column ``text``, ``pair`` where each row is about two texts, ``dialogue`` where it
            is continued, and ``column:NAME`` for each column that the recipe slices or groups by.
        text_columns: what the source calls the columns of texts.
        truth: as the kind of answer has it, such as class indices; one entry a row, or ragged.
        ids: int64, shape (rows,), the row's number in its source, counted from 0.
        dropped: how many rows of the source are left out because their text is empty or only white space, or because
            of what ``dropped_for`` says.
        origin: what messages and the report call the source.
        fingerprint: of the source.
        skipped: how many rows of the source are left out because they can't be read.
        reading: how the truth was read, where a person has to be told.
        words: where in its text each row's words are, int32, shape (words, 2); None where rows are answered whole.
        dropped_for: why rows are left out, in words.
    """

    name: str
    texts: Rows
    text_columns: tuple[str, ...]
    truth: Column
    ids: NDArray[np.int64]
    dropped: int
    origin: str
    fingerprint: str
    skipped: int = 0
    reading: str | None = None
    words: Ragged | None = None
    dropped_for: str = "their text is empty"

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: NDArray[np.int64], **changes: Any) -> Examples:
        """Some of the rows, in ascending order, with other fields changed by name."""
        parts = {"texts": self.texts.select(rows), "truth": self.truth[rows], "ids": self.ids[rows]}
        parts |= {} if self.words is None else {"words": self.words[rows]}
        return replace(self, **{**parts, **changes})

    @property
    def are_pairs(self) -> bool:
        return "pair" in self.texts.column_names

    def text(self, index: int) -> str:
        """What a row is about, a pair as one text; empty where it has none."""
        names = ("text", "pair") if self.are_pairs else ("text",)
        return JOINT.join(self.texts.value(name, index) or "" for name in names)

    def all_texts(self) -> Iterator[str]:
        """The same of every row in order, few in memory at a time."""
        if self.are_pairs:
            return (JOINT.join((text or "", pair or "")) for text, pair in self._pairs())
        return (text or "" for text in self.texts.values("text"))

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for batch in self.texts.batches("text", "pair"):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _dialogues(self) -> Iterator[Question]:
        for batch in self.texts.batches("text", DIALOGUE):
            for text, dialogue in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Question(text, dialogue=Dialogue.loads(dialogue))

    def alone(self) -> list[Examples]:
        """The rows about each of their texts by itself: of pairs two, else one."""
        if not self.are_pairs:
            return [self]
        return [
            replace(self, texts=self.texts.only(column), text_columns=(name,))
            for column, name in zip(("text", "pair"), self.text_columns, strict=True)
        ]

    def questions(self) -> Iterator[Question]:
        """Every row as a model is asked about it."""
        if self.are_pairs:
            yield from (Question(text, pair=pair) for text, pair in self._pairs())
            return
        if DIALOGUE in self.texts.column_names:
            yield from self._dialogues()
            return
        if self.words is None:
            yield from map(Question, self.all_texts())
            return
        for row, text in enumerate(self.all_texts()):
            yield Question(text, self.words.row(row).tolist())

    def column(self, name: str) -> list[str]:
        """The values of a column that was kept beside the text."""
        return [str(value) for value in self.texts.values(f"column:{name}")]

    @overload
    def groups(self, name: str) -> list[str | None]: ...
    @overload
    def groups(self, name: str | None) -> list[str | None] | None: ...
    def groups(self, name: str | None) -> list[str | None] | None:
        """What each row belongs to by that column; None, a group of its own, where it says nothing. Without a column
        nothing is grouped, and there is no list."""
        return None if name is None else group_names(self.texts.values(f"column:{name}"))


@dataclass(frozen=True)
class Encoding:
    """One split as the engine sees it, memory-mapped, so that rows cost disk and not memory.

    Attributes:
        tokens: int32; a row's tokens, never none.
        targets: the truth: one entry for each thing that the loss is about: a row, where they are an array, or each of
            its reads.
        reads: int64; the places in a row, counted from its first token, that the head reads, and :data:`UNSEEN` where
            it has nothing to read. None where it reads one, found by the model's own head.
        kinds: int64; for each token which of the row's texts it is of (``token_type_ids``). None where a row is one
            text.
        windows: int64, shape (rows + 1,), where rows are several sequences: row ``i`` is those from ``windows[i]`` up
            to ``windows[i + 1]`` of ``tokens``. Its outputs are pooled from theirs; or, where ``reads`` has an entry
            for each sequence, the sequences are compared, and each gives one. None where each row is one.
        pool: how.
        replies: int32; what a decoder is to give for each row, never none; reads then count from its first token. None
            where the model answers with no decoder.
        reference: float32, shape (sequences,): the log-probability, in nats, of what is learned of each sequence by the
            model that tuning is held to, handed on beside the model's own. None where there is none.
        cut: how many rows were cut at the maximal length.
        lost: how many tokens were cut off them in all.
        key: identifies tokens and kinds, for what is kept on disk about them.
    """

    tokens: Ragged
    targets: Column
    reads: Ragged | None = None
    kinds: Ragged | None = None
    windows: NDArray[np.int64] | None = None
    pool: Pool = "mean"
    replies: Ragged | None = None
    reference: NDArray[np.float32] | None = None
    cut: int = 0
    lost: int = 0
    key: str = ""

    @classmethod
    def unlabelled(cls, tokens: Ragged, reads: Ragged | None = None, kinds: Ragged | None = None) -> Encoding:
        """Rows that are only to be answered."""
        return cls(tokens, np.zeros(len(tokens), dtype=np.int64), reads, kinds)

    @classmethod
    def asked(cls, rows: Sequence[Tokens], pool: Pool = "mean") -> Encoding:
        """Rows that are in memory, only to be answered."""
        if any(row.ends for row in rows):
            windows = [row.windows() for row in rows]
            sequences = [one for row in windows for one in row]
            tokens = Ragged.of([one.ids for one in sequences], np.int32)
            read = [one.reads for one in sequences if one.reads is not None]
            encoding = cls.unlabelled(tokens, Ragged.of(read) if read else None)
            return replace(encoding, windows=np.cumsum([0, *map(len, windows)]), pool=pool)
        reads = [row.reads for row in rows if row.reads is not None]
        kinds = [row.kinds or [0] * len(row.ids) for row in rows] if any(row.kinds for row in rows) else []
        replies = [row.reply for row in rows if row.reply is not None]
        found = cls.unlabelled(
            Ragged.of([row.ids for row in rows], np.int32),
            Ragged.of(reads) if reads else None,
            Ragged.of(kinds) if kinds else None,
        )
        return replace(found, replies=Ragged.of(replies, np.int32)) if replies else found

    def __len__(self) -> int:
        return len(self.tokens) if self.windows is None else len(self.windows) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, all its windows together, and those of its reply; int64, shape (rows,)."""
        if self.windows is not None:
            return np.diff(self.tokens.offsets[self.windows])
        return self.tokens.lengths if self.replies is None else self.tokens.lengths + self.replies.lengths

    @property
    def compares(self) -> bool:
        """Whether rows are several sequences that are compared, and not windows of one."""
        return self.windows is not None and self.reads is not None

    @property
    def flat(self) -> Encoding:
        """Every sequence as a row of its own, with the truth of its row; of those that are compared nobody asks."""
        if self.windows is None:
            return self
        if self.compares:
            return replace(self, windows=None)
        rows = np.repeat(np.arange(len(self)), np.diff(self.windows))
        return replace(self, targets=self.targets[rows], windows=None)

    @property
    def trained(self) -> Encoding:
        """The rows that training takes: every window by itself, and together what is compared."""
        return self if self.compares else self.flat

    @property
    def ends(self) -> NDArray[np.int64] | None:
        """Where the outputs of each row start, and where the last one's end; int64, shape (rows + 1,). None where each
        row has one."""
        if self.compares:
            return self.windows
        return None if self.reads is None else self.reads.offsets

    def with_something_left(self) -> NDArray[np.int64]:
        """The rows of each of whose sequences, where those are compared, something is left that is read; ascending."""
        if not self.compares:
            return np.arange(len(self))
        assert self.reads is not None
        assert self.windows is not None
        return np.flatnonzero(np.minimum.reduceat(self.reads.lengths, self.windows[:-1]) > 0)

    def windows_of(self, rows: NDArray[np.int64]) -> Ragged:
        """Which rows of :attr:`flat` these rows are, where rows are several sequences."""
        assert self.windows is not None
        return places_of(self.windows, rows)

    def scored(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each token that is read the one whose likelihood is asked there: the next, and of a reply, which its
        decoder sees up to the one before, itself; shape (reads,), row by row."""
        assert self.reads is not None
        reads = self.reads[rows]
        if self.replies is None:
            return next_tokens(self.tokens[rows], reads).values
        replies = self.replies[rows]
        return np.asarray(replies.values[reads.values + np.repeat(replies.offsets[:-1], reads.lengths)], np.int64)

    def items(self, rows: NDArray[np.int64]) -> int:
        """How many things the loss of these rows is about, which their mean loss is a mean over."""
        if self.reads is None or self.compares:
            return len(rows)
        return int(np.count_nonzero(self.reads[rows].values != UNSEEN))
