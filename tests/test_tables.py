"""Tables on narrow terminals: no value is broken over lines, nothing is cut without a mark, little columns leave first."""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.cells import cell_len
from rich.console import Console

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.evidence import learning_curve as curves
from featherweight.evidence.data.label_issues import SuspectedLabelErrors
from featherweight.evidence.data.preferences import Preferences
from featherweight.evidence.exhibits.each_label import EachLabel
from featherweight.evidence.exhibits.examples import Examples
from featherweight.evidence.exhibits.preference_examples import PreferenceExamples
from featherweight.evidence.exhibits.where import Where
from featherweight.records.parts import Column
from featherweight.report import tables
from featherweight.report.fitted import FittedTable

WIDTHS = (60, 80, 100, 120)
LABELS = [
    "account, identity or anything else that no other queue takes",
    "a_label_of_one_word_that_is_much_longer_than_the_column_it_stands_in",
    "本人確認とその他のお問い合わせ",
    "ok",
    "no",
]
TEXT = (
    "i tried to make a transfer and https://example.org/a/very/long/address/that/nobody/can/break/anywhere failed " * 3
)
RUN = "runs/an-experiment-with-a-long-name/seed-{}"
LARGE = 1_234_567_890
KIND = Label(LABELS)
FIRST = Label.statistics[0]


def rung(accuracy: float) -> dict[str, Any]:
    figures = {f"eval_{one}": -0.12345 for one in ("macro_f1", "balanced_accuracy", "matthews_correlation")}
    return {
        **figures, "eval_accuracy": accuracy, "eval_accuracy_interval": [0.1234, 0.9876],
        "cost": {"seconds": 3599.0, "memory_growth_bytes": 12_345_678_901},
    }  # fmt: skip


def pair(index: int) -> dict[str, Any]:
    return {
        "run": RUN.format(index), "against": RUN.format(0), "difference": -0.12345, "confidence_interval": [-0.2, 0.1],
        "fixed": LARGE, "broken": LARGE, "p_value": 1.15e-29, "p_value_holm": 1.15e-29, "verdict": "no-difference",
        "margin": 0.001, "not_inferior": False,
    }  # fmt: skip


def curve() -> dict[str, Any]:
    sizes = [round(LARGE * fraction) for fraction in curves.FRACTIONS]
    found = curves.summarise({size: [0.7 + 0.01 * index, 0.71, 0.72] for index, size in enumerate(sizes)}, 0)
    return {"evaluated_split": "validation", "method": "linear-probe", **found}


def planned() -> dict[str, Any]:
    return {
        "rows": {"train": LARGE, "validation": LARGE}, "trainable_parameters": LARGE, "total_parameters": 10 * LARGE,
        "execution": {"batches": "packed", "reason": "packed and padded logits agree on this model"}, "steps": LARGE,
        "tokens": LARGE, "padding_avoided": 0.4, "peak_memory_bytes": 12 * LARGE, "disk_bytes": LARGE,
        "seconds": dict.fromkeys(("preparing", "training", "evaluations", "total", "doubt"), 0.5),
    }  # fmt: skip


def swept() -> dict[str, Any]:
    """What a sweep found, with long values, a key that means something with one method alone, and every state."""
    asked: dict[str, Any] = {
        "training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "method.name": ["lora", "ia3"],
        "method.r": [4, 64], "method.target_modules": ["all-linear", ["query", "value"]],
    }  # fmt: skip
    states = ["complete", "complete", "pruned", "failed", "stopped", *["complete"] * 6]
    trials = []
    for number, state in enumerate(states):
        lora = {"method.name": "lora", "method.r": 4 ** (1 + number % 3)} if number % 2 else {"method.name": "ia3"}
        trials.append({
            "number": number, "state": state, "value": 0.5 + 0.01 * number if state == "complete" else None,
            "reason": None if state == "complete" else f"training diverged: {LABELS[1]}", "seconds": 3599.0,
            "settings": {
                "training.learning_rate": 10 ** (-number / 2 - 1), **lora, "method.target_modules": ["query", "value"],
            },
            "evaluations": [] if state == "failed" else [{"epoch": 1.0, "step": 9, "value": 0.4 + 0.01 * number}],
        })  # fmt: skip
    figures = {"base": 0.5, "tuned": 0.6, **pair(1)}
    return {
        "recipe": "demo", "answer": "label", "compared_by": "eval_accuracy", "less_is_better": False,
        "parameters": asked, "trials": trials, "evaluated_split": "test", "held_out": 0.2, "default": "default",
        "winner": {"trial": 10, "settings": trials[10]["settings"], "run": "winner", "headline": "It is better."},
        "budget": {"trials": 11, "time_limit": None, "seconds": LARGE, "ended_by": "trials"},
        "selection": {
            "split": "validation", "rows": LARGE, "candidates": 11, "optimism_at_most": 0.01, "chosen_on": 0.6,
            "untouched": 0.59,
        },
        "comparison": {
            **pair(1), "metric": "accuracy", "n": LARGE, "smallest_significant_difference": 0.01,
            "paired": {"accuracy": figures, "macro_f1": figures},
        },
        "importance": {"method": "fANOVA", "trials": 8, "shares": dict.fromkeys(asked, 0.25)},
        "headline": "No difference is shown.",
    }  # fmt: skip


def made() -> Iterator[FittedTable]:
    """Every table of the terminal, with long names and large numbers."""
    shares = {split: dict.fromkeys(LABELS, 0.123456) for split in ("train", "validation", "test")}
    evaluation = dict.fromkeys(("eval_loss", "eval_accuracy", *tables._TIMES), 123456.789)
    example = {"row": LARGE, "text": TEXT, "label": LABELS[0], "suggested": LABELS[1], "base": 0.1, "tuned": 0.9}
    names = ["majority", "tfidf-logistic-regression", "linear-probe"]
    yield tables.described(KIND.described, shares, dict.fromkeys(shares, range(LARGE)))
    yield tables.epochs([{"epoch": 0.5, "training_loss": 12.3456, "eval_loss": 1.2, "eval_accuracy": 0.5}], FIRST)
    yield tables.evaluations(
        {"/a/long/path/of/a/model/that/somebody/has": evaluation, "tuned model": evaluation}, FIRST
    )
    yield tables.ladder({
        "evaluated_split": "validation", "baselines": dict.fromkeys(names, rung(0.5)), "base": rung(0.4),
        "tuned": rung(0.6), "resources": {"tuning": rung(0.6)["cost"]},
    })  # fmt: skip
    extra = ("eval_macro_f1", "eval_balanced_accuracy", "eval_matthews_correlation")
    figures = evaluation | dict.fromkeys(extra, -0.12345) | {"eval_accuracy_interval": [0.1234, 0.9876]}
    yield tables.measured("/a/long/path/of/a/model/that/somebody/has", figures, KIND)
    by_label = {name: {"precision": 0.1, "recall": 0.2, "f1": 0.3, "support": LARGE} for name in LABELS}
    yield from map(FittedTable.of, KIND.briefs({"labels": by_label}))
    many = [
        {"by": "label", "value": f"{LABELS[one % 5]}{one}", "rows": LARGE, "base": 0.1, "tuned": 0.2}
        for one in range(99)
    ]
    yield from map(FittedTable.of, Where().brief({"where": {"slices": many}}))
    yield tables.learning_curve(curve())
    yield tables.trials(swept())
    yield tables.importance(swept())
    facts = {"trains": TEXT, "merges": True, "packs": False, "refuses": TEXT}
    yield tables.methods({"a-method-of-somebody": facts, "lora": facts | {"refuses": None}})
    yield from map(FittedTable.of, SuspectedLabelErrors().brief({"suspected_label_errors": {"examples": [example]}}))
    yield from map(FittedTable.of, Examples().brief({"examples": {"fixed": [example], "broken": [example]}}))
    compared = example | {"chosen": TEXT, "rejected": TEXT}
    yield from map(FittedTable.of, PreferenceExamples().brief({"examples": {"fixed": [compared], "broken": []}}))
    lengths = {"pairs": LARGE, "mean": [123.4, 1e6], "longer": 0.1234, "shorter": 0.5}
    yield from map(FittedTable.of, Preferences().brief({"preferences": {"lengths": {"validation": lengths}}}))
    figures = {f"eval_{one}": 0.98765 for one in ("accuracy", "macro_f1", "matthews_correlation")}
    yield tables.runs([{"run": RUN.format(one), **figures, "trainable_parameters": LARGE} for one in range(3)], KIND)
    yield tables.comparisons([pair(one) for one in range(1, 3)])
    shown = {f"eval_{one.name}": 0.98765 for one in KIND.statistics if one.in_evaluations}
    seeds = [{"seed": LARGE + one, "base": 0.12345, "verdict": "no-difference", **shown} for one in range(2)]
    yield tables.over_seeds({
        "answer": "label", "evaluated_split": "validation", "runs": seeds, "mean": shown, "standard_deviation": shown,
        "pooled": {"base": 0.12345, "verdict": "no-difference"},
    })  # fmt: skip
    yield from map(FittedTable.of, EachLabel().brief({"labels": {"base": by_label, "tuned": by_label}}))
    yield tables.plan(planned())
    yield tables.key_values("Facts", {
        "labels": LABELS, "peak_memory_bytes": LARGE, "parameters": LARGE, "revision": None, "temperature": 1.23456789,
        "dtypes": {"F32": LARGE, "I64": 512}, "files": "adapter_config.json: sound\npredictions/tuned.parquet: sound",
    })  # fmt: skip


def drawn(table: FittedTable, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, markup=False, emoji=False).print(table)
    return stream.getvalue().splitlines()


def faults(lines: list[str], table: FittedTable, width: int) -> list[str]:
    """Values that don't stand on one line, and words that are broken or cut without a mark."""
    found = [f"wider than {width}: {line}" for line in lines if cell_len(line.rstrip()) > width]
    said = " ".join(lines)
    for index in table.fit(width):
        column = table.columns[index]
        heads = column.name.split() if table.head else []
        cells = [row[index] for row in table.rows]
        for piece in [*heads, *(word for cell in cells for word in (cell.split() if column.words else [cell]))]:
            whole = re.search(rf"(?<!\S){re.escape(piece)}(?!\S)", said) if piece else True
            if not (whole or any(is_cut_of(word, piece) for line in lines for word in line.split())):
                found.append(f"{column.name}: {piece!r}")
            if whole and piece and not any(piece in line for line in lines):
                found.append(f"{column.name}: {piece!r} goes over two lines")
    return found


def is_cut_of(word: str, piece: str) -> bool:
    start, mark, end = word.partition("…")
    return bool(mark) and piece.startswith(start) and piece.endswith(end) and len(start) + len(end) < len(piece)


@pytest.mark.parametrize("width", WIDTHS)
def test_row_93_no_table_breaks_a_word_or_a_number(width: int) -> None:
    for table in made():
        assert faults(drawn(table, width), table, width) == [], table.title


def test_row_93_every_table_is_among_those_that_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[str] = set()
    makers = {
        name: function
        for name, function in inspect.getmembers(tables, inspect.isfunction)
        if "FittedTable" in str(function.__annotations__.get("return"))
    }
    for name, function in makers.items():

        def noted(*given: Any, name: str = name, function: Any = function) -> Any:
            tried.add(name)
            return function(*given)

        monkeypatch.setattr(tables, name, noted)
    list(made())
    assert tried == set(makers)


def test_row_93_a_table_of_before_is_found_faulty() -> None:
    """Negative control: what rich makes of too many columns by itself."""
    from rich.table import Table

    ours = next(one for one in made() if one.title.startswith("Paired comparison"))
    theirs = Table(title=ours.title)
    for column in ours.columns:
        theirs.add_column(column.name, overflow="fold")
    for row in ours.rows:
        theirs.add_row(*row)
    stream = io.StringIO()
    Console(file=stream, width=80).print(theirs)
    everything = FittedTable(ours.title, [Column(one.name, words=one.words) for one in ours.columns])
    everything.rows = ours.rows
    assert faults([line.replace("┃", " ").replace("│", " ") for line in stream.getvalue().splitlines()], everything, 80)


def test_row_93_columns_leave_in_the_order_that_is_declared() -> None:
    for table in made():
        shown = [set(table.fit(width)) for width in range(200, 20, -1)]
        order = [table.columns[one].leaves for one in range(len(table.columns))]
        assert all(narrow <= wide for wide, narrow in pairwise(shown)), table.title
        for kept in shown:
            gone = set(range(len(order))) - kept
            assert all(order[one] >= max((order[other] for other in kept), default=0) for one in gone), table.title
        assert shown[0] == set(range(len(order))), "all of them fit 200 columns"
        text = " ".join(drawn(table, 80))
        for index in set(range(len(order))) - set(table.fit(80)):
            assert table.columns[index].name in text.partition("(no room for:")[2], "what is left out is named"


def test_row_93_what_users_write_moves_no_cursor() -> None:
    hostile = {"text": "a\x1b[2Jb\u202ec", "label": "x\x07", "base": 0.1, "tuned": 0.9}
    table = FittedTable.of(Examples().brief({"examples": {"fixed": [hostile], "broken": []}})[0])
    text = "\n".join(drawn(table, 80))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\\x1b[2Jb" in text


@pytest.fixture(scope="module")
def finished(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five labels with long names."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [{**row, "label": LABELS[index % 5]} for index, row in enumerate(tiny.rows(150))]
    content = tiny.recipe(models("bert"), tiny.save_jsonl(folder / "t.jsonl", rows), training={"num_train_epochs": 1})
    workflow.run(recipes.parse(content), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("width", [60, 80])
def test_row_93_the_commands_keep_to_the_width(width: int, finished: Path, cli: Any) -> None:
    """Numbers whole, every line within the width but for commands and paths, which are copied; no Python in it."""
    for asked in (
        ["inspect", "run", "run"], ["inspect", "adapter", "run/adapter"], ["inspect", "data", "t.jsonl"],
        ["compare", "run", "run"], ["doctor"],
    ):  # fmt: skip
        ended = cli(*asked, cwd=finished.parent, env={**os.environ, "COLUMNS": str(width)})
        assert ended.returncode == 0, ended.stderr
        for line in ended.stdout.splitlines():
            assert cell_len(line.rstrip()) <= width or " " not in line.strip(), (asked, line)
            assert not re.search(r"\d\.\d{5,}|[\[{]['\"\d]|None|True|False", line), (asked, line)
    shown = cli("inspect", "data", "t.jsonl", cwd=finished.parent, env={**os.environ, "COLUMNS": "80"}).stdout
    assert re.search(r"ok +20\.00%", shown)
    assert "95th percentile" in " ".join(shown.split())


def test_row_93_columns_are_respected_without_a_terminal(finished: Path, cli: Any) -> None:
    shown = {}
    for columns in (None, "70", "200"):
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        environment |= {"COLUMNS": columns} if columns else {}
        shown[columns] = cli("compare", "run", "run", cwd=finished.parent, env=environment).stdout
    assert "no room for" in shown["70"]
    assert "no room for" not in shown["200"]
    assert "no room for" not in shown[None], "a file is 120 wide"
