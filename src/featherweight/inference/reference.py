"""What the answers of a tuned model are held to, where they are compared: the model that its tuning began with."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from featherweight.errors import ConfigError
from featherweight.inference.loading import LoadedModel, execution_of
from featherweight.records.rows import Encoding
from featherweight.tasks import Compares

if TYPE_CHECKING:
    from featherweight.engine.running.execution import Execution


class Reference:
    """The untuned model, loaded where it is first asked.

    Args:
        tuned: the model whose answers are compared.
    """

    def __init__(self, tuned: LoadedModel) -> None:
        self._tuned = tuned
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
        from featherweight.engine.running.evaluate import answers

        with self._asking:
            model, execution = self._untuned
            rows = np.arange(len(encoding))
            found = answers(model, task.answer, encoding, rows, execution=execution)
        return replace(encoding, reference=task.reference(found))

    @cached_property
    def _untuned(self) -> tuple[object, Execution]:
        import torch

        assert self._tuned.untuned is not None
        try:
            loaded = self._tuned.untuned()
        except ConfigError as error:
            raise ConfigError(f"{error}; answers are compared by how much likelier tuning made them") from None
        if torch.cuda.is_available():
            loaded.model.to("cuda")
        return loaded.model, execution_of(loaded)
