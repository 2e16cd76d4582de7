"""CoNLL column files: a word a line with its tags, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar

from featherweight.errors import ConfigError, DataError
from featherweight.sources.formats import STRICT, Reading, Row
from featherweight.sources.formats.decoding import decode
from featherweight.sources.formats.writing import Writer

# What the columns are called, by how many there are: those of CoNLL-2003, or the word and its tag.
_COLUMNS = {2: ("tokens", "ner_tags"), 4: ("tokens", "pos_tags", "chunk_tags", "ner_tags")}
_DOCUMENT = "-DOCSTART-"
_TAG = re.compile(r"O|[BIESLU]-\S+")


class Conll:
    """Columns are separated by tabs, or by spaces where a line has none; the first is the word, the last its tag.

    Rows have ``tokens`` and ``ner_tags``, lists of texts, and of four columns ``pos_tags`` and ``chunk_tags`` besides.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".conll", ".iob", ".iob2", ".bio")
    streams: ClassVar[bool] = True

    def read(self, stream: BinaryIO, origin: str, how: Reading = STRICT) -> Iterator[tuple[int, Row]]:
        sentence: list[list[str]] = []
        number = 0
        for place, line in enumerate(decode(stream, origin, how.encoding), 1):
            fields = line.rstrip("\r\n").split("\t") if "\t" in line.strip() else line.split()
            if (not sentence and _is_comment(line, fields)) or (fields and fields[0] == _DOCUMENT):
                continue
            if any(field.strip() for field in fields):
                if sentence and len(fields) != len(sentence[0]):
                    raise DataError(
                        f"{origin}: line {place}: {len(fields)} columns, where the sentence has {len(sentence[0])}; "
                        "give each word as many"
                    )
                if len(fields) < 2:
                    raise DataError(f"{origin}: line {place}: a word without a tag; give each word one")
                sentence.append([field.strip() for field in fields])
            elif sentence:
                number += 1
                yield number, _row(sentence)
                sentence = []
        if sentence:
            yield number + 1, _row(sentence)

    def writer(self) -> Writer:
        raise ConfigError("--output: predictions are not written as CoNLL; name a JSONL or Parquet file")


def _is_comment(line: str, fields: Sequence[str]) -> bool:
    """Whether a line before a sentence is about it, such as ``# sent_id = 1``, and not the word ``#`` with its tags."""
    if not line.startswith("# ") or "\t" in line or len(fields) == 2:
        return False
    return len(fields) not in _COLUMNS or not _TAG.fullmatch(fields[-1])


def _row(sentence: Sequence[Sequence[str]]) -> dict[str, Any]:
    columns = list(zip(*sentence, strict=True))
    names = _COLUMNS.get(len(columns), ())
    if not names:
        return {"tokens": list(columns[0]), "ner_tags": list(columns[-1])}
    return {name: list(column) for name, column in zip(names, columns, strict=True)}
