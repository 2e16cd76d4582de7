"""Which parameters train. A method is one file here and one line in the ``METHODS`` table, and has this shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from featherweight.recipe import MethodOptions


@dataclass(frozen=True)
class Adapted:
    """A model ready to train.

    Attributes:
        model: only the parameters that the method trains require gradients.
        chosen: option name to (value, reason), for what the recipe left to the method.
    """

    model: Any
    chosen: dict[str, tuple[Any, str]]


class Method(Protocol):
    """What the engine and the workflow ask of a method.

    ``artefact`` is the name of the folder in the run directory that :meth:`save` fills: ``adapter`` where PEFT loads
    it on top of the base model, ``model`` where it is a whole transformers model. ``trains_lora``: whether PEFT's LoRA
    layers are among what trains, which ``training.loraplus_lr_ratio`` is about.
    """

    Options: ClassVar[type[MethodOptions]]
    artefact: ClassVar[str]
    trains_lora: ClassVar[bool]

    def __init__(self, options: Any) -> None: ...

    @classmethod
    def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The options that an adapter was made with, from its ``adapter_config.json``; None where this method did not
        make it."""
        ...

    def rates(self, width: int) -> dict[str, tuple[float, str]]:
        """Rates for a recipe that leaves them open, by their key of ``[training]``, each with its reason.

        Args:
            width: of the model's hidden states.
        """
        ...

    def require_targets(self, model: Any) -> None:
        """Raises ConfigError where this model has nothing that the method tunes; asked before anything is measured."""
        ...

    def apply(self, model: Any, task_type: str, head: list[str]) -> Adapted: ...

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None: ...
