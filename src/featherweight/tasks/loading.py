"""How stock libraries load a tuned model and read it: what a model card has of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.tasks.heads import HeadPlan

FOLDER = "path/to/this/folder"
_MOST_NAMED = 20


@dataclass(frozen=True)
class Loading:
    """Lines of Python for a model card.

    Attributes:
        auto_class: of transformers.
        before: lines that come first.
        options: further arguments of ``from_pretrained`` for the base model, as they are written.
        after: lines that come last, with what the outputs mean.
    """

    auto_class: str
    before: Sequence[str] = ()
    options: str = ""
    after: Sequence[str] = ()


def with_names(head: HeadPlan, after: Sequence[str] = ()) -> Loading:
    """For a head whose outputs have names: in full, or read from beside the card where they are many."""
    names = list(head.names or ())
    if len(names) <= _MOST_NAMED:
        id2label = {index: label for index, label in enumerate(names)}  # noqa: C416 - reads as what it prints
        label2id = {label: index for index, label in enumerate(names)}
        before = [f"labels = dict(id2label={id2label!r}, label2id={label2id!r})"]
    else:
        before = [
            "import json",
            "from pathlib import Path",
            "",
            f'names = json.loads(Path("{FOLDER}/featherweight.json").read_text(encoding="utf-8"))["labels"]',
            "labels = dict(id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)})",  # noqa: E501
        ]
    return Loading(head.auto_class, before, "**labels", after)
