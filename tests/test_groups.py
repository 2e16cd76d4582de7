"""Rows of one group, such as a document's sentences, are never on both sides of a split."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.errors import DataError
from featherweight.evidence import learning_curve
from featherweight.evidence.fitting import halves
from featherweight.records.grouping import group_names, units_of
from featherweight.records.rows import Examples, Rows
from featherweight.sources import data
from featherweight.tasks.columns import LabelColumns
from featherweight.tasks.reading.splits import carve, sample
from featherweight.tasks.sequence_classification import SequenceClassification

Models = Callable[[str], Path]


def examples(labels: list[int], groups: list[Any]) -> Examples:
    texts = datasets.Dataset.from_dict({"text": [f"word {row}" for row in range(len(labels))], "document": groups})
    rows = Rows.of(texts, {"text": "text", "document": "column:document"})
    count = len(labels)
    return Examples("train", rows, "text", np.asarray(labels), np.arange(count), 0, "train.csv", "f")


def documents(rows: int, size: int, seed: int = 0) -> list[dict[str, Any]]:
    made = [{**row, "document": f"doc{index // size}"} for index, row in enumerate(tiny.rows(rows, seed))]
    random.Random(seed).shuffle(made)
    return made


def of_group(split: Examples) -> set[str]:
    return {group for group in split.groups("document") if group is not None}


def test_row_72_without_groups_the_same_rows_are_carved_and_sampled_as_ever(tmp_path: Path) -> None:
    labels = ["abc"[(row * row) % 7 % 3] for row in range(300)]
    path = tiny.save_jsonl(
        tmp_path / "t.jsonl", [{"text": f"word {row}", "label": one} for row, one in enumerate(labels)]
    )
    keys = {"validation_fraction": 0.1, "test_fraction": 0.2, "max_train_samples": 150, "max_eval_samples": 20}
    section = LabelColumns(train_file=str(path), **keys)
    _, found = SequenceClassification.prepare(data.load(section), section, seed=3)
    digests = {name: hashlib.sha256(one.ids.astype("<i8").tobytes()).hexdigest()[:16] for name, one in found.items()}
    assert digests == {"train": "8f42697762e5d0db", "validation": "e25fdd1ae96ef572", "test": "1ff9c2da0259bee8"}


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 12), min_size=8, max_size=60), st.integers(0, 60), st.integers(2, 4), st.integers(0, 999),
    st.sampled_from([0.1, 0.25, 0.5]),
)  # fmt: skip
def test_row_72_whole_groups_are_carved(sizes: list[int], alone: int, classes: int, seed: int, fraction: float) -> None:
    draw = random.Random(seed)
    groups: list[Any] = [f"doc{index}" for index, size in enumerate(sizes) for _ in range(size)] + [None, " "] * alone
    labels = [draw.randrange(classes) for _ in groups]
    train = examples(labels, groups)
    names = [f"class {one}" for one in range(classes)]
    try:
        found = carve(train, "validation", fraction, seed, Label(names), "document")
    except DataError as error:
        assert "\n" not in str(error)
        return
    rest, held_out = found["train"], found["validation"]
    assert sorted([*rest.ids, *held_out.ids]) == list(range(len(labels)))
    assert not of_group(rest) & of_group(held_out)
    assert set(rest.truth) == set(held_out.truth) == set(labels)
    wanted = sum(max(round(fraction * labels.count(one)), 1) for one in set(labels))
    assert wanted / 2 <= len(held_out) <= wanted * 2
    again = carve(train, "validation", fraction, seed, Label(names), "document")
    assert again["validation"].ids.tolist() == held_out.ids.tolist()


def test_row_72_shares_are_near_and_the_seed_chooses() -> None:
    rows = documents(2000, 10)
    train = examples([int(row["label"] == "pos") for row in rows], [row["document"] for row in rows])
    found = [carve(train, "validation", 0.1, seed, Label("ab"), "document")["validation"] for seed in range(5)]
    for one in found:
        assert len(one) == 200
        assert abs(one.truth.mean() - 0.5) < 0.06
    assert len({tuple(sorted(of_group(one))) for one in found}) == 5
    mixed = examples(
        [int(row["label"] == "pos") for row in rows], [r["document"] if i % 2 else "" for i, r in enumerate(rows)]
    )
    held_out = carve(mixed, "validation", 0.1, 0, Label("ab"), "document")["validation"]
    lone = sum(group is None for group in held_out.groups("document"))
    assert len(held_out) == 200
    assert 80 <= lone <= 120, "rows without a group are held out in proportion"


@pytest.mark.parametrize(
    ("labels", "groups", "named"),
    [
        ([0, 1] * 50, ["a"] * 98 + ["b", "c"], "the group 'a' holds 98 of the 100 rows"),
        ([0] * 60 + [1] * 20, [f"d{row // 3}" for row in range(60)] + ["e"] * 20, "'e' holds 20 of the 20 rows of the class 'y'"),
        ([0] * 60 + [1] * 40, [f"d{row // 3}" for row in range(60)] + ["e"] * 39 + ["f"], "'e' holds 39 of the 40 rows of the class"),
        ([0, 1] * 15, [f"d{row // 10}" for row in range(30)], "data.validation_fraction = 0.33"),
        ([0, 1] * 50, ["a"] * 100, "the group 'a' holds 100 of the 100 rows"),
    ],
)  # fmt: skip
def test_row_72_a_group_that_can_not_be_on_one_side_is_named(labels: list[int], groups: list[str], named: str) -> None:
    with pytest.raises(DataError) as caught:
        carve(examples(labels, groups), "validation", 0.1, 0, Label(["x", "y"]), "document")
    assert named in str(caught.value)
    if "0.33" in named:
        carve(examples(labels, groups), "validation", 0.33, 0, Label(["x", "y"]), "document")


def test_row_72_samples_keep_groups_together_as_far_as_they_can() -> None:
    train = examples([row % 2 for row in range(200)], [f"doc{row // 10}" for row in range(200)])
    for seed in range(3):
        drawn = sample(train, 55, seed, "document")
        assert len(drawn) == 55
        assert len(of_group(drawn)) == 6
    labels, groups = train.truth, train.groups("document")
    parts = [set(learning_curve.subset(labels, one, 0, groups).tolist()) for one in learning_curve.FRACTIONS]
    assert all(small < large for small, large in itertools.pairwise(parts))
    assert len({groups[row] for row in parts[0]}) <= 4
    assert len(parts[-1]) == 200


def test_row_72_a_temperature_is_fitted_and_reported_on_different_groups() -> None:
    groups = [f"doc{row // 10}" for row in range(200)]
    for seed in range(5):
        fitting, reporting = halves(200, seed, groups)
        assert (len(fitting), len(reporting)) == (100, 100)
        assert not {groups[row] for row in fitting} & {groups[row] for row in reporting}
    assert [len(half) for half in halves(4, 0, ["a"] * 4)] == [0, 4]


def test_a_missing_group_is_a_group_of_its_own() -> None:
    assert group_names(["a", None, " ", "", float("nan"), 3]) == ["a", None, None, None, None, "3"]
    assert units_of(["b", None, "a", "b", None]).tolist() == [1, 2, 0, 1, 3]
    assert units_of([None, None]).tolist() == [0, 1]


def test_row_72_a_run_carves_by_group_and_says_what_given_files_share(models: Models, tmp_path: Path) -> None:
    train = documents(200, 10)
    shared = [{**row, "document": "doc3"} for row in tiny.rows(12, seed=7)]
    others = [{**row, "document": f"new{index // 3}"} for index, row in enumerate(tiny.rows(30, seed=8))]
    paths = {name: str(tiny.save_csv(tmp_path / f"{name}.csv", rows)) for name, rows in
             {"train": train, "some": shared + others, "all": shared}.items()}  # fmt: skip
    files = {"train_file": paths["train"], "validation_file": None, "group": "document", "validation_fraction": 0.1}

    def run(name: str, **keys: Any) -> dict[str, Any]:
        content = tiny.recipe(models("bert"), paths["train"], data=files | keys, training={"max_steps": 1})
        return workflow.run(recipes.parse(content), tmp_path / name).metrics

    carved = run("carved")
    assert carved["rows"] == {"train": 180, "validation": 20}
    assert carved["data_checks"]["shared_groups"]["validation"]["shared"] == 0
    assert carved["without_shared_groups"]["rows"] == 20
    some = run("some", test_file=paths["some"])
    found = some["data_checks"]["shared_groups"]["test"]
    assert (found["shared"], found["rows"], found["ids"], found["groups"]) == (12, 42, list(range(12)), ["doc3"])
    assert some["without_shared_groups"]["rows"] == 30
    assert any("12 of 42 test rows" in line and "'doc3'" in line for line in some["data_checks"]["warnings"])
    assert "On the 30 rows whose group has no rows in train" in (tmp_path / "some/report.html").read_text()
    with pytest.raises(DataError, match=r"all\.csv: 12 of 12 test rows belong to groups of 'document'.*allow_leak"):
        run("all", test_file=paths["all"])
    assert run("allowed", test_file=paths["all"], allow_leak=True)["without_shared_groups"] == {"rows": 0}


def test_row_71_labels_have_one_number_in_all_files_that_are_looked_at(tmp_path: Path) -> None:
    """The second file has labels that the first lacks, so that its own numbering would be another one."""
    train = tiny.save_csv(tmp_path / "a.csv", [{"text": f"word {row}", "label": row % 5 + 1} for row in range(40)])
    other = tiny.save_csv(
        tmp_path / "b.csv", [{"text": f"word {row}", "label": row % 5 + (row > 9)} for row in range(20)]
    )
    section = LabelColumns(train_file=str(train), validation_file=str(other))
    found = workflow.inspect_data(section)
    assert found["conflicting_labels"]["rows"] == 20, "ten texts of the second file, and the same of the first"
    assert found["unknown_labels"] == {"validation": {"0": 2}}
    assert any("2 validation rows have labels that train lacks: '0'" in line for line in found["warnings"])
