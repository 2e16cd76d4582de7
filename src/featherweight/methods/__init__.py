"""Which parameters train. A method is one file here and one line in the ``METHODS`` table, made from
:class:`Method`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from featherweight.recipe import MethodOptions
from featherweight.records.training import Keeper


class Sample(Protocol):
    """A few rows of train, for a method that begins with what they show."""

    def inputs(self) -> list[dict[str, Any]]:
        """What transformers' ``forward`` takes, in padded batches."""
        ...

    def read(self, model: Any) -> None:
        """Let the model read the rows, one at a time and so without padding."""
        ...

    def lower(self, model: Any) -> None:
        """Add up the gradients of the rows' loss in what requires them."""
        ...


@dataclass(frozen=True)
class Fit:
    """What a method has to know of the run that it prepares a model for.

    Attributes:
        task_type: PEFT's name for the task, such as ``SEQ_CLS``.
        head: dotted names of the modules that train whole and travel with an adapter.
        sample: of train.
    """

    task_type: str
    head: list[str]
    sample: Sample


@dataclass(frozen=True)
class Adapted:
    """A model ready to train.

    Attributes:
        model: only the parameters that the method trains require gradients.
        chosen: option name to (value, reason), for what the recipe left to the method.
        keeper: what the method keeps in step with training; None where it is done once the model is made.
    """

    model: Any
    chosen: dict[str, tuple[Any, str]]
    keeper: Keeper | None = None


class Method(Protocol):
    """What the engine and the workflow ask of a method.

    Attributes:
        artefact: the folder in the run directory that :meth:`save` fills: ``adapter`` where PEFT loads it on top of the
            base model, ``model`` where it is a whole transformers model.
        trains_head_alone: whether there is nothing to train but a fresh head.
        trains_lora: whether PEFT's LoRA layers are among what trains, which ``training.loraplus_lr_ratio`` is about.
        trains: what trains, in words.
        merges: whether what is learned can be added into the base model's own weights.
        packs: whether a model that runs packed still does.
        goes_on: whether training can go on from what was published.
        unheld: why the base model's weights can't be held in fewer bits; empty where they can.
        virtual_tokens: how many it puts before every text.
        converts: whether :meth:`save` tells what is learned otherwise than it is trained.
    """

    Options: ClassVar[type[MethodOptions]]
    trains: ClassVar[str]
    artefact: ClassVar[str] = "adapter"
    trains_head_alone: ClassVar[bool] = False
    trains_lora: ClassVar[bool] = False
    merges: ClassVar[bool] = True
    packs: ClassVar[bool] = True
    goes_on: ClassVar[bool] = True

    @property
    def virtual_tokens(self) -> int:
        return 0

    @property
    def converts(self) -> bool:
        return False

    @property
    def unheld(self) -> str:
        return ""

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

    def worth_trying(self) -> dict[str, list[Any]]:
        """Of the method's options those that matter most, each with other values than it has, for who looks for better
        ones."""
        return {}

    def require_targets(self, model: Any) -> None:
        """Raises ConfigError where this model has nothing that the method tunes; asked before its weights are read."""
        ...

    def apply(self, model: Any, fit: Fit) -> Adapted: ...

    def save(self, model: Any, folder: Path, base_model: str, revision: str | None) -> None: ...
