"""Answering by torch: a run, an adapter on its base, a merged or full model, a hub id, a GGUF file."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch

from featherweight.engine.running.generate import Sampling, Spoken, room, spelt, write
from featherweight.engine.running.passes import Kept
from featherweight.errors import ConfigError
from featherweight.export.merged import merge, unmergeable
from featherweight.inference.backends import answers_of
from featherweight.inference.loading import LoadedModel, execution_of, load
from featherweight.records.answers import Answers
from featherweight.records.batching import by_tokens
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Column, Encoding
from featherweight.sources.held import is_held
from featherweight.tasks import Compares
from featherweight.tasks.reading import continuing

_OUTPUTS = "outputs"

Run = Callable[[Encoding], Column]


class Reference:
    """What the answers of a tuned model are held to, where they are compared: the model that its tuning began with.

    Args:
        tuned: the model whose answers are compared.
        untuned: runs what its tuning began with; it is loaded where it is first asked if None.
    """

    def __init__(self, tuned: LoadedModel, untuned: Run | None = None) -> None:
        self._tuned = tuned
        self._given = untuned
        self._asking = threading.Lock()

    def beside(self, encoding: Encoding) -> Encoding:
        """The rows with how likely the untuned model makes each answer, where that is what rewards are told by; as they
        are for a model that was not tuned.

        Raises:
            ConfigError: the untuned model is not there.
            ModelError: it can't be read, or has changed since.
        """
        task = cast(Compares, self._tuned.task)
        if self._tuned.untuned is None or not encoding.compares or not task.refers:
            return encoding
        with self._asking:
            outputs = self._run(encoding)
        return replace(encoding, reference=task.reference(task.answer.of_outputs(outputs, {})))

    @cached_property
    def _run(self) -> Run:
        if self._given is not None:
            return self._given
        assert self._tuned.untuned is not None
        try:
            return TorchBackend(self._tuned.untuned()).run
        except ConfigError as error:
            raise ConfigError(f"{error}; answers are compared by how much likelier tuning made them") from None


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
        self._reference = Reference(self.loaded)
        self._tokenizing = threading.Lock()  # setting its truncation, as each call does, needs the tokenizer alone

    def sharing(self, loaded: LoadedModel, untuned: Run) -> TorchBackend:
        """The same model, asked as another one is.

        Args:
            untuned: runs what the other one's tuning began with.
        """
        made = copy.copy(self)
        made._reference = Reference(loaded, untuned)
        made.loaded = replace(loaded, model=self.loaded.model)
        made.task, made.fitted = loaded.task, loaded.fitted
        made.text_columns, made.cutting = loaded.text_columns, loaded.cutting
        made._tokenizing = threading.Lock()
        vars(made).pop("_ends", None)
        return made

    def tokenise(self, asked: Sequence[Question]) -> list[Tokens]:
        most = [self._room(one) for one in asked]
        found: dict[int, Tokens] = {}
        for length in set(most):
            places = [place for place, one in enumerate(most) if one == length]
            cutting = replace(self.cutting, max_length=length)
            with self._tokenizing:
                rows = self.task.tokenise([asked[place] for place in places], self.loaded.tokenizer, cutting)
            found |= zip(places, rows, strict=True)
        return [found[place] for place in range(len(asked))]

    def _room(self, asked: Question) -> int:
        """How many tokens of a question the model sees: as many as when it was tuned; of a prompt that is to be
        continued, by a model that has positions, as many as those hold beside the continuation."""
        if not asked.new_tokens:
            return self.cutting.max_length
        most, _ = room(self.loaded.model, asked.new_tokens)
        return self.cutting.max_length if most is None else most

    def answers(
        self, rows: Sequence[Tokens], options: Mapping[str, Any], heard: Callable[[str], None] | None = None
    ) -> Answers:
        if self.task.scores_tokens and any(row.reads is None for row in rows):
            return self._written(rows, Sampling.of(options), heard)
        return answers_of(self, rows, options)

    def _written(self, rows: Sequence[Tokens], how: Sampling, heard: Callable[[str], None] | None) -> Answers:
        """What the model writes behind rows that are to be continued."""
        tokenizer = self.loaded.tokenizer
        spoken = None if heard is None else Spoken(tokenizer, how, heard)
        add = None if spoken is None else spoken.add
        model, prompts = self.loaded.model, [row.ids for row in rows]
        found = write(model, prompts, self._ends, tokenizer, how, add, self._execution.equal_lengths)
        texts, stopped = spelt(found, self._ends, tokenizer, how)
        if spoken is not None:
            spoken.end(texts[0])
        return self.task.answer.of_written(texts, [*map(len, found)], stopped)  # type: ignore[attr-defined, no-any-return]

    @cached_property
    def _ends(self) -> frozenset[int]:
        return continuing.ends(self.loaded.model, self.loaded.tokenizer)

    def outputs(self, rows: Sequence[Tokens]) -> Column:
        return self.run(self._reference.beside(Encoding.asked(rows, self.cutting.pool)))

    @torch.no_grad()
    def run(self, encoding: Encoding) -> Column:
        """What the head gives for these rows, whatever is known of them."""
        kept = Kept(len(encoding))
        for chosen in by_tokens(encoding.lengths):
            outputs = self._execution.outputs(self.loaded.model, encoding, chosen)
            kept.add(chosen, {_OUTPUTS: outputs.column(self.task.reads_tokens)})
        return kept.answers().columns[_OUTPUTS]
