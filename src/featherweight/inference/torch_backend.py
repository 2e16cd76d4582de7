"""Answering by torch: a run, an adapter on its base, a merged or full model, a hub id, a GGUF file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.export.merged import can_merge, merge
from featherweight.inference.loading import LoadedModel, execution_of, load
from featherweight.records.batching import by_tokens
from featherweight.records.rows import Encoding, Ragged


def backend_of(name: str, base_model: str | None = None) -> TorchBackend:
    """The backend of whatever :func:`featherweight.inference.loading.load` takes."""
    return TorchBackend(load(name, base_model=base_model))


class TorchBackend:
    """Packed batches of like length, the adapter merged where that can be, on a CUDA device where there is one.

    Args:
        loaded: what answers; its model is changed in place.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = replace(loaded, model=merge(loaded.model) if can_merge(loaded.model) else loaded.model)
        self.kind: Answer = self.loaded.task.answer
        self.fitted = self.loaded.fitted
        self.text_column = self.loaded.text_column
        if torch.cuda.is_available():
            self.loaded.model.to("cuda")
        self._execution = execution_of(self.loaded)
        self._execution.answer_for_good(self.loaded.model)
        self._tokenizing = threading.Lock()  # setting its truncation, as each call does, needs the tokenizer alone

    @torch.no_grad()
    def outputs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        loaded = self.loaded
        with self._tokenizing:
            rows = loaded.task.tokenise(texts, loaded.tokenizer, loaded.max_length)
        encoding = Encoding.unlabelled(Ragged.of(rows, np.int32))
        result = np.empty((len(rows), self.kind.width), dtype=np.float32)
        for chosen in by_tokens(encoding.lengths):
            outputs = self._execution.outputs(loaded.model, encoding, chosen)
            result[chosen] = outputs.values.float().cpu().numpy()
        return result
