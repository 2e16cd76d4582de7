"""Texts in, answers out, whatever it is that answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.errors import DataError
from featherweight.process.imports import importing_models
from featherweight.records.answers import Answers
from featherweight.sources import cells

_BLOCK = 32 * 32  # texts sorted by length together; bounds the memory of a stream

# What a folder holds, to what answers with it; everything else is a model of torch's.
_BACKENDS = {"model.onnx": "featherweight.inference.onnx_backend:OnnxBackend"}
_TORCH = "featherweight.inference.torch_backend:backend_of"


class Backend(Protocol):
    """What answers. Many threads may call one at the same time.

    Attributes:
        kind: of the answers.
        fitted: on held-out rows, as the kind has it; what was not fitted is None or missing.
        text_column: what the column with the text was called where the model was tuned; None where nobody knows.
    """

    kind: Answer
    fitted: Mapping[str, Any]
    text_column: str | None

    def outputs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the model's head gives; shape (texts, width), in the order of the texts."""
        ...


class Predictor:
    """Answers one text, many or a stream, in the order given. Threads may share one.

    Args:
        backend: what answers.
        options: how, as the kind of answer takes them.
    """

    def __init__(self, backend: Backend, options: Mapping[str, Any] | None = None) -> None:
        self.backend = backend
        self.kind = backend.kind
        self.options = options or {}

    def predict(self, texts: str | Iterable[str]) -> list[dict[str, Any]]:
        """The kind's reply to each text, such as ``{"label": ..., "probabilities": {label: probability}}``; one text
        gives a list of one.

        Raises:
            DataError: something that is not a text is among them.
        """
        return list(self.stream([texts] if isinstance(texts, str) else texts))

    def stream(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The same, lazily and with bounded memory, whatever the number of texts."""
        for block in self._blocks(texts):
            yield from self.kind.reply(block, self.options)

    def answers(self, texts: Iterable[str]) -> Answers:
        """Answers as numbers, in the order of the texts."""
        nothing = np.empty((0, self.kind.width), dtype=np.float32)
        blocks = list(self._blocks(texts)) or [self.kind.of_outputs(nothing, self.options)]
        return Answers({name: np.concatenate([one[name] for one in blocks]) for name in blocks[0].columns})

    def predict_file(
        self,
        source: str | Path,
        output: str | Path,
        *,
        column: str | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
    ) -> int:
        """Answer each row of a CSV, TSV, JSON, JSONL or Parquet file into another, which appears when it is complete.

        Args:
            source: ``-`` reads JSONL from standard input.
            output: ``-`` writes JSONL to standard output.
            column: which column holds the text; None is the one that the run was tuned with, or else ``text``.
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

        known = list(dict.fromkeys(filter(None, (self.backend.text_column, "text"))))
        how = Reading(encoding, delimiter=delimiter)
        return answer_file(self, str(source), str(output), [column] if column else known, how)

    def _blocks(self, texts: Iterable[str]) -> Iterator[Answers]:
        iterator = map(_clean, texts)
        while block := list(islice(iterator, _BLOCK)):
            yield self.kind.of_outputs(self.backend.outputs(block), self.options)


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
) -> Predictor:
    """Load a run, an adapter, a model or an export for answering.

    Args:
        calibrated: answer at the temperature that the run fitted.
        max_error_rate: abstain where the answers would be wrong more often, by the threshold that the run found on
            held-out rows for this rate; probabilities are calibrated then.
        base_model: where an adapter's base model is on this machine; where the adapter says itself if None.

    Raises:
        ModelError: it can't be found, trusted or read, or no temperature was fitted for it.
        ConfigError: the run has no threshold for this rate.
    """
    name = str(path_or_run)
    found = (_BACKENDS[marker] for marker in _BACKENDS if (Path(name) / marker).is_file())
    module, _, attribute = next(found, _TORCH).partition(":")
    backend: Backend = getattr(import_module(module), attribute)(name, base_model)
    asked = {"calibrated": calibrated, "max_error_rate": max_error_rate}
    return Predictor(backend, backend.kind.options(name, backend.fitted, asked))


def _clean(text: Any) -> str:
    """Text as a tokenizer can take it: a lone surrogate, which JSON can spell, has no UTF-8 form."""
    if not isinstance(text, str):
        raise DataError(f"a text was expected, not {cells.not_a_text(text)}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
