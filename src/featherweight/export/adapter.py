"""The adapter as PEFT has it, with its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from featherweight.errors import ConfigError
from featherweight.export import Subject
from featherweight.methods.peft.adapters import CONFIG


class Adapter:
    """A copy of the run's adapter; it needs its base model beside it."""

    is_exact: ClassVar[bool] = True

    def require(self, artefact: Path) -> None:
        if not (artefact / CONFIG).is_file():
            raise ConfigError("--format adapter: this run tuned the whole model; export merged instead")

    def write(self, subject: Subject, folder: Path) -> None:
        shutil.copytree(subject.artefact, folder, dirs_exist_ok=True)
