"""What a model is tuned for. A task is one file here and one line in the ``TASKS`` table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from featherweight.answers import Answer
from featherweight.recipe import DataSection, ModelSection
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Column, Encoding, Examples, Split
from featherweight.sources.models import ModelSource

if TYPE_CHECKING:
    import torch


class Task(Protocol):
    """What workflow and inference ask of a task; the engine asks for ``answer``, ``loss`` and ``answers`` alone.

    Attributes:
        name: in ``TASKS``.
        auto_class: the class of transformers that loads its models.
        peft_task_type: what PEFT calls it.
        answers_with: the kind of its answers.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]
    peft_task_type: ClassVar[str]
    answers_with: ClassVar[type[Answer]]

    def __init__(self, labels: Sequence[str]) -> None: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the model's outputs, in their order."""
        ...

    @property
    def answer(self) -> Answer:
        """The kind of its answers, with what it knows of the data."""
        ...

    @classmethod
    def prepare(cls, splits: Mapping[str, Split], section: DataSection, seed: int) -> tuple[Self, dict[str, Examples]]:
        """The task as the data makes it, and ``train``, ``validation`` and, where there is one, ``test``. Raises
        DataError that names the file, the row and the fix."""
        ...

    @classmethod
    def measure_only(cls, split: Split, section: DataSection, labels: Sequence[str]) -> Examples:
        """One split, for measuring a model that has its outputs already."""
        ...

    @classmethod
    def labels_of(cls, split: Split, section: DataSection) -> tuple[str, ...]:
        """The names that a split makes up."""
        ...

    @staticmethod
    def has_head(config: Any) -> bool:
        """Whether a stored model was trained for this task, going by its configuration."""
        ...

    def load_model(self, source: ModelSource, section: ModelSection) -> tuple[Any, Any, list[str]]:
        """The model in fp32 and evaluation mode, its tokenizer, and the dotted names of the modules that are fresh."""
        ...

    def mend_head(self, model: Any, head: Sequence[str]) -> list[str]:
        """Draw modules of the head afresh that are not usable; their names."""
        ...

    def max_length(
        self, tokenizer: Any, model: Any, configured: int | None, *, tried: bool = False
    ) -> tuple[int, str | None]:
        """Tokens after which texts are cut, and why."""
        ...

    def encode(self, examples: Examples, tokenizer: Any, max_length: int) -> Encoding:
        """One split as the engine sees it, tokenised once."""
        ...

    def tokenise(self, texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
        """Token ids of each text of a predictor's input."""
        ...

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Summed over the rows' items, in fp32; see :class:`featherweight.engine.Task`."""
        ...

    def answers(self, outputs: Outputs) -> Mapping[str, Column]:
        """What is kept of the rows, by name."""
        ...

    def shares(self, examples: Examples) -> dict[str, float]:
        """Share of each label in a split."""
        ...
