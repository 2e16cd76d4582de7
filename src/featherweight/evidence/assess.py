"""All evidence about one run's tuned model, from predictions: what goes into ``metrics.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import figures, interval, statistics_of
from featherweight.evidence.baselines import compared_by
from featherweight.evidence.exhibits import Case, exhibits_of
from featherweight.evidence.exhibits.examples import cut
from featherweight.evidence.two_models import by_every_statistic, by_headline, by_statistics
from featherweight.records.answers import Answers
from featherweight.records.outcome import Figures, PairedTest, WithoutRows
from featherweight.records.questions import JOINT

_SHORT = 10, 80  # characters of a text that fits a line and says something
_TRIED = 1000


def assess(case: Case, baselines: Mapping[str, Answers], known: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """Compare by every statistic and with every cheap rival, and find what the kind's exhibits show.

    Args:
        baselines: each cheap rival's answers.
        known: which rows are known from train in some sense, shape (rows,), by the key that the figures on all others
            have.

    Returns:
        ``comparison``, ``paired``, ``rungs``, each key of ``known``, ``text_to_try``, and what the exhibits find.
    """
    asked = case.truth, case.groups, case.seed
    found: dict[str, Any] = {
        "comparison": by_headline(case.kind, case.pair, *asked),
        "paired": by_every_statistic(case.kind, case.pair, *asked),
        "rungs": {name: _against(case, name, rung) for name, rung in baselines.items()},
        **{key: _without(case, rows) for key, rows in known.items()},
        "text_to_try": text_to_try(case.examples.all_texts()),
    }
    for exhibit in exhibits_of(case.kind):
        for key, value in exhibit.find(case).items():
            found[key] = {**found.get(key, {}), **value}
    return found


def _against(case: Case, name: str, rung: Answers) -> PairedTest:
    """The tuned model against a rival by the headline, and by what else that rival is compared by."""
    asked = (rung, case.tuned), case.truth, case.groups, case.seed
    found = by_headline(case.kind, *asked)
    if more := [one for one in statistics_of(case.kind) if one.name in compared_by(name)]:
        found["paired"] = by_statistics(case.kind, more, *asked)
    return found


def text_to_try(texts: Iterable[str]) -> str:
    """A row for people to ask about: the first that is short and plain, else the beginning of the first of all."""
    first = ""
    for text in islice(texts, _TRIED):
        if _SHORT[0] <= len(text) <= _SHORT[1] and all(map(_is_plain, text.split(JOINT))):
            return text
        first = first or text
    parts = first.split(JOINT)
    return JOINT.join(cut(_plain(part), _SHORT[1] // len(parts)) for part in parts)


def _is_plain(text: str) -> bool:
    return text.isprintable() and text == text.strip().lstrip("-")


def _plain(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split()).lstrip("- ")


def _without(case: Case, known: NDArray[np.bool_]) -> WithoutRows:
    """The figures again on the rows that are not known from train."""
    clean = np.flatnonzero(~known)
    if len(clean) == 0:
        return {"rows": 0}
    truth, pair = case.truth[clean], (case.base.select(clean), case.tuned.select(clean))
    groups = [case.groups[int(row)] for row in clean] if case.groups is not None else None

    def measure(answers: Answers) -> Figures:
        return cast(Figures, {**figures(case.kind, answers, truth), **interval(case.kind, answers, truth)})

    return {
        "rows": len(clean),
        "base": measure(pair[0]),
        "tuned": measure(pair[1]),
        "comparison": by_headline(case.kind, pair, truth, groups, case.seed),
    }
