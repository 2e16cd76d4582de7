"""Texts in, answers out, whatever it is that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featherweight.errors import ConfigError, DataError
from featherweight.process.imports import importing_models
from featherweight.records.answers import Answers, joined
from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Column, Ragged
from featherweight.tasks import Task
from featherweight.tasks.reading.questions import require_fits

_BLOCK = 32 * 32  # texts sorted by length together; bounds the memory of a stream

# What a folder holds, to what answers with it; everything else is a model of torch's.
_BACKENDS = {"model.onnx": "featherweight.inference.onnx_backend:OnnxBackend"}
_TORCH = "featherweight.inference.torch_backend:backend_of"


class Backend(Protocol):
    """What answers. Many threads may call one at the same time.

    Attributes:
        task: of the model, which knows what is answered.
        fitted: on held-out rows, as the kind of answer has it; what was not fitted is None or missing.
        text_columns: what the column of the texts, or the two of their pairs, was called where the model was tuned;
            none where nobody knows.
        cutting: what becomes of long texts.
    """

    task: Task
    fitted: Mapping[str, Any]
    text_columns: tuple[str, ...]
    cutting: Cutting

    def tokenise(self, asked: Sequence[Question]) -> list[Tokens]:
        """Questions as the model sees them."""
        ...

    def outputs(self, rows: Sequence[Tokens]) -> Column:
        """What the model's head gives, in the order of the rows: shape (rows, width), or ragged with one for each
        read."""
        ...

    def answers(
        self, rows: Sequence[Tokens], options: Mapping[str, Any], heard: Callable[[str], None] | None = None
    ) -> Answers:
        """Answers from that; of rows that are to be continued, what the model writes.

        Args:
            heard: is told the text of one row part by part.
        """
        ...


class Predictor:
    """Answers one text, many or a stream, in the order given. Threads may share one.

    Args:
        backend: what answers.
        options: how, as the kind of answer takes them.
    """

    def __init__(self, backend: Backend, options: Mapping[str, Any] | None = None) -> None:
        self.backend = backend
        self.task = backend.task
        self.kind = backend.task.answer
        self.options = options or {}

    def predict(self, asked: str | Iterable[Any]) -> list[dict[str, Any]]:
        """The kind's reply to each text, such as ``{"label": ..., "probabilities": {label: probability}}``; one text
        gives a list of one.

        Args:
            asked: texts, or whatever else the task may be asked, such as a pair, ``{"text": ..., "text_pair": ...}``,
                or the words of a text.

        Raises:
            DataError: something that is no question is among them.
        """
        return list(self.stream([asked] if isinstance(asked, str) else asked))

    def stream(self, asked: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The same, lazily and with bounded memory, whatever the number of texts."""
        for questions, rows in self._tokenised(asked):
            yield from self.kind.reply(self.backend.answers(rows, self.options), questions, self.options)

    def answers(self, asked: Iterable[Any]) -> Answers:
        """Answers as numbers, in the order of the texts.

        Raises:
            DataError: some of them bring what they are to be continued with, and others don't.
        """
        blocks = [self.backend.answers(rows, self.options) for _, rows in self._tokenised(asked)]
        if len({frozenset(one.columns) for one in blocks}) > 1:
            raise DataError("some of the questions bring their completion and others don't; ask them apart")
        return joined(blocks) if blocks else self.kind.of_outputs(self._nothing(), self.options)

    def blocks(self, asked: Iterable[Any]) -> Iterator[tuple[list[Question], Column]]:
        """The questions, some at a time, with what the model's head gives for them."""
        for questions, rows in self._tokenised(asked):
            yield questions, self.backend.outputs(rows)

    def _tokenised(self, asked: Iterable[Any]) -> Iterator[tuple[list[Question], list[Tokens]]]:
        iterator = iter(asked)
        while block := list(islice(iterator, _BLOCK)):
            questions = [given if isinstance(given, Question) else self.question(given) for given in block]
            for _, alike in groupby(questions, lambda one: one.new_tokens > 0):
                part = list(alike)
                yield part, self.backend.tokenise(part)

    def question(self, given: Any) -> Question:
        """What is given, as the model is asked it. Raises DataError where it is nothing that this model answers."""
        (found,) = self.task.questions([given])
        return require_fits(found, self.backend.text_columns)

    def _nothing(self) -> Column:
        values = np.empty((0, self.kind.width), dtype=np.float32)
        return Ragged(values, np.zeros(1, dtype=np.int64)) if self.task.reads_tokens else values

    def predict_file(
        self,
        source: str | Path,
        output: str | Path,
        *,
        column: str | Sequence[str] | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
    ) -> int:
        """Answer each row of a data file into another, of any format, which appears when it is complete.

        Args:
            source: ``-`` reads JSONL from standard input.
            output: ``-`` writes JSONL to standard output.
            column: which column holds the text, or which two hold pairs; None is what the run was tuned with, or else
                ``text``, and ``text_pair``.
            encoding: of the source.
            delimiter: what separates the fields of CSV and TSV; found out if None.

        Returns:
            The number of rows.

        Raises:
            DataError: the file can't be read, or lacks the column.
            ResourceError: the output can't be written.
        """
        from featherweight.inference.files import answer_file
        from featherweight.sources.formats import Reading

        tuned_with = self.backend.text_columns
        candidates = list(dict.fromkeys([tuned_with or ("text",), ("text", "text_pair")[: len(tuned_with) or 1]]))
        if column:
            candidates = [(column,) if isinstance(column, str) else tuple(column)]
        how = Reading(encoding, delimiter=delimiter)
        return answer_file(self, str(source), str(output), candidates, how)


def is_export(name: str | Path) -> bool:
    """Whether a folder answers by other means than torch, such as an ONNX export."""
    return any((Path(name) / marker).is_file() for marker in _BACKENDS)


@importing_models()
def load_predictor(
    path_or_run: str | Path,
    *,
    calibrated: bool = False,
    max_error_rate: float | None = None,
    base_model: str | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Predictor:
    """Load a run, an adapter, a model or an export for answering.

    Args:
        calibrated: answer with what the run fitted on held-out rows: a temperature, thresholds, intervals.
        max_error_rate: abstain where the answers would be wrong more often, by the threshold that the run found on
            held-out rows for this rate; probabilities are calibrated then.
        base_model: where an adapter's base model is on this machine; where the adapter says itself if None.
        generation: how text is written: ``max_new_tokens``, ``num_beams``, ``temperature``, ``top_p``, ``seed``.

    Raises:
        ModelError: it can't be found, trusted or read, or no temperature was fitted for it.
        ConfigError: the run has no threshold for this rate, or writes no text.
    """
    name = str(path_or_run)
    found = (_BACKENDS[marker] for marker in _BACKENDS if (Path(name) / marker).is_file())
    module, _, attribute = next(found, _TORCH).partition(":")
    backend: Backend = getattr(import_module(module), attribute)(name, base_model)
    given = {key: value for key, value in (generation or {}).items() if value is not None}
    if given and not backend.task.scores_tokens:
        flag = next(iter(given)).replace("_", "-")
        raise ConfigError(f"--{flag}: {name} answers otherwise than with text that it writes; leave it out")
    asked = {"calibrated": calibrated, "max_error_rate": max_error_rate, **given}
    return Predictor(backend, backend.task.answer.options(name, backend.fitted, asked))
