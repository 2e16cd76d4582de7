"""One column, one reading: a label column holds names or positions among them, and never both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from featherweight.errors import DataError
from featherweight.records.rows import Split
from featherweight.sources import data
from featherweight.tasks.columns import LabelColumns
from featherweight.tasks.reading.labels import class_indices, read_as, read_label_column
from featherweight.tasks.sequence_classification import SequenceClassification

Models = Callable[[str], Path]

SPELLINGS = st.one_of(
    st.sampled_from(["neg", "pos", "NEG", "true", "LABEL_0", "LABEL_1", "-1", "01", "+1", "1.0", "2.", "nan", "é", "e\u0301"]),
    st.integers(-2, 6).map(str),
    st.integers(-2, 6).map(lambda one: f"{one}.0"),
    st.text(max_size=3),
)  # fmt: skip
NAMES = st.lists(SPELLINGS, min_size=2, max_size=6, unique=True)


def split_of(values: list[Any], declared: list[str] | None = None) -> Split:
    feature = datasets.ClassLabel(names=declared) if declared else None
    features = datasets.Features({"label": feature}) if declared else None
    rows = datasets.Dataset.from_dict({"label": values}, features=features)
    return Split("validation", rows, "file.csv", "", tuple(declared) if declared else None)


def save(path: Path, labels: list[Any]) -> Path:
    return tiny.save_csv(path, [{"text": f"word {row}", "label": label} for row, label in enumerate(labels)])


def prepare(train: Path, validation: Path, **keys: Any) -> Any:
    section = LabelColumns(train_file=str(train), validation_file=str(validation), **keys)
    return SequenceClassification.prepare(data.load(section), section, seed=0)


@given(NAMES, st.data(), st.booleans())
def test_row_71_no_two_values_are_ever_read_as_one_class(names: list[str], draw: st.DataObject, ordered: bool) -> None:
    values = draw.draw(st.lists(st.one_of(st.sampled_from(names), SPELLINGS), min_size=1, max_size=12))
    try:
        column = read_label_column(split_of(values), "label", names)
        if column.is_unlabelled:
            return
        reading = read_as(column, names, "label", ordered=ordered)
    except DataError as error:
        assert "\n" not in str(error)
        return
    indices = class_indices(column, reading)
    pairs = {(value, int(index)) for value, index in zip(values, indices, strict=True)}
    assert len(pairs) == len({value for value, _ in pairs}) == len({index for _, index in pairs})
    by_name = all(names[index] in {value, value.rstrip("0").rstrip(".")} for value, index in pairs)
    by_position = all(str(index) in {value, value.rstrip("0").rstrip(".")} for value, index in pairs)
    integers = any(name.removeprefix("+").removeprefix("-").isdecimal() for name in names)
    assert by_name or (by_position and reading.said and ordered and not integers)


@pytest.mark.parametrize(
    ("validation", "row", "label"),
    [
        ([0, 1, 2, 3, 4] * 4, 1, "0"),  # counted from 0
        ([1, 2, 3, 4, 5, 0, 2, 0], 6, "0"),  # a stray 0
        ([1, 2, 6], 3, "6"),
        (["1", "two"], 2, "two"),
    ],
)
def test_row_71_integers_are_no_positions_where_names_are_integers(
    validation: list[Any], row: int, label: str, tmp_path: Path
) -> None:
    train = save(tmp_path / "train.csv", [1, 2, 3, 4, 5] * 4)
    other = save(tmp_path / "validation.csv", validation)
    with pytest.raises(DataError, match=rf"validation\.csv: row {row}: the label '{label}' is none of '1', '2'"):
        prepare(train, other)
    _, examples = prepare(train, save(tmp_path / "right.csv", [5, 4, 3, 2, 1]))
    assert examples["validation"].truth.tolist() == [4, 3, 2, 1, 0]


def test_row_71_positions_are_read_where_the_order_of_the_names_is_given(tmp_path: Path) -> None:
    words = save(tmp_path / "words.csv", ["World", "Sports", "Business"] * 4)
    integers = save(tmp_path / "integers.csv", [2, 0, 1])
    with pytest.raises(DataError, match=r"row 1: the label '2'.*set data\.labels to them in the order"):
        prepare(words, integers)  # which would have counted in the alphabet's order
    _, examples = prepare(words, integers, labels=["World", "Sports", "Business"])
    assert examples["validation"].truth.tolist() == [2, 0, 1]
    assert "0 is 'World', 1 is 'Sports', 2 is 'Business'" in examples["validation"].reading
    assert examples["train"].reading is None


@pytest.mark.parametrize("labels", [["POSITIVE", 1, "NEGATIVE", 0], [0, 1, "POSITIVE"], [0, 1, 2]])
def test_row_71_names_beside_positions_are_refused(labels: list[Any], tmp_path: Path) -> None:
    names = ["NEGATIVE", "POSITIVE"]
    train = save(tmp_path / "train.csv", [0, 1] * 8)
    row = next(row for row, label in enumerate(labels, 1) if label not in ([0, 1] if labels[2] == 2 else names))
    with pytest.raises(DataError, match=rf"row {row}: the label '{labels[row - 1]}' is none of"):
        prepare(train, save(tmp_path / "v.csv", labels), labels=names)


def read(values: list[Any], names: list[str], declared: list[str] | None = None) -> list[int]:
    column = read_label_column(split_of(values, declared), "label", names)
    return class_indices(column, read_as(column, names, "label")).tolist()


def test_row_71_a_sources_own_names_for_its_integers_are_names() -> None:
    stars = ["1", "2", "3"]
    assert read([0, 2, 1], stars, declared=stars) == [0, 2, 1]
    assert read([0, 1, 1], ["pos", "neg"], declared=["neg", "pos"]) == [1, 0, 0], "not the places in data.labels"
    assert read([0, 1, 1], ["POS", "NEG"], declared=["neg", "pos"]) == [1, 0, 0]
    assert read([0, 1, 1], ["bad", "good"], declared=["neg", "pos"]) == [0, 1, 1]
    assert read([0, 1, 1], ["bad", "good"], declared=["1", "2"]) == [0, 1, 1]
    with pytest.raises(DataError, match="'3'"):
        read([0, 2], ["0", "1", "2"], declared=stars)


def test_row_71_numbers_that_look_alike(tmp_path: Path) -> None:
    assert read(["0.0", "1.0", "0.0"], ["0", "1"]) == [0, 1, 0]  # as pandas writes them
    assert read(["1.0", "2.0"], ["1.0", "2.0"]) == [0, 1]
    for values in (["1", "1.0"], ["1", "01"], ["1", "+1"], ["é", "e\u0301"], ["a b", "a  b"]):
        with pytest.raises(DataError, match=r"row 2: the labels .* differ only in"):
            read(values, ["a", "b"])
    _, examples = prepare(save(tmp_path / "t.csv", ["0.0", "1.0"] * 4), save(tmp_path / "v.csv", [1, 0]))
    assert examples["validation"].truth.tolist() == [1, 0]


def test_row_71_minus_one_is_a_class_where_that_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", [-1, 0, 1] * 4)
    with pytest.raises(DataError, match=r"row 1: the label -1 .*data\.labels"):
        prepare(path, path)
    _, examples = prepare(path, path, labels=["-1", "0", "1"])
    assert examples["validation"].truth.tolist() == [0, 1, 2] * 4
    with pytest.raises(DataError, match=r"row 2: the label -1 marks"):
        read(["neg", "-1"], ["neg", "pos"])


def test_a_label_that_is_no_number_or_blank_is_missing() -> None:
    for values in ([1.0, float("nan"), 0.0], ["a", " ", "b"]):
        with pytest.raises(DataError, match="row 2: no label"):
            read(values, ["0", "1"])
    assert np.array_equal(read([1.0, 0.0], ["0", "1"]), [1, 0])
