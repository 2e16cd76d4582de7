"""Answering by ONNX Runtime. Needs ``onnxruntime``, ``tokenizers`` and ``numpy``; imports neither torch nor
transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer, kind_of
from featherweight.errors import ConfigError, ModelError, first_line
from featherweight.inference.facts import read_facts
from featherweight.records.batching import by_tokens, of_equal
from featherweight.runs.directory import FACTS
from featherweight.sources.panics import no_panics

_TOKEN_BUDGET = 1024
_NEEDED = ("labels", "max_length", "pad_token_id")
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
        self.kind: Answer = kind_of(facts).of_facts(facts)
        self.fitted: Mapping[str, Any] = facts
        self.text_column: str | None = facts.get("text_column")
        self._pad: int = facts["pad_token_id"]
        self._equal_lengths = bool(facts.get("equal_lengths"))
        self.max_length: int = facts["max_length"]
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
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
        (output,) = self._session.get_outputs()
        classes = output.shape[-1]
        if isinstance(classes, int) and classes != self.kind.width:
            raise ModelError(
                f"{folder / FACTS}: has {self.kind.width} labels, and model.onnx has {classes} classes; export it again"
            )

    def outputs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with no_panics():
            encoded = self._tokenizer.encode_batch_fast(list(texts))
        rows = [encoding.ids or [self._pad] for encoding in encoded]
        lengths = np.asarray([len(row) for row in rows], dtype=np.int64)
        result = np.empty((len(rows), self.kind.width), dtype=np.float32)
        for chosen in by_tokens(lengths, _TOKEN_BUDGET):
            for together in of_equal(lengths[chosen]) if self._equal_lengths else [slice(None)]:
                result[chosen[together]] = self._run([rows[index] for index in chosen[together]])
        return result

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        shape = len(rows), max(len(row) for row in rows)
        input_ids = np.full(shape, self._pad, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        (logits,) = self._session.run(None, {"input_ids": input_ids, "attention_mask": mask})
        return np.asarray(logits, dtype=np.float32)


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    if threads := os.environ.get("OMP_NUM_THREADS"):  # as torch does
        options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    return options
