"""What the models write to the prompts, held against the replies that the rows have; where a recipe asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from featherweight.answers import figures, headline, interval
from featherweight.answers.text import TEXT, said
from featherweight.answers.written import MANNER, QUALITY, Written, measured
from featherweight.evidence.exhibits import MODELS, Case, Writing
from featherweight.evidence.exhibits.examples import KEPT_EXAMPLES, cut
from featherweight.evidence.two_models import by_every_statistic, by_headline
from featherweight.records import parts
from featherweight.records.answers import Answers
from featherweight.records.outcome import PairedTest
from featherweight.records.parts import Brief, Column, Part, shortened
from featherweight.statistics.additive import Additive, Floats

_KEY = "written"
_SHOWN = 3  # in the terminal
_TITLES = {"base": "base model", "tuned": "tuned model"}
RANDOM = "random-reply"
_RIVALS = {
    RANDOM: "random-reply is a reply of train, whichever: what is right by chance.",
    "nearest-prompt": "nearest-prompt gives the reply to train's most similar prompt (TF-IDF).",
    "lead": "lead gives a prompt's first sentences, as many as replies of train have.",
    "few-shot": "few-shot is the base model with examples of train in its prompt.",
}

All: TypeAlias = "Mapping[str, Answers]"


class WrittenAnswers:
    title: ClassVar[str] = "Generated answers"

    def find(self, case: Case) -> Mapping[str, Any]:
        """``written``: figures of each model and rival, the tuned model in pairs with the base (``comparison`` by the
        headline, ``paired`` by every statistic) and with each rival (``rungs``), and rows with what both models wrote;
        nothing where nothing was written."""
        if (writing := case.writing) is None:
            return {}
        kind = Written(writing.statistics)
        every = {name: measured(one, writing.truth, writing.pattern) for name, one in writing.answers.items()}
        asked = writing.truth, writing.examples.groups(case.group_column), case.seed
        pair = every["base"], every["tuned"]
        rungs = {
            name: by_headline(kind, (one, every["tuned"]), *asked) for name, one in every.items() if name not in MODELS
        }
        return {
            _KEY: {
                "rows": len(writing.examples),
                "models": {name: _figures(kind, one, writing, name) for name, one in every.items()},
                "truth_in_train": writing.in_train["truth"],
                "comparison": _confirmed(by_headline(kind, pair, *asked), rungs),
                "paired": by_every_statistic(kind, pair, *asked),
                "rungs": rungs,
                "examples": _examples(kind, writing, pair),
            }
        }

    def show(self, metrics: Mapping[str, Any]) -> list[Part]:
        if _KEY not in metrics:
            return []
        found = metrics[_KEY]
        titles = {name: one.title for name, one in QUALITY.items()}
        return [
            parts.text(_verdict(found)),
            parts.table(f"What is written to {found['rows']:,} prompts", *_table(found)),
            parts.paired("Base and tuned on the same prompts", MODELS, titles, found["paired"]),
            parts.text(
                f"{' '.join(_RIVALS[name] for name in found['rungs'] if name in _RIVALS)} In train: the text stands "
                f"there to the word, as do {found['truth_in_train']:.1%} of the replies that the rows have. Nothing is "
                "drawn where texts are written."
            ),
            parts.examples(
                "Up to 100 of each kind",
                ["prompt", "reply of the row", "base", "tuned"],
                [
                    (name, [[one[key] for key in ("text", "completion", "base", "tuned")] for one in rows])
                    for name, rows in found["examples"].items()
                    if rows
                ],
                texts=(0, 1, 2, 3),
            ),
        ]

    def brief(self, metrics: Mapping[str, Any]) -> list[Brief]:
        if _KEY not in metrics:
            return []
        found = metrics[_KEY]
        names, rows = _table(found)
        columns = [Column(names[0], words=True), *(Column(name, place) for place, name in enumerate(names[1:]))]
        shown = [[row["name"], *row["cells"]] for row in rows]
        examples = [
            [shortened(one[key], 60) for key in ("text", "completion", "base", "tuned")]
            for kind in ("fixed", "broken", "others")
            for one in found["examples"][kind][:_SHOWN]
        ][:_SHOWN]
        return [
            Brief(f"Generated answers to {found['rows']:,} prompts", columns, shown),
            Brief(
                "Some of them",
                [Column(name, place, words=True) for place, name in enumerate(("prompt", "reply", "base", "tuned"))],
                examples,
            ),
        ]

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        return _verdict(metrics[_KEY]) if _KEY in metrics else ""


def _confirmed(pair: PairedTest, rungs: Mapping[str, PairedTest]) -> dict[str, Any]:
    """The comparison with the base. ``better`` is ``withheld`` where what a reply of train, whichever, has right by
    chance is not beaten: a base that writes nothing of the kind is beaten by whoever learned how replies look."""
    if pair["verdict"] != "better" or rungs[RANDOM]["verdict"] == "better":
        return {**pair}
    return {
        **pair,
        "verdict": "no-difference",
        "withheld": "replies of train drawn at random are not shown to be worse",
    }


def _figures(kind: Written, answers: Answers, writing: Writing, name: str) -> dict[str, Any]:
    """One writer's, by the statistics' names."""
    manner = {f"eval_{one.name}": one.of(answers, writing.truth).of_all_rows for one in MANNER}
    if name not in (*MODELS, "few-shot"):
        manner = {}  # nothing was written token by token
    asked = kind, answers, writing.truth
    return {**figures(*asked), **interval(*asked), **manner, "eval_in_train": writing.in_train[name]}


def _table(found: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows: who wrote, and every figure."""
    statistics = [QUALITY[name] for name in found["paired"]]
    columns = ["who", *(one.title for one in (*statistics, *MANNER)), "in train", "tuned gains (p)"]
    against = found["rungs"] | {"base": found["comparison"]}
    rows = []
    for name, one in found["models"].items():
        cells = [f"{one[f'eval_{statistic.name}']:.4f}" for statistic in statistics]
        cells += [f"{one[key]:.3g}" if (key := f"eval_{of.name}") in one else "" for of in MANNER]
        beaten = against.get(name)
        gain = f"{beaten['difference']:+.4f} ({beaten['p_value']:.2g})" if beaten else ""
        mark = "mine" if name == "tuned" else ""
        rows.append(parts.row(_TITLES.get(name, name), *cells, f"{one['eval_in_train']:.1%}", gain, mark=mark))
    return columns, rows


def _verdict(found: Mapping[str, Any]) -> str:
    pair, name = found["comparison"], found["comparison"]["metric"]
    before, after = (found["models"][model][f"eval_{name}"] for model in MODELS)
    figures = f"{QUALITY[name].title} {before:.4f} before, {after:.4f} after, p = {pair['p_value']:.2g}"
    if "withheld" in pair:
        said = (
            f"What the tuned model writes is not shown to be better than replies of train drawn at random ({figures}, "
            f"{found['rows']:,} prompts)."
        )
    elif pair["verdict"] == "no-difference":
        said = f"No difference is shown between what the two models write ({figures}, {found['rows']:,} prompts)."
    else:
        said = f"What the tuned model writes is {pair['verdict']} ({figures}, {found['rows']:,} prompts)."
    ahead = [rival for rival, one in found["rungs"].items() if one["verdict"] == "worse"]
    return f"{said} {' and '.join(ahead)}, which is cheaper, is better." if ahead else said


def _examples(kind: Written, writing: Writing, pair: tuple[Answers, Answers]) -> dict[str, list[dict[str, Any]]]:
    """Rows that the tuned model answers better by the headline, those that the base does, those with the greatest
    difference first, and others."""
    one, other = (_of_each_row(headline(kind).of(side, writing.truth)) for side in pair)
    gains = other - one
    order = np.argsort(-np.abs(gains), kind="stable")
    chosen = {"fixed": gains > 0, "broken": gains < 0, "others": gains == 0}
    return {
        name: [_row(writing, pair, int(row)) for row in order[of[order]][:KEPT_EXAMPLES]] for name, of in chosen.items()
    }


def _of_each_row(statistic: Additive) -> Floats:
    """What it is of each row by itself."""
    return np.asarray(statistic.value(np.asarray(statistic.features.toarray(), dtype=np.float64)))


def _row(writing: Writing, pair: tuple[Answers, Answers], row: int) -> dict[str, Any]:
    base, tuned = (cut(said(side[TEXT], row)) for side in pair)
    return {
        "id": int(writing.examples.ids[row]),
        "text": cut(writing.examples.text(row)),
        "completion": cut(said(writing.truth, row)),
        "base": base,
        "tuned": tuned,
    }
