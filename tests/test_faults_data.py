"""Bad data, by the fault list's row numbers: the right rows, or exit 3 with the file, the row and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from featherweight.errors import DataError
from featherweight.sources import data
from featherweight.sources.formats import format_of
from featherweight.tasks import heads
from featherweight.tasks.columns import LabelColumns
from featherweight.tasks.sequence_classification import SequenceClassification

HEADER = "text,label\n"


def read(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as stream:
        return [row for _, row in format_of(path).read(stream, str(path))]


def prepare(path: Path, validation: Path | None = None, **keys: Any) -> Any:
    files = {"train_file": str(path)} | ({"validation_file": str(validation)} if validation else {})
    section = LabelColumns(**files, **{"validation_fraction": 0.25, **keys})
    return SequenceClassification.prepare(data.load(section), section, seed=0)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def labelled(path: Path, labels: list[Any]) -> Path:
    return tiny.save_jsonl(path, [{"text": f"word {index}", "label": label} for index, label in enumerate(labels)])


def refused(path: Path, *named: str, **keys: Any) -> None:
    with pytest.raises(DataError) as caught:
        prepare(path, **keys)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for part in named:
        assert part in message
    assert caught.value.exit_code == 3


# Row 30: empty file, header only, one row, one class, fewer rows than classes.


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "empty"),
        (HEADER, "no rows"),
        (HEADER + "good,pos\n", "1 rows for"),
        (HEADER + "good,pos\nbetter,pos\nbest,pos\n", "one class only ('pos')"),
    ],
)
def test_row_30_too_little_data(content: str, named: str, tmp_path: Path) -> None:
    labels = ["neg", "pos"] if "1 rows" in named else None
    refused(write(tmp_path / "t.csv", content), named, labels=labels)


def test_row_30_fewer_rows_than_classes(tmp_path: Path) -> None:
    refused(write(tmp_path / "t.csv", HEADER + "x,a\ny,b\n"), "2 rows for 3 classes", labels=["a", "b", "c"])


# Row 31: a missing column is named with those found and the nearest.


def test_row_31_missing_column(tmp_path: Path) -> None:
    path = tiny.save_csv(tmp_path / "t.csv", tiny.rows(8))
    refused(path, "no column 'txt'", "did you mean 'text'?", "'text', 'label'", text="txt")
    refused(path, "no column 'labels'", "did you mean 'label'?", label="labels")


@pytest.mark.parametrize("has", ["TEXT", " text ", "Text", "text\u00a0"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_row_31_a_name_in_another_case_or_with_spaces_is_offered_and_not_taken(
    has: str, ending: str, tmp_path: Path
) -> None:
    rows = [{**row, has: row["text"], "tongue": "en"} for row in tiny.rows(20)]
    for row in rows:
        del row["text"]
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        (tiny.save_csv if ending == "csv" else tiny.save_jsonl)(path, rows)
    refused(path, "no column 'text' for data.text", f"did you mean {has!r}?")
    others = {"text": "label", "label": "tongue"}
    for key, value in {"slices": ["text"], "group": "text", "filter": {"text": "x"}, "label": "text"}.items():
        refused(path, f"no column 'text' for data.{key}", f"did you mean {has!r}?", **{**others, key: value})
    refused(path, "no column 'text' for data.text", f"did you mean {has!r}?", **{**others, "text": ["text", "label"]})


def test_row_31_a_test_file_whose_label_is_nearly_named_so_is_not_unlabelled(tmp_path: Path) -> None:
    train = tiny.save_csv(tmp_path / "train.csv", tiny.rows(20))
    test = write(tmp_path / "test.csv", "text,Label\na,pos\nb,neg\n")
    section = LabelColumns(train_file=str(train), test_file=str(test))
    with pytest.raises(DataError, match=r"no column 'label' for data.label \(did you mean 'Label'\?\)"):
        data.load(section)
    write(test, "text,other\na,pos\nb,neg\n")
    assert data.load(section)["test"].rows["label"][:] == [None, None]


# Row 33: CSV as it is found in the wild: the right rows or an error, never silent merging.


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_row_33_line_ends(newline: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", newline.join(["text,label", "a b,neg", "c,pos", ""]))
    assert read(path) == [{"text": "a b", "label": "neg"}, {"text": "c", "label": "pos"}]


def test_row_33_embedded_newlines_quotes_and_commas(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER + '"one\ntwo, ""three""",neg\r\n\nplain,pos\n')
    assert read(path) == [{"text": 'one\ntwo, "three"', "label": "neg"}, {"text": "plain", "label": "pos"}]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_row_33_other_delimiters(delimiter: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", f"text{delimiter}label\na, b{delimiter}neg\n")
    assert read(path) == [{"text": "a, b", "label": "neg"}]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('"never closed,neg\nb,pos\nc,neg\n', "line 2"),
        ('a,neg\n"open,pos\nc,neg\n"d",pos\n', "starts on line 3"),
        ("a,neg\nb\n", "line 3: 1 fields where the header has 2"),
        ("a,neg\nb,c,pos\n", "line 3: 3 fields where the header has 2"),
    ],
)
def test_row_33_broken_rows(content: str, named: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "t.csv", HEADER + content), named)


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", 'sentence\tlabel\n"half a quote\t0\nplain \t1\n')
    assert read(path) == [{"sentence": '"half a quote', "label": "0"}, {"sentence": "plain ", "label": "1"}]


# Row 37: empty texts are left out of training and measuring, counted, and predicted like any other.


def test_row_37_empty_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    content = [*tiny.rows(12), {"text": "", "label": "pos"}, {"text": " \t ", "label": "neg"}]
    _, examples = prepare(tiny.save_csv(tmp_path / "t.csv", content))
    assert sum(len(split) for split in examples.values()) == 12
    assert examples["train"].dropped == 2
    null = [*tiny.rows(12), {"text": None, "label": "pos"}]
    _, examples = prepare(tiny.save_jsonl(tmp_path / "t.jsonl", null))
    assert examples["train"].dropped == 1
    refused(tiny.save_jsonl(tmp_path / "e.jsonl", [{"text": "", "label": x} for x in "abab"]), "every text")


# Row 39: labels that could be read in two ways.


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["pos", "neg", None, "pos", "neg", "pos"], ["row 3", "no label", "1 of 6"]),
        (["pos", "neg", "", "pos", "neg", "pos"], ["row 3", "no label"]),
        (["pos", "neg", " pos", "pos"], ["row 3", "' pos'", "'pos'", "white space"]),
        (["pos", "neg", "POS", "pos"], ["row 3", "'POS'", "case"]),
        ([True, 1, "1", 1.0], ["mixes types", "boolean: 1 rows, first in row 1", "string: 1 rows, first in row 3"]),
        ([1, "1", 0, 0], ["mixes types", "integer", "string"]),
        ([0, 1, -1, 1, 0], ["row 3", "-1"]),
        ([0.5, 1.5, 0.5], ["0.5", "no classes"]),
    ],
)
def test_row_39_ambiguous_labels(labels: list[Any], named: list[str], tmp_path: Path) -> None:
    refused(labelled(tmp_path / "t.jsonl", labels), *named)


def test_row_39_label_out_of_range_and_unseen(tmp_path: Path) -> None:
    path = labelled(tmp_path / "t.jsonl", [0, 1, 7, 1])
    refused(path, "row 3", "'7'", "'0' (1)", "'1' (2)", labels=["NEGATIVE", "POSITIVE"])
    train = labelled(tmp_path / "train.jsonl", ["a", "b"] * 4)
    validation = labelled(tmp_path / "validation.jsonl", ["a", "c", "c"])
    with pytest.raises(DataError, match=r"row 2: the label 'c' is none of 'a', 'b'.*'c' \(2\)"):
        prepare(train, validation)


def test_row_39_glue_test_split_is_unlabelled(tmp_path: Path) -> None:
    train = labelled(tmp_path / "train.jsonl", [0, 1] * 8)
    test = labelled(tmp_path / "test.jsonl", [-1] * 4)
    refused(test, "unlabelled")
    section = LabelColumns(train_file=str(train), test_file=str(test))
    _, examples = SequenceClassification.prepare(data.load(section), section, seed=0)
    assert sorted(examples) == ["train", "validation"], "an unlabelled test split is no use and no error"


def test_labels_by_name_and_by_position(tmp_path: Path) -> None:
    by_position = prepare(labelled(tmp_path / "a.jsonl", [0, 1] * 8), labels=["NEGATIVE", "POSITIVE"])
    by_name = prepare(labelled(tmp_path / "b.jsonl", ["NEGATIVE", "POSITIVE"] * 8), labels=["NEGATIVE", "POSITIVE"])
    assert by_position[0].answer.names == by_name[0].answer.names == ("NEGATIVE", "POSITIVE")
    assert by_position[1]["train"].truth.tolist() == by_name[1]["train"].truth.tolist()
    stars = prepare(labelled(tmp_path / "c.jsonl", [10, 9, 2, 1] * 4))
    assert stars[0].answer.names == ("1", "2", "9", "10")


# Row 40: the order of the labels does not hang on the order of the rows.


def test_row_40_shuffled_rows_give_the_same_labels(tmp_path: Path) -> None:
    labels = ["b", "c", "a", "c", "b", "a", "a", "b", "c"] * 2
    one, _ = prepare(labelled(tmp_path / "a.jsonl", labels))
    other, _ = prepare(labelled(tmp_path / "b.jsonl", labels[::-1]))
    assert one.answer.names == other.answer.names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("stored", "configured"), [(["POSITIVE", "NEGATIVE"], ["NEGATIVE", "POSITIVE"]), (["c", "a", "b"], ["a", "b", "c"])]
)
@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_row_40_a_trained_head_in_another_order_is_mapped_by_name(
    stored: list[str], configured: list[str], kind: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from featherweight.recipe import ModelSection
    from featherweight.sources import models

    folder = tiny.save_model(tmp_path / "m", kind, head=stored)
    head = SequenceClassification(configured).head()
    model, tokenizer, _ = heads.load(head, models.find(str(folder)), ModelSection(name="m"))
    stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([[7, 8, 9, 10]])
    ours, theirs = model(input_ids=ids).logits[0].detach(), stock(input_ids=ids).logits[0].detach()
    for index, name in enumerate(configured):
        assert float(ours[index]) == pytest.approx(float(theirs[stored.index(name)]), abs=1e-5)
    assert float((ours[0] - ours[1]).abs()) > 1e-3  # else any order would pass
    assert model.config.id2label == dict(enumerate(configured))
    assert tokenizer.pad_token is not None


def test_row_40_a_trained_head_with_other_labels_is_exit_2(
    cli: Callable[..., Any], tmp_path: Path, train_csv: Path
) -> None:
    folder = tiny.save_model(tmp_path / "m", "bert", head=["joy", "anger"])
    ended = cli("run", "--model", folder, "--data", train_csv, "--output-dir", "out")
    assert ended.returncode == 2
    assert "'joy', 'anger'" in ended.stderr
    assert 'model.head = "new"' in ended.stderr
    assert not (tmp_path / "out").exists()
    fresh = cli(
        "run", "--model", folder, "--data", train_csv, "--output-dir", "out", "--set", "model.head=new",
        "--set", "training.max_steps=1",
    )  # fmt: skip
    assert fresh.returncode == 0, fresh.stderr


def test_the_filter_keeps_matching_rows_and_their_numbers(tmp_path: Path) -> None:
    rows = [{**row, "source": "ab"[index % 3 == 0]} for index, row in enumerate(tiny.rows(24))]
    _, examples = prepare(tiny.save_csv(tmp_path / "t.csv", rows), filter={"source": "a"})
    ids = sorted([*examples["train"].ids, *examples["validation"].ids])
    assert ids == [index for index in range(24) if index % 3]
    refused(tmp_path / "t.csv", "none of the 24 rows", filter={"source": "z"})


def test_the_carved_validation_split_is_stratified_seeded_and_disjoint(tmp_path: Path) -> None:
    labels = ["a"] * 60 + ["b"] * 20
    path = labelled(tmp_path / "t.jsonl", labels)
    _, one = prepare(path)
    _, again = prepare(path)
    assert one["validation"].ids.tolist() == again["validation"].ids.tolist()
    assert not set(one["validation"].ids) & set(one["train"].ids)
    assert [int((one["validation"].truth == label).sum()) for label in (0, 1)] == [15, 5]
    for split_seed, same in ((42, True), (1, False)):  # the training seed has no say in it
        section = LabelColumns(train_file=str(path), validation_fraction=0.25, split_seed=split_seed)
        _, other = SequenceClassification.prepare(data.load(section), section, seed=1)
        assert (other["validation"].ids.tolist() == one["validation"].ids.tolist()) is same


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": f'word "{index}", ä', "label": str(index % 2)} for index in range(20)]
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.parquet"):
        path = tiny.save(tmp_path / name, rows)
        assert read(path) == rows
        _, examples = prepare(path)
        assert len(examples["train"]) + len(examples["validation"]) == 20


def test_label_shares_of_the_real_sst2(sst2: Path) -> None:
    section = LabelColumns(
        train_file=str(sst2 / "train.tsv"),
        validation_file=str(sst2 / "validation.tsv"),
        text="sentence",
        labels=["NEGATIVE", "POSITIVE"],
    )
    task, examples = SequenceClassification.prepare(data.load(section), section, seed=42)
    shares = {
        name: {label: round(share, 4) for label, share in task.answer.describe(one.truth).items()}
        for name, one in examples.items()
    }
    assert shares == {
        "train": {"NEGATIVE": 0.4422, "POSITIVE": 0.5578},
        "validation": {"NEGATIVE": 0.4908, "POSITIVE": 0.5092},
    }
    assert [len(examples[name]) for name in ("train", "validation")] == [67_349, 872]
