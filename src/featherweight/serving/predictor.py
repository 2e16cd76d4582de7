"""Texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from featherweight.errors import ModelError
from featherweight.serving.loading import LoadedModel, load

_ROWS = 32
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
        self._device = next(loaded.model.parameters()).device

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
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        result = torch.empty(len(rows), len(self.labels))
        for start in range(0, len(order), _ROWS):
            chosen = order[start : start + _ROWS]
            longest = len(rows[chosen[0]])
            pad = loaded.tokenizer.pad_token_id
            ids = torch.tensor([rows[index] + [pad] * (longest - len(rows[index])) for index in chosen])
            mask = torch.tensor([[1] * len(rows[index]) + [0] * (longest - len(rows[index])) for index in chosen])
            logits = loaded.model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).logits
            result[chosen] = loaded.task.probabilities(logits.float() / self.temperature).cpu()
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
