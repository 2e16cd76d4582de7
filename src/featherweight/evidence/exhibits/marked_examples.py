"""Rows of which only one model has every tag right, and what the tuned model gets wrong, with the tags in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.answers.entities import OUTSIDE
from featherweight.answers.tags import TAGS
from featherweight.evidence.exhibits import Case
from featherweight.evidence.exhibits.examples import KEPT_EXAMPLES, cut
from featherweight.records import parts
from featherweight.records.answers import Answers
from featherweight.records.parts import Brief, Column, Part, shortened
from featherweight.records.rows import Ragged

_SHOWN = 3  # in the terminal
_IN_REPORT = 20
_CAPTIONS = {
    "fixed": "Rows that only the tuned model gets wholly right",
    "broken": "Rows that only the base model gets wholly right",
    "mistakes": "Rows that the tuned model gets wrong, the most wrong words first",
}


class MarkedExamples:
    title: ClassVar[str] = "Examples"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``examples``: ``fixed``, ``broken`` and ``mistakes``, each a row's text as it is tagged in ``truth``, by the
        ``base`` and by the ``tuned`` model: ``[words](type)``."""
        wrong = [_wrong(answers, case.truth) for answers in case.pair]
        before, after = wrong
        chosen = {
            "fixed": ((before > 0) & (after == 0), -before),
            "broken": ((before == 0) & (after > 0), -after),
            "mistakes": (after > 0, -after),
        }
        rows = np.arange(len(case.examples))
        picked = {
            name: rows[members][np.argsort(order[members], kind="stable")][:KEPT_EXAMPLES]
            for name, (members, order) in chosen.items()
        }
        return {"examples": {name: [_shown(case, int(row)) for row in found] for name, found in picked.items()}}

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        columns = ["row", "truth", "base", "tuned"]
        return [
            parts.table(
                _CAPTIONS[name],
                columns,
                [
                    parts.row(str(one["id"] + 1), *(one[key] for key in ("truth", "base", "tuned")))
                    for one in found[:_IN_REPORT]
                ],
                "wordy",
            )
            for name, found in metrics["examples"].items()
            if found
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        columns = [Column("truth", words=True), Column("base", 1, words=True), Column("tuned", words=True)]
        return [
            Brief(
                f"Examples {name} by tuning",
                columns,
                [[shortened(one[key]) for key in ("truth", "base", "tuned")] for one in found[:_SHOWN]],
            )
            for name in ("fixed", "broken")
            if (found := metrics["examples"][name])
        ]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return ""


def _wrong(answers: Answers, truth: Ragged) -> NDArray[np.int64]:
    """How many words of each row have another tag than the truth."""
    rows = np.repeat(np.arange(len(truth)), truth.lengths)
    return np.bincount(rows[answers[TAGS].values != truth.values], minlength=len(truth))


def _shown(case: Case, row: int) -> dict[str, Any]:
    names = case.kind.facts()["labels"]
    (question,) = case.examples.select(np.asarray([row])).questions()
    sides = {"truth": case.truth, "base": case.base[TAGS], "tuned": case.tuned[TAGS]}
    return {
        "id": int(case.examples.ids[row]),
        **{
            name: cut(marked(question.spelt(), [names[tag] if tag >= 0 else "?" for tag in tags.row(row)]))
            for name, tags in sides.items()
        },
    }


def marked(words: list[str], tags: list[str]) -> str:
    """Words with what they are: ``[New York](location) is large``.

    >>> marked(["New", "York", "is", "large"], ["B-location", "I-location", "O", "O"])
    '[New York](location) is large'
    """
    said: list[str] = []
    open_as = ""
    for word, tag in zip(words, tags, strict=True):
        if open_as and not (tag[:2] == "I-" and tag[2:] == open_as):
            said[-1] += f"]({open_as})"
            open_as = ""
        if open_as or tag == OUTSIDE:
            said.append(word)
        else:
            open_as = tag[2:] if tag[:2] in {"B-", "I-"} else tag
            said.append(f"[{word}")
    if open_as:
        said[-1] += f"]({open_as})"
    return " ".join(said)
