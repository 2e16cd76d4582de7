"""Words, or words and word pairs, weighted by TF-IDF: what cheap rivals read of a text, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

WORDS = r"(?u)\b\w\w+\b"
LONGEST_TEXT = 10_000  # characters of a text that are read: more than most models see of it
_MOST_NAMED_CHARACTERS = 3_000_000  # the words of longer collections are told apart by their hash
_BUCKETS = 2**18
_BLOCK_ROWS = 1_000


class Words:
    """Texts as sparse rows of weights.

    Args:
        pattern: what a word is.
        pairs: whether word pairs count too.
    """

    def __init__(self, pattern: str = WORDS, pairs: bool = True) -> None:
        self._most_named = _MOST_NAMED_CHARACTERS * (1 if pairs else 10)  # there are fewer words than pairs of them
        self._counting = {"token_pattern": pattern, "ngram_range": (1, 2 if pairs else 1), "dtype": np.float64}

    def fit(self, texts: Sequence[str], most: int) -> Any:
        """Learn the words of texts, so many of the commonest, and give the texts' rows. Raises ValueError where no text
        has a word."""
        from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer

        read = [text[:LONGEST_TEXT] for text in texts]
        if sum(map(len, read)) <= self._most_named:
            self._vectorizer = CountVectorizer(**self._counting)
        else:
            self._vectorizer = HashingVectorizer(**self._counting, n_features=_BUCKETS, norm=None, alternate_sign=False)
        counts = self._vectorizer.fit_transform(read)
        self._kept = _commonest(counts, most)
        self._weighting = TfidfTransformer(sublinear_tf=True)
        return self._weighting.fit_transform(counts[:, self._kept])

    def of(self, texts: Iterable[str]) -> Iterator[Any]:
        """Rows of other texts, a block at a time."""
        iterator = iter(texts)
        while block := [text[:LONGEST_TEXT] for text in islice(iterator, _BLOCK_ROWS)]:
            yield self._weighting.transform(self._vectorizer.transform(block)[:, self._kept])


def _commonest(counts: Any, most: int) -> Any:
    """The columns that most rows have, ascending; all of them where they are few enough."""
    if counts.shape[1] <= most:
        return slice(None)
    return np.sort(np.argsort(-counts.getnnz(axis=0), kind="stable")[:most])
