"""Small data for each task, by the task's name. A new task gets a line here, and with it every contract test."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Rows that a task can be tried on.

    Attributes:
        task: its name.
        kind: name of its answers, as these rows make them.
        rows: so many of them, all of which differ.
        text: the column that a predictor is asked about.
        data: further keys of the recipe's section.
        form: of the texts, where they are not one each, and short.
        model: that it is tried on, by what ``tiny`` calls it.
    """

    task: str
    kind: str
    rows: Callable[[int], list[Row]]
    text: str = "text"
    data: dict[str, Any] = field(default_factory=dict)
    form: str = ""
    model: str = "bert"

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.task, self.kind, self.form)))

    def asked(self, row: Row) -> Any:
        """What a predictor is asked of a row."""
        if self.form == "pairs":
            return {"text": row["premise"], "text_pair": row["hypothesis"]}
        if self.task == "seq2seq-lm":
            return {"prompt": row["source"], "completion": row["target"]}
        return row if self.task in {"causal-lm", "preference"} else row[self.text]

    def save(self, folder: Path, count: int) -> Path:
        return tiny.save_jsonl(folder / f"{self.name}.jsonl", self.rows(count))


def _distinct(count: int, make: Callable[[random.Random, int], tuple[list[str], Row]]) -> list[Row]:
    """Rows of 2 to 6 words, none of them twice."""
    draw, found, seen = random.Random(0), list[Row](), set[tuple[str, ...]]()
    while len(found) < count:
        words, row = make(draw, len(found))
        if tuple(words) not in seen:
            seen.add(tuple(words))
            found.append(row)
    return found


def _words(draw: random.Random, telling: str) -> list[str]:
    words = [*draw.choices(tiny.PLAIN, k=draw.randint(1, 4)), telling]
    draw.shuffle(words)
    return words


def _labelled(draw: random.Random, index: int) -> tuple[list[str], Row]:
    words = _words(draw, draw.choice(tiny.GOOD if index % 2 else tiny.BAD))
    return words, {"text": " ".join(words), "label": ("neg", "pos")[index % 2]}


def _paired(of: Callable[[random.Random, int], tuple[list[str], Row]]) -> Any:
    """The second text tells."""

    def make(draw: random.Random, index: int) -> tuple[list[str], Row]:
        words, row = of(draw, index)
        first = draw.choices(tiny.PLAIN, k=3)
        return [*first, *words], {"premise": " ".join(first), "hypothesis": row["text"], "label": row["label"]}

    return make


def _long(draw: random.Random, index: int) -> tuple[list[str], Row]:
    """Of 15 to 40 words, of which one tells."""
    words = [*draw.choices(tiny.PLAIN, k=draw.randint(14, 39)), draw.choice(tiny.GOOD if index % 2 else tiny.BAD)]
    draw.shuffle(words)
    return words, {"text": " ".join(words), "label": ("neg", "pos")[index % 2]}


def _several(draw: random.Random, index: int) -> tuple[list[str], Row]:
    told = [draw.choice(words) for bit, words in enumerate((tiny.GOOD, tiny.BAD)) if index >> bit & 1]
    words = [*draw.choices(tiny.PLAIN, k=draw.randint(2, 4)), *told]
    draw.shuffle(words)
    names = [name for name, known in (("neg", tiny.BAD), ("pos", tiny.GOOD)) if {*known} & {*told}]
    return words, {"text": " ".join(words), "labels": [*names, *(["both"] if len(names) == 2 else [])]}


def _numbered(draw: random.Random, index: int) -> tuple[list[str], Row]:
    strength = index % len(tiny.GOOD)
    words = _words(draw, tiny.GOOD[strength])
    return words, {"text": " ".join(words), "label": 10.0 + 2.5 * strength + draw.random()}


def _ranked(draw: random.Random, index: int) -> tuple[list[str], Row]:
    words = _words(draw, tiny.GOOD[index % 5])
    return words, {"text": " ".join(words), "label": index % 5 + 1}


def _tagged(names: Callable[[str], str]) -> Callable[[random.Random, int], tuple[list[str], Row]]:
    def make(draw: random.Random, index: int) -> tuple[list[str], Row]:
        words = [*_words(draw, draw.choice(tiny.GOOD if index % 2 else tiny.BAD)), draw.choice(tiny.PLAIN)]
        return words, {"tokens": words, "ner_tags": [names(word) for word in words]}

    return make


def _entity(word: str) -> str:
    return "B-GOOD" if word in tiny.GOOD else "B-BAD" if word in tiny.BAD else "O"


def _part_of_speech(word: str) -> str:
    return "ADJ" if word in tiny.GOOD + tiny.BAD else "NOUN"


def _completed(draw: random.Random, index: int) -> tuple[list[str], Row]:
    """The completion repeats the word of the prompt that tells."""
    telling = draw.choice(tiny.GOOD if index % 2 else tiny.BAD)
    words = _words(draw, telling)
    return words, {"prompt": " ".join(words), "completion": f" the {telling} {'film' if index % 2 else 'plot'}"}


def _replied(draw: random.Random, index: int) -> tuple[list[str], Row]:
    """The reply says which word tells, and whose it is."""
    words, row = _completed(draw, index)
    return words, {"source": row["prompt"], "target": row["completion"].strip()}


def _compared(draw: random.Random, index: int) -> tuple[list[str], Row]:
    """The better answer repeats the word of the prompt that tells; which one is the longer says nothing."""
    words, row = _completed(draw, index)
    other = draw.choice(tiny.BAD if index % 2 else tiny.GOOD)
    more = [" very", " the cast"] if draw.random() < 0.5 else [" the cast", " very"]
    said = (row["completion"], f" the {other} film")
    chosen, rejected = (text + end for text, end in zip(said, more, strict=True))
    return words, {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}


SAMPLES = [
    Sample("sequence-classification", "label", lambda count: _distinct(count, _labelled)),
    Sample("multi-label-classification", "labels", lambda count: _distinct(count, _several)),
    Sample("regression", "number", lambda count: _distinct(count, _numbered)),
    Sample("token-classification", "tags", lambda count: _distinct(count, _tagged(_entity)), "tokens"),
    Sample("token-classification", "plain-tags", lambda count: _distinct(count, _tagged(_part_of_speech)), "tokens"),
    Sample("sequence-classification", "label", lambda count: _distinct(count, _paired(_labelled)), form="pairs"),
    Sample("regression", "number", lambda count: _distinct(count, _paired(_numbered)), form="pairs"),
    Sample(
        "sequence-classification",
        "label",
        lambda count: _distinct(count, _long),
        data={"long_texts": "stride", "max_length": 12, "stride": 2},
        form="windows",
    ),
    Sample("causal-lm", "text", lambda count: _distinct(count, _completed), "prompt", model="llama-lm"),
    Sample("seq2seq-lm", "text", lambda count: _distinct(count, _replied), "source", model="t5-lm"),
    Sample("preference", "preference", lambda count: _distinct(count, _compared), "prompt", model="llama-lm"),
    Sample("ordinal-regression", "ordinal", lambda count: _distinct(count, _ranked)),  # that of tests/package
]
