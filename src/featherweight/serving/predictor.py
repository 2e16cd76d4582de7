"""Texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from featherweight.engine.batches import by_tokens
from featherweight.errors import ModelError
from featherweight.records import Encoding
from featherweight.serving.loading import LoadedModel, execution_of, load

_BLOCK = 32 * 32  # texts sorted by length together; bounds the memory of a stream


class Predictor:
    """Answers with a loaded model, one text or a stream, in the order given.

    Args:
        loaded: what :func:`featherweight.serving.loading.load` gave.
        temperature: what logits are divided by; labels do not depend on it.
    """

    def __init__(self, loaded: LoadedModel, temperature: float = 1.0) -> None:
        self.loaded = loaded
        self.temperature = temperature
        self.labels: tuple[str, ...] = loaded.task.labels
        self._execution = execution_of(loaded)

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """``{"label": ..., "probabilities": {label: probability}}`` for each text."""
        return list(self.stream(texts))

    def stream(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The same, lazily and with bounded memory, whatever the number of texts."""
        iterator = iter(texts)
        while block := list(islice(iterator, _BLOCK)):
            for row in self._probabilities(block).tolist():
                best = max(range(len(row)), key=row.__getitem__)
                yield {"label": self.labels[best], "probabilities": dict(zip(self.labels, row, strict=True))}

    @torch.no_grad()
    def _probabilities(self, texts: Sequence[str]) -> torch.Tensor:
        """float32, shape (texts, classes)."""
        loaded = self.loaded
        rows = loaded.task.tokenise(texts, loaded.tokenizer, loaded.max_length)
        lengths = np.asarray([len(row) for row in rows], dtype=np.int64)
        tokens = np.asarray([token for row in rows for token in row], dtype=np.int32)
        encoding = Encoding(tokens, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(len(rows), dtype=np.int64), 0)
        result = torch.empty(len(rows), len(self.labels))
        for chosen in by_tokens(lengths):
            logits = self._execution.logits(loaded.model, encoding, chosen)
            result[torch.from_numpy(chosen)] = loaded.task.probabilities(logits.float() / self.temperature).cpu()
        return result


def load_predictor(name: str, *, calibrated: bool = False) -> Predictor:
    """Load a run, an adapter or a model for answering.

    Args:
        calibrated: answer at the temperature that the run fitted.

    Raises:
        ModelError: it can't be found, trusted or read, or no temperature was fitted for it.
    """
    loaded = load(name)
    if calibrated and loaded.temperature is None:
        raise ModelError(f"{name}: no temperature was fitted for it; leave --calibrated out")
    if torch.cuda.is_available():
        loaded.model.to("cuda")
    return Predictor(loaded, (loaded.temperature or 1.0) if calibrated else 1.0)
