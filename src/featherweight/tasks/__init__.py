"""What a model is tuned for. A task is one file here and one line in the ``TASKS`` table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from featherweight.answers import Answer, kind_of
from featherweight.records.answers import Answers
from featherweight.records.cutting import Cutting
from featherweight.records.outputs import Outputs
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Encoding, Examples, Split
from featherweight.registry import DEFAULT_TASK, TASKS
from featherweight.tasks.heads import HeadPlan
from featherweight.tasks.loading import Loading
from featherweight.tasks.losses import Objective

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from featherweight.recipe import DataSection, TrainingSection


class Task(Protocol):
    """What workflow and inference ask of a task; the engine asks for ``answer`` and ``loss`` alone.

    Attributes:
        name: in ``TASKS``.
        peft_task_type: what PEFT calls it.
        hub_tag: what the hub calls it (``pipeline_tag``).
        reads_tokens: whether the head answers for several tokens of a row, which the encoding names; else once a row.
        scores_tokens: whether it is asked, for each of them, how likely the token behind it is; what has nothing to be
            scored is written.
        Columns: the ``[data]`` section, with the task's own keys. It may have ``Training`` too, the ``[training]``
            section with the task's own keys.
        answer: the kind of its answers, with what it knows of the data.
    """

    name: ClassVar[str]
    peft_task_type: ClassVar[str]
    hub_tag: ClassVar[str]
    reads_tokens: ClassVar[bool]
    scores_tokens: ClassVar[bool]
    Columns: ClassVar[type[DataSection]]

    @property
    def answer(self) -> Answer: ...

    @classmethod
    def prepare(
        cls, splits: Mapping[str, Split], section: DataSection, seed: int
    ) -> tuple[Self, Mapping[str, Examples]]:
        """The task as the data makes it, and ``train``, ``validation`` and, where there is one, ``test``. Raises
        DataError that names the file, the row and the fix."""
        ...

    @classmethod
    def of_answer(cls, answer: Answer) -> Self:
        """The task of a model that is known to answer so."""
        ...

    @classmethod
    def of_split(cls, split: Split, section: DataSection) -> Self:
        """The task as one split alone makes it. Raises DataError."""
        ...

    @classmethod
    def of_model(cls, config: Any) -> Self | None:
        """The task that a stored model was trained for, going by its configuration; None where it is another."""
        ...

    def named_by(self, section: DataSection, model: str) -> Self:
        """The same, with its answers called what the data calls them. Raises ConfigError where ``model`` can't have
        answers of these names."""
        ...

    @classmethod
    def going_on(cls, section: DataSection, known: Mapping[str, Any], adapter: str) -> DataSection:
        """The section of training that goes on from an adapter, whose ``featherweight.json`` says ``known``. Raises
        ConfigError where the section asks for other answers, or nobody says what the adapter's are."""
        ...

    def read(self, split: Split, section: DataSection) -> Examples:
        """One split, for measuring a model that answers already. Raises DataError."""
        ...

    @classmethod
    def glance(cls, splits: Mapping[str, Split], section: DataSection) -> tuple[Self, Mapping[str, Examples]]:
        """Every row of every split as it is, for a look at what is wrong with them: nothing is left out."""
        ...

    def settled(self, section: DataSection) -> DataSection:
        """The section with what the data says of keys that it leaves open."""
        ...

    def questions(self, given: Sequence[Any]) -> list[Question]:
        """What a predictor is given, as the model is asked it. Raises DataError where one is nothing to ask."""
        ...

    def tokenise(self, asked: Sequence[Question], tokenizer: Any, cutting: Cutting) -> list[Tokens]:
        """Questions as the model sees them."""
        ...

    def encode(self, examples: Examples, tokenizer: Any, cutting: Cutting) -> Encoding:
        """One split as the engine sees it, tokenised once."""
        ...

    def head(self) -> HeadPlan:
        """The head that it needs."""
        ...

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Summed over the rows' items, in fp32; see :class:`featherweight.engine.Task`."""
        ...

    def objective(self, training: TrainingSection, train: Examples) -> Objective:
        """What training lowers: the loss, or what the recipe makes of it. Raises ConfigError where the recipe asks for
        what the task does not have."""
        ...

    def loading(self) -> Loading:
        """How stock libraries load and read it."""
        ...


class Writes(Task, Protocol):
    """A task whose models write text: one that ``scores_tokens``.

    Attributes:
        written: which of ``answers.written.QUALITY`` measure what is written, the headline first.
    """

    written: ClassVar[tuple[str, ...]]

    def to_write(self, examples: Examples) -> Iterator[tuple[Question, str]]:
        """What is to be answered of each row, and the answer that the row has."""
        ...

    def replies(self) -> Task:
        """The task of measuring how likely a reply to a prompt is, whatever is learned."""
        ...


class Compares(Writes, Protocol):
    """A task whose rows are answers that are compared (``Encoding.compares``)."""

    @property
    def refers(self) -> bool:
        """Whether training is held to how likely the untuned model makes each answer."""
        ...

    def reference(self, answers: Answers) -> NDArray[np.float32]:
        """The log-probability of each sequence, from a model's answers; shape (sequences,)."""
        ...


def task_of(facts: Mapping[str, Any]) -> Task:
    """The task that ``featherweight.json`` says. Raises KeyError where it does not say what is answered."""
    task: type[Task] = TASKS[facts.get("task", DEFAULT_TASK)]
    return task.of_answer(kind_of(facts).of_facts(facts))


def stored_task(config: Any) -> Task | None:
    """The task that a stored model was trained for; None where it has no head that any task knows."""
    found = (TASKS[name].of_model(config) for name in TASKS)
    return next((task for task in found if task is not None), None)
