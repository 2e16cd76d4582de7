"""A tuned model in a form that others run. A format is one file here and one line in the ``EXPORTS`` table, and has
this shape. Formats write; whether what they wrote answers as the run does is for ``workflow.exporting`` to prove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
        model: as PEFT or transformers has it, in fp32 and evaluation mode; a format may change it in place.
        tokenizer: transformers' own, with a pad token.
        artefact: the run's own folder with the adapter or the model.
        facts: content of its ``featherweight.json``.
    """

    model: Any
    tokenizer: Any
    artefact: Path
    facts: dict[str, Any]


class Format(Protocol):
    """How one kind of export is written.

    Attributes:
        is_exact: whether it computes the same in fp32, and therefore has to give the same answers.
    """

    is_exact: ClassVar[bool]

    def require(self, artefact: Path) -> None:
        """Asked before anything is loaded. Raises ConfigError, with what to do, where a package is missing or what lies
        in ``artefact`` can't be had in this format."""
        ...

    def write(self, subject: Subject, folder: Path) -> None:
        """Fill ``folder``, which is empty. Raises ConfigError where the model can't be had in this format after all."""
        ...
