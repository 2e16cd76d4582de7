"""Answering by ONNX Runtime. Needs ``onnxruntime``, ``tokenizers`` and ``numpy``; imports neither torch nor
transformers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ConfigError, ModelError, first_line
from featherweight.inference.backends import answers_of
from featherweight.inference.facts import read_facts
from featherweight.records.answers import Answers
from featherweight.records.batching import by_tokens, of_equal
from featherweight.records.cutting import Cutting, pooled
from featherweight.records.questions import Question, Tokens, columns_of
from featherweight.records.rows import UNSEEN, Column, Encoding, Ragged
from featherweight.runs.directory import FACTS
from featherweight.tasks import Task, task_of
from featherweight.tasks.reading.tokens import FileTokenizer

_TOKEN_BUDGET = 1024
_NEEDED = ("max_length", "pad_token_id")
_EXPORT = "pip install 'featherweight[export]'"


class OnnxBackend:
    """Padded batches of like length.

    Args:
        name: the folder that ``featherweight export`` wrote: ``model.onnx``, ``tokenizer.json`` and
            ``featherweight.json``.

    Raises:
        ConfigError: a package is missing.
        ModelError: a file is missing or can't be read.
    """

    def __init__(self, name: str, base_model: str | None = None) -> None:
        if base_model is not None:
            raise ConfigError(f"--base-model: {name} is an export that holds its whole model")
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(f"{name}: an ONNX export needs {error.name}; run: {_EXPORT}") from None
        folder = Path(name)
        facts = read_facts(folder)
        if missing := [key for key in _NEEDED if key not in facts]:
            raise ModelError(f"{folder / FACTS}: lacks {missing[0]!r}; export it again")
        try:
            self.task: Task = task_of(facts)
        except KeyError as error:
            raise ModelError(f"{folder / FACTS}: lacks {error.args[0]!r}; export it again") from None
        self.fitted: Mapping[str, Any] = facts
        self.text_columns = columns_of(facts)
        self._tokenizing = threading.Lock()
        self._pad: int = facts["pad_token_id"]
        self._equal_lengths = bool(facts.get("equal_lengths"))
        self.cutting = Cutting.of(facts, facts["max_length"])
        try:
            found = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise ModelError(f"{folder / 'tokenizer.json'}: can't be read: {error}; export it again") from None
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), _options(onnxruntime), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise ModelError(
                f"{folder / 'model.onnx'}: can't be loaded: {first_line(error)}; export it again"
            ) from None
        side = (found.truncation or {}).get("direction", "right")
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._tokenizer = FileTokenizer(found, self._pad, side, model_input_names=self._inputs)
        (output,) = self._session.get_outputs()
        width, expected = output.shape[-1], self.task.answer.width
        if isinstance(width, int) and width != expected:
            raise ModelError(
                f"{folder / FACTS}: has {expected} labels, and model.onnx has {width} classes; export it again"
            )

    def tokenise(self, asked: Sequence[Question]) -> list[Tokens]:
        with self._tokenizing:
            return self.task.tokenise(asked, self._tokenizer, self.cutting)

    def answers(
        self, rows: Sequence[Tokens], options: Mapping[str, Any], heard: Callable[[str], None] | None = None
    ) -> Answers:
        return answers_of(self, rows, options)

    def outputs(self, rows: Sequence[Tokens]) -> Column:
        encoding = Encoding.asked(rows, self.cutting.pool)
        lengths = encoding.tokens.lengths
        sequences = [one for row in rows for one in row.windows()]
        found: list[Any] = [None] * len(sequences)
        for chosen in by_tokens(lengths, _TOKEN_BUDGET):
            for together in of_equal(lengths[chosen]) if self._equal_lengths else [slice(None)]:
                members = chosen[together]
                for row, logits in zip(members, self._run([sequences[index] for index in members]), strict=True):
                    found[row] = logits
        if not found:
            return np.empty((0, self.task.answer.width), dtype=np.float32)
        if encoding.windows is not None:
            return pooled(np.stack(found), encoding.windows, encoding.pool)
        if encoding.reads is None:
            return np.stack(found)
        read = [_read(logits, encoding.reads.row(row)) for row, logits in enumerate(found)]
        return Ragged(np.concatenate(read), encoding.reads.offsets)

    def _run(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """Logits, shape (rows, width), or (rows, tokens, width)."""
        shape = len(rows), max(len(row.ids) for row in rows)
        input_ids = np.full(shape, self._pad, dtype=np.int64)
        mask, kinds = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row.ids)] = row.ids
            mask[index, : len(row.ids)] = 1
            kinds[index, : len(row.kinds or ())] = row.kinds or ()
        given = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": kinds}
        (logits,) = self._session.run(None, {name: given[name] for name in self._inputs})
        return np.asarray(logits, dtype=np.float32)


def _read(logits: NDArray[np.float32], reads: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the head gives for each read of a row; NaN where there is nothing to read."""
    values = logits[np.maximum(reads, 0)]
    return np.where((reads == UNSEEN)[:, None], np.float32(np.nan), values)


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    if threads := os.environ.get("OMP_NUM_THREADS"):  # as torch does
        options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    return options
