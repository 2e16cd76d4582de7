"""Texts in, labels and probabilities out, whatever it is that answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ConfigError, DataError, ModelError
from featherweight.process.imports import importing_models
from featherweight.sources import cells

_BLOCK = 32 * 32  # texts sorted by length together; bounds the memory of a stream

# What a folder holds, to what answers with it; everything else is a model of torch's.
_BACKENDS = {"model.onnx": "featherweight.inference.onnx_backend:OnnxBackend"}
_TORCH = "featherweight.inference.torch_backend:backend_of"


class Backend(Protocol):
    """What answers. Many threads may call one at the same time.

    Attributes:
        labels: class names in the order of the outputs.
        temperature: fitted on held-out rows; None where none was.
        thresholds: the run's, each with ``wanted_error_rate`` and ``confidence`` (None where it is out of reach).
        text_column: what the column with the text was called where the model was tuned; None where nobody knows.
    """

    labels: tuple[str, ...]
    temperature: float | None
    thresholds: Sequence[dict[str, Any]]
    text_column: str | None

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (texts, classes), in the order of the texts."""
        ...


class Predictor:
    """Answers one text, many or a stream, in the order given. Threads may share one.

    Args:
        backend: what answers.
        temperature: what logits are divided by; the most probable label does not depend on it.
        confidence: an answer whose probability is less abstains: its label is None.
    """

    def __init__(self, backend: Backend, temperature: float = 1.0, confidence: float = 0.0) -> None:
        self.backend = backend
        self.temperature = temperature
        self.confidence = confidence
        self.labels = backend.labels

    def predict(self, texts: str | Iterable[str]) -> list[dict[str, Any]]:
        """``{"label": ..., "probabilities": {label: probability}}`` for each text; one text gives a list of one.

        Raises:
            DataError: something that is not a text is among them.
        """
        return list(self.stream([texts] if isinstance(texts, str) else texts))

    def stream(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The same, lazily and with bounded memory, whatever the number of texts."""
        for row in self._rows(texts):
            best = max(range(len(row)), key=row.__getitem__)
            label = self.labels[best] if row[best] >= self.confidence else None
            yield {"label": label, "probabilities": dict(zip(self.labels, row, strict=True))}

    def probabilities(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Shape (texts, classes), in the order of the texts and of ``labels``."""
        return np.asarray(list(self._rows(texts)), dtype=np.float32).reshape(-1, len(self.labels))

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

    def _rows(self, texts: Iterable[str]) -> Iterator[list[float]]:
        iterator = map(_clean, texts)
        while block := list(islice(iterator, _BLOCK)):
            yield from _softmax(self.backend.logits(block) / self.temperature).tolist()


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
    calibrated = calibrated or max_error_rate is not None
    if calibrated and backend.temperature is None:
        raise ModelError(f"{name}: no temperature was fitted for it; leave --calibrated and --max-error-rate out")
    confidence = 0.0 if max_error_rate is None else _confidence(name, backend, max_error_rate)
    return Predictor(backend, (backend.temperature or 1.0) if calibrated else 1.0, confidence)


def _confidence(name: str, backend: Backend, max_error_rate: float) -> float:
    """The least confidence to answer at, from the thresholds that the run found."""
    known = {one["wanted_error_rate"]: one.get("confidence") for one in backend.thresholds}
    if max_error_rate not in known:
        rates = ", ".join(f"{rate:g}" for rate in known) or "none"
        raise ConfigError(f"--max-error-rate {max_error_rate:g}: {name} has thresholds for: {rates}")
    confidence = known[max_error_rate]
    if confidence is None:
        raise ConfigError(
            f"--max-error-rate {max_error_rate:g}: on {name}'s held-out rows no threshold reaches it; allow more"
        )
    return float(confidence)


def _clean(text: Any) -> str:
    """Text as a tokenizer can take it: a lone surrogate, which JSON can spell, has no UTF-8 form."""
    if not isinstance(text, str):
        raise DataError(f"a text was expected, not {cells.not_a_text(text)}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
