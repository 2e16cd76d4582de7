"""Rivals that foretell the tokens of a completion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from statistics import median

import numpy as np
from numpy.typing import NDArray

from featherweight.answers import Answer
from featherweight.answers.text import WIDTH, Text
from featherweight.evidence.baselines import Part
from featherweight.evidence.words import Words
from featherweight.records.answers import Answers
from featherweight.records.rows import DIALOGUE, Examples, Ragged

_MOST_ROWS = 50_000  # of train in which the nearest prompt is looked for
_MOST_WORDS = 50_000
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")  # what is between two


class Unigram:
    """Expects each token as often as train's completions have it, wherever it stands (Laplace's rule of succession).

    Tokens that train lacks share the room of one, so that the rival is rather flattered than slighted.
    """

    def fit(self, train: Part, kind: Answer) -> None:
        self.kind = kind
        self.known, counts = np.unique(_targets(train).values, return_counts=True)
        self.log_probabilities = np.log(np.append(counts + 1, 1) / (counts.sum() + len(counts) + 1))
        self.commonest = int(self.known[counts.argmax()]) if len(counts) else -1

    def predict(self, part: Part) -> Answers:
        targets = _targets(part)
        values = np.empty((len(targets.values), WIDTH), dtype=np.float32)
        values[:, 0] = self.log_probabilities[self._places(targets.values)]
        values[:, 1] = targets.values == self.commonest
        return self.kind.of_outputs(Ragged(values, targets.offsets), {})

    def _places(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        places = np.searchsorted(self.known, ids)
        is_known = np.append(self.known, -1)[places] == ids
        return np.where(is_known, places, len(self.known))


class FewShot:
    """The untuned model with examples of train in its prompt: what can be had without any training."""

    @staticmethod
    def applies(train: Examples, kind: Answer) -> bool:
        """Where a prompt is a text that goes on; what is read by an encoder holds one text."""
        return DIALOGUE in train.texts.column_names and isinstance(kind, Text) and kind.replying is None

    def fit(self, train: Part, kind: Answer) -> None:
        """Nothing is: the examples are drawn where the prompts are made."""

    def predict(self, part: Part) -> Answers:
        assert part.with_examples is not None
        return part.with_examples()


def nearest(train: Iterable[tuple[str, str]], prompts: Sequence[str]) -> list[str]:
    """For each prompt the reply to the prompt of train that is most like it, by the cosine of TF-IDF over words.

    Args:
        train: prompts and replies; at most :data:`_MOST_ROWS` of them are looked at.
    """
    known, replies = zip(*islice(train, _MOST_ROWS), strict=True)
    words = Words(pairs=False)
    try:
        rows = words.fit(known, _MOST_WORDS)
    except ValueError:  # not a word in any of them
        return [replies[0]] * len(prompts)
    found: list[str] = []
    for block in words.of(prompts):
        for asked in block:
            found.append(replies[int((rows @ asked.reshape(1, -1).T).toarray().argmax())])
    return found


def drawn(train: Iterable[str], prompts: int, seed: int) -> list[str]:
    """For each prompt a reply of train, whichever: what is right by chance, for whoever knows how replies look.

    Args:
        train: replies; at most :data:`_MOST_ROWS` of them are looked at.
    """
    replies = list(islice(train, _MOST_ROWS))
    return [replies[place] for place in np.random.default_rng(seed).integers(len(replies), size=prompts)]


def lead(train: Iterable[str], texts: Sequence[str]) -> list[str]:
    """Of each text its first sentences, as many as replies of train have: what copying gives, and of short texts all.

    Args:
        train: replies; at most :data:`_MOST_ROWS` of them are looked at.
    """
    count = max(round(median(len(_sentences(reply)) for reply in islice(train, _MOST_ROWS))), 1)
    return [" ".join(_sentences(text)[:count]) for text in texts]


def _sentences(text: str) -> list[str]:
    return [one for one in (part.strip() for part in _SENTENCE.split(text)) if one]


def _targets(part: Part) -> Ragged:
    assert isinstance(part.targets, Ragged)
    return part.targets
