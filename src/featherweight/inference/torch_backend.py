"""Answering by torch: a run, an adapter on its base, a merged or full model, a hub id, a GGUF file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch

from featherweight.engine.running.evaluate import Kept
from featherweight.export.merged import merge, unmergeable
from featherweight.inference.loading import LoadedModel, execution_of, load
from featherweight.records.batching import by_tokens
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Column, Encoding
from featherweight.sources.held import is_held
from featherweight.tasks.reading import tokens

_OUTPUTS = "outputs"


def backend_of(name: str, base_model: str | None = None) -> TorchBackend:
    """The backend of whatever :func:`featherweight.inference.loading.load` takes."""
    return TorchBackend(load(name, base_model=base_model))


class TorchBackend:
    """Packed batches of like length, the adapter merged where that can be and the base model is held in fp32, on a
    CUDA device where there is one.

    Args:
        loaded: what answers; its model is changed in place.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        apart = is_held(loaded.model) or unmergeable(loaded.model)
        self.loaded = replace(loaded, model=loaded.model if apart else merge(loaded.model))
        self.task = self.loaded.task
        self.fitted = self.loaded.fitted
        self.text_columns = self.loaded.text_columns
        self.cutting = self.loaded.cutting
        if torch.cuda.is_available():
            self.loaded.model.to("cuda")
        self._execution = execution_of(self.loaded)
        self._execution.answer_for_good(self.loaded.model)
        self._tokenizing = threading.Lock()  # setting its truncation, as each call does, needs the tokenizer alone

    def tokenise(self, asked: Sequence[Question]) -> list[Tokens]:
        with self._tokenizing:
            return tokens.encode(asked, self.loaded.tokenizer, self.cutting)

    @torch.no_grad()
    def outputs(self, rows: Sequence[Tokens]) -> Column:
        encoding = Encoding.asked(rows, self.cutting.pool)
        kept = Kept(len(rows))
        for chosen in by_tokens(encoding.lengths):
            outputs = self._execution.outputs(self.loaded.model, encoding, chosen)
            kept.add(chosen, {_OUTPUTS: outputs.column(self.task.reads_tokens)})
        return kept.answers().columns[_OUTPUTS]
