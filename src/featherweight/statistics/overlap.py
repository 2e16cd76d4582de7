"""How much of a reference stands in a text that was written: exact match, ROUGE, BLEU, chrF, as sums over rows.

Each measure is a few counts or numbers of a row, so that a corpus' figure is a function of their sums and has intervals
and paired tests as every other figure. Values are those of ``rouge-score`` and ``sacrebleu``, to the last digit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from featherweight.records.words import normal_form
from featherweight.statistics.additive import Floats

CHRF_ORDER, CHRF_BETA = 6, 2.0  # Popović, 2015
BLEU_ORDER = 4  # Papineni et al., 2002
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"\n")
# mteval's, as sacrebleu's "13a": symbols stand alone; a period, comma or dash does but where it belongs to a number.
_MTEVAL = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def matches(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each text is its reference, but for case, white space and punctuation; shape (rows,)."""
    both = zip(map(normal_form, texts), map(normal_form, references), strict=True)
    return np.asarray([one == other for one, other in both], dtype=bool)


def extracted(text: str, pattern: re.Pattern[str]) -> str | None:
    """The answer that a text ends with: the last thing that the pattern finds, its first group where it has one."""
    found = None
    for found in pattern.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return None if found is None else (found.group(1) if pattern.groups else found.group()) or ""


def answers_match(texts: Sequence[str], references: Sequence[str], pattern: re.Pattern[str]) -> NDArray[np.bool_]:
    """Whether the pattern finds the same answer in each text as in its reference, but for white space and the commas of
    numbers; shape (rows,). A text without an answer is wrong."""

    def answer(text: str) -> str | None:
        said = extracted(text, pattern)
        return None if said is None else " ".join(said.replace(",", "").split()).rstrip(".")

    both = ((answer(one), answer(other)) for one, other in zip(texts, references, strict=True))
    return np.asarray([one is not None and one == other for one, other in both], dtype=bool)


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, Floats]:
    """F1 of each row by ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin, 2004), from 0 to 1; shape (rows,) each.

    Words are runs of letters and digits without case, of any script; no stemmer. Lsum takes lines as sentences.
    """
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    found = [_rouge(one, other) for one, other in zip(texts, references, strict=True)]
    return dict(zip(names, np.asarray(found, dtype=np.float64).reshape(len(found), len(names)).T, strict=True))


def _rouge(text: str, reference: str) -> tuple[float, float, float, float]:
    said, wanted = _words(text), _words(reference)
    shared = [_shared(_grams(said, order), _grams(wanted, order)) for order in (1, 2)]
    one, two = (
        _f1(count, len(said) - order + 1, len(wanted) - order + 1) for order, count in enumerate(shared, start=1)
    )
    longest = _f1(len(_subsequence(wanted, said)), len(said), len(wanted))
    return one, two, longest, _by_sentences(text, reference)


def _by_sentences(text: str, reference: str) -> float:
    """ROUGE-Lsum: the union, over a text's sentences, of what each sentence of the reference shares with them."""
    said, wanted = ([_words(one) for one in _SENTENCE.split(whole) if one] for whole in (text, reference))
    left = [Counter(word for sentence in side for word in sentence) for side in (said, wanted)]
    hits = 0
    for sentence in wanted:
        for place in sorted({place for one in said for place in _subsequence(sentence, one)}):
            word = sentence[place]
            if all(side[word] > 0 for side in left):
                hits += 1
                for side in left:
                    side[word] -= 1
    return _f1(hits, sum(map(len, said)), sum(map(len, wanted)))


def _f1(shared: int, said: int, wanted: int) -> float:
    return 2 * shared / (said + wanted) if shared else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(units: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(units[start:] for start in range(order)), strict=False))


def _shared(one: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> int:
    return sum((one & other).values())


def _subsequence(wanted: Sequence[str], said: Sequence[str]) -> list[int]:
    """Places in ``wanted`` of a longest common subsequence, the one that a backward walk finds first."""
    if not wanted or not said:
        return []
    codes = {word: code for code, word in enumerate(dict.fromkeys([*wanted, *said]))}
    across = np.asarray([codes[word] for word in said])
    table = np.zeros((len(wanted) + 1, len(said) + 1), dtype=np.int32)
    for row, word in enumerate(wanted, start=1):
        before = table[row - 1]
        table[row, 1:] = np.maximum.accumulate(np.maximum(before[1:], before[:-1] + (across == codes[word])))
    places: list[int] = []
    row, column = len(wanted), len(said)
    while row and column:
        if wanted[row - 1] == said[column - 1]:
            row, column = row - 1, column - 1
            places.append(row)
        elif table[row, column - 1] > table[row - 1, column]:
            column -= 1
        else:
            row -= 1
    return places[::-1]


def chrf_counts(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """Character n-grams of each row, of orders 1 to 6 without white space: of the text, of the reference, shared; shape
    (rows, 18). Where a reference is too short for an order, the text's are not counted either, as sacrebleu has it."""
    found = _counts(texts, references, lambda text: "".join(text.split()), CHRF_ORDER)
    found[:, ::3] *= found[:, 1::3] > 0
    return found


def chrf(sums: Floats) -> Floats:
    """chrF2 from 0 to 100, from sums of :func:`chrf_counts`, shape (..., 18)."""
    said, wanted, shared = (sums[..., start::3] for start in range(3))
    counts = (said > 0) & (wanted > 0)
    orders = np.maximum(counts.sum(axis=-1), 1)
    precision, recall = (
        np.where(counts, shared / np.maximum(side, 1), 0).sum(axis=-1) / orders for side in (said, wanted)
    )
    below = CHRF_BETA**2 * precision + recall
    return np.asarray(100 * (1 + CHRF_BETA**2) * precision * recall / np.where(below > 0, below, 1))


def bleu_counts(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """Words of each row by mteval's tokenisation ("13a") in n-grams of orders 1 to 4: of the text, of the reference,
    shared; shape (rows, 12). Words themselves are the first order's."""
    return _counts(texts, references, _mteval, BLEU_ORDER)


def bleu(sums: Floats) -> Floats:
    """BLEU from 0 to 100, from sums of :func:`bleu_counts`, shape (..., 12), with sacrebleu's exponential smoothing: an
    order of which nothing is shared counts as half as much as the one before that had nothing."""
    said, wanted, shared = (sums[..., start::3] for start in range(3))
    missing = (shared == 0) & (said > 0)
    halves = np.where(missing, 0.5 ** np.cumsum(missing, axis=-1), shared)
    precision = halves / np.maximum(said, 1)
    possible = said > 0
    logs = np.where(possible, np.log(np.where(possible, np.maximum(precision, 1e-300), 1)), 0).sum(axis=-1)
    whole = possible.all(axis=-1) & (shared[..., 0] > 0)
    short = np.minimum(1 - wanted[..., 0] / np.maximum(said[..., 0], 1), 0)
    return np.where(whole, 100 * np.exp(logs / BLEU_ORDER + short), 0.0)


def _mteval(text: str) -> list[str]:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, spaced in _MTEVAL:
        text = pattern.sub(spaced, text)
    return text.split()


def _counts(
    texts: Sequence[str], references: Sequence[str], units: Callable[[str], Sequence[str]], orders: int
) -> Floats:
    found = np.zeros((len(texts), 3 * orders))
    for row, (text, reference) in enumerate(zip(texts, references, strict=True)):
        said, wanted = units(text), units(reference)
        for order in range(1, orders + 1):
            one, other = _grams(said, order), _grams(wanted, order)
            sizes = (max(len(side) - order + 1, 0) for side in (said, wanted))
            found[row, 3 * order - 3 : 3 * order] = [*sizes, _shared(one, other)]
    return found


def repeated(texts: Sequence[str], order: int = 4) -> Floats:
    """Which share of each text's word n-grams stood in it before; shape (rows,). Of text that goes round in circles it
    is near 1."""
    found = []
    for text in texts:
        grams = _grams(_words(text), order)
        total = sum(grams.values())
        found.append((total - len(grams)) / total if total else 0.0)
    return np.asarray(found, dtype=np.float64)
