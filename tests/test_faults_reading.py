"""Files as people have them, by the fault list's rows 77, 78 and 98: read as they are meant, or refused in one line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.cli.arguments import data_keys
from featherweight.errors import ConfigError, DataError, FeatherweightError
from featherweight.inference.predictor import load_predictor
from featherweight.recipe import load_data_section
from featherweight.registry import TASKS
from featherweight.report.console import Console
from featherweight.serving.app import asked_of
from featherweight.sources import data
from featherweight.sources.formats import STRICT, Reading, columns, opened
from featherweight.sources.formats import json_lines as json_module
from featherweight.tasks.columns import LabelColumns
from featherweight.tasks.sequence_classification import SequenceClassification
from featherweight.workflow import preparing

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def run(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    workflow.run(recipes.parse(tiny.recipe(models("bert"), train_csv, training={"max_steps": 1})), folder)
    return folder


def read(path: Path, how: Reading = STRICT) -> list[dict[str, Any]]:
    with opened(path) as (reader, stream):
        return [row for _, row in reader.read(stream, str(path), how)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def prepare(**keys: Any) -> tuple[SequenceClassification, dict[str, Any]]:
    section = load_data_section({"validation_fraction": 0.25, **keys})
    return SequenceClassification.prepare(data.load(section), section, seed=0)


def rows_of(**keys: Any) -> list[dict[str, Any]]:
    return data.load(load_data_section(keys))["train"].rows.to_list()


def refused(*named: str, error: type[FeatherweightError] = DataError, **keys: Any) -> str:
    with pytest.raises(error) as caught:
        prepare(**keys)
    message = str(caught.value)
    assert "\n" not in message
    for part in named:
        assert part in message, message
    return message


# Row 77: what is no text and what is no label is refused by every command alike.

NOT_TEXTS: list[tuple[Any, str]] = [
    (7, "a number"),
    (0.5, "a number"),
    (True, "a boolean"),
    (["warm", "film"], "token-classification"),
    ([{"role": "user", "content": "hello"}], "causal-lm"),
    ([{"from": "human", "value": "hello"}], "causal-lm"),
    ({"prompt": "a", "completion": "b"}, "causal-lm"),
    ({"a": 1}, "an object"),
    (["a premise", "a hypothesis"], "a list"),
    ([], "a list"),
]
NOT_LABELS: list[tuple[Any, str]] = [
    (["neg"], "multi-label-classification"),
    (["a", "b"], "multi-label-classification"),
    ([1, 0], "multi-label-classification"),
    ([], "multi-label-classification"),
    ({"neg": True}, "multi-label-classification"),
    ({"name": "neg"}, "holds an object: {'name'"),
    ([[0, 4, "PER"]], "token-classification"),
    ([{"start": 0, "end": 4, "label": "PER"}], "token-classification"),
]


def tables(path: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The same rows as JSON Lines, and as Parquet where Arrow has a type for the column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [tiny.save_jsonl(path / "t.jsonl", rows)]
    try:
        pq.write_table(pa.Table.from_pylist(rows), path / "t.parquet")
    except (pa.ArrowException, TypeError):
        return files
    return [*files, path / "t.parquet"]


@pytest.mark.parametrize(("value", "named"), NOT_TEXTS, ids=repr)
@pytest.mark.parametrize("mixed", [False, True])
def test_row_77_what_is_no_text_is_refused(value: Any, named: str, mixed: bool, tmp_path: Path) -> None:
    rows = [{"text": value, "label": "ab"[index % 2]} for index in range(8)]
    if mixed:
        rows[:3] = tiny.rows(3)
    for path in tables(tmp_path, rows):
        refused(str(path), f"row {4 if mixed else 1}", "'text'", named, "data.text", train_file=str(path))
        with pytest.raises(DataError, match=r"row .*'text'"):
            workflow.inspect_data(LabelColumns(train_file=str(path)))


@pytest.mark.parametrize(("value", "named"), NOT_LABELS, ids=repr)
def test_row_77_what_is_no_label_is_refused(value: Any, named: str, tmp_path: Path) -> None:
    rows = [*tiny.rows(3), *({"text": f"word {index}", "label": value} for index in range(8))]
    for path in tables(tmp_path, rows):
        refused(str(path), "row 4", "'label'", named, "data.label", train_file=str(path))
    if named.endswith("-classification") and named not in tuple(TASKS):
        assert "featherweight does not have yet" in refused(train_file=str(tmp_path / "t.jsonl"))


def test_row_77_hub_data_sets_are_held_to_the_same_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(rows: list[dict[str, Any]]) -> None:
        found = datasets.Dataset.from_list(rows)
        monkeypatch.setattr(data.hub, "load_dataset", lambda *_: {"train": (found, "commit")})
        prepare(name="owner/data")

    for value, named in NOT_TEXTS[:6]:
        rows = [{"text": None, "label": "a"}, *({"text": value, "label": "ab"[index % 2]} for index in range(8))]
        with pytest.raises(DataError, match=rf"owner/data \(train\): row 2: the text column 'text' holds .*{named}"):
            load(rows)
    with pytest.raises(DataError, match=r"row 1: the label column 'label' holds .*multi-label-classification"):
        load([{"text": f"word {index}", "label": ["a"]} for index in range(8)])
    load(tiny.rows(16))


def test_row_77_predict_and_the_server_refuse_what_run_refuses(run: Path, tmp_path: Path) -> None:
    from fastapi import HTTPException

    tiny.save_jsonl(tmp_path / "in.jsonl", [{"text": "great"}, {"text": None}, {"text": 7}])
    with pytest.raises(DataError, match=r"in\.jsonl: row 3: the text column 'text' holds a number: 7"):
        workflow.predict_file(run, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    predictor = load_predictor(run)
    for value, named in NOT_TEXTS:
        with pytest.raises(DataError, match=named):
            predictor.predict([value])
        with pytest.raises(HTTPException, match=named) as refused:
            asked_of(predictor.task, ["fine", value], 100)
        assert refused.value.status_code == 422
        assert "texts.1" in refused.value.detail


def test_row_77_null_is_an_empty_text_and_cells_of_csv_are_texts(tmp_path: Path) -> None:
    null = [*tiny.rows(12), {"text": None, "label": "pos"}]
    _, examples = prepare(train_file=str(tiny.save_jsonl(tmp_path / "t.jsonl", null)))
    assert examples["train"].dropped == 1
    numbers = "".join(f"{index},{'ab'[index % 2]}\n" for index in range(12))
    _, examples = prepare(train_file=str(write(tmp_path / "t.csv", "text,label\n" + numbers)))
    assert sorted([*examples["train"].all_texts(), *examples["validation"].all_texts()], key=int)[:2] == ["0", "1"]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "messages are for task = \"causal-lm\""),
        ({"prompt": "a", "completion": "b"}, "prompt and completion"),
        ({"tokens": ["a"], "ner_tags": [0]}, "token-classification"),
    ],
    ids=["chat", "completion", "tags"],
)  # fmt: skip
def test_row_77_columns_of_another_task_are_recognised(columns: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = tiny.save_jsonl(tmp_path / "t.jsonl", [{**columns, "label": "a"}, {**columns, "label": "b"}])
    refused("no column 'text'", named, train_file=str(path))


def test_row_77_columns_of_another_task_are_recognised_where_the_label_is_missing_too(tmp_path: Path) -> None:
    path = tiny.save_jsonl(tmp_path / "t.jsonl", [{"tokens": ["a"], "ner_tags": ["O"]}])
    refused("no column 'label'", 'tokens and ner_tags are for task = "token-classification"', train_file=str(path))


@pytest.mark.parametrize(("values", "told"), [(30, True), (12, False)])
def test_row_77_many_integers_are_classes_that_may_be_a_scale(values: int, told: bool, tmp_path: Path) -> None:
    rows = [{"text": f"text {index}", "label": index % values} for index in range(values * 4)]
    _, examples = prepare(train_file=str(tiny.save_jsonl(tmp_path / "t.jsonl", rows)))
    said = "the 30 different integers in 'label' are read as classes without an order; for numbers there is task ="
    assert (said in (examples["train"].reading or "")) == told


# Row 78: quoted TSV, dev files, unlabelled test files.

ODD = [
    {"text": 'said "no", twice', "label": "a"},
    {"text": "two\nlines", "label": "b"},
    {"text": "a\ttab", "label": "a"},
    {"text": '"', "label": "b"},
    {"text": "plain", "label": "a"},
]


def as_pandas_writes(rows: list[dict[str, Any]], quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("chosen", [[0], [1], [2], [0, 1, 2, 3], [4]], ids=str)
def test_row_78_tsv_as_pandas_writes_it(quoting: int, chosen: list[int], tmp_path: Path) -> None:
    rows = [ODD[4], *(ODD[index] for index in chosen), ODD[4]]
    assert read(write(tmp_path / "t.tsv", as_pandas_writes(rows, quoting))) == rows


@pytest.mark.parametrize(
    "lines",
    [
        ['"half a quote\t0', "plain \t1"],
        ['"half a quote\t0', 'and its other half"\t1'],  # one row of two lines, if quotes could quote here
        ['"good" , he said\t0', '"whole"\t1'],
        ['it is 5" long\t0', '" "" "\t1', '"\t1'],
        ['say "aah"\t"0', "x\t1"],
    ],
)
def test_row_78_raw_tsv_keeps_its_quotes(lines: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", "\n".join(["sentence\tlabel", *lines, ""]))
    assert [tuple(row.values()) for row in read(path)] == [tuple(line.split("\t")) for line in lines]


def test_row_78_one_column_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.tsv: .*save it as CSV or JSONL"):
        read(write(tmp_path / "t.tsv", 'text\n"I will\ngo"\n'))


@pytest.mark.parametrize("name", ["dev.tsv", "valid.tsv", "val.tsv", "eval.tsv", "validation.tsv"])
def test_row_78_the_validation_file_of_a_folder(name: str, tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", as_pandas_writes(tiny.rows(40)))
    write(tmp_path / name, as_pandas_writes(tiny.rows(12, seed=5)))
    _, examples = prepare(name=str(tmp_path))
    assert {split: len(one) for split, one in examples.items()} == {"train": 40, "validation": 12}
    write(tmp_path / "validation.csv", "text,label\n")
    refused(name, "validation.csv", "data.validation_file", error=ConfigError, name=str(tmp_path))


@pytest.mark.parametrize(
    "content", ["text\nwarm\ncold\n", "text,label\nwarm,-1\ncold,-1\n", "text,label\nwarm,\ncold,\n"]
)
def test_row_78_an_unlabelled_test_file_is_left_out_and_said(
    content: str, models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_csv(tmp_path / "train.csv", tiny.rows(60))
    write(tmp_path / "test.csv", content)
    console = Console(quiet=True)
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)
    content_of_recipe = tiny.recipe(models("bert"), "unused", data={"train_file": None, "name": str(tmp_path)})
    assert sorted(preparing.prepare(recipes.parse(content_of_recipe), console).examples) == ["train", "validation"]
    assert f"test: left out, for {tmp_path / 'test.csv'} has no labels" in said
    assert workflow.inspect_data(LabelColumns(name=str(tmp_path)))["splits"]["test"]["rows"] == 2
    write(tmp_path / "train.csv", "text\nwarm\ncold\n")
    refused("train.csv: no column 'label'", name=str(tmp_path))


# Row 98: files as people have them.


def test_row_98_columns_that_nobody_asks_for_may_be_doubled_or_unnamed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "label,text,,,x,x\na,one,p,,1,2\nb,two,,,3,4\n")
    assert read(path)[0] == {
        "label": "a", "text": "one", "Unnamed: 2": "p", "Unnamed: 3": "", "x": "1", "x.1": "2",
    }  # fmt: skip
    assert [row["text"] for row in rows_of(train_file=str(path))] == ["one", "two"]
    refused("2 columns are named 'x'", "rename", train_file=str(path), text="x")
    with pytest.raises(DataError, match="2 columns are named 'x'"):
        read(path, Reading(columns=["x"]))


def test_row_98_doubled_columns_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array(["one", "two"]), pa.array(["a", "b"]), pa.array(["c", "d"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "label", "label"]), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")[1] == {"text": "two", "label": "b", "label.1": "d"}
    refused("2 columns are named 'label'", train_file=str(tmp_path / "t.parquet"))


def test_row_98_damaged_parquet_is_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": f"text number {index} " * 5, "label": "ab"[index % 2], "tags": [1, 2]} for index in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", write_page_checksum=True)
    whole = (tmp_path / "t.parquet").read_bytes()
    path = tmp_path / "damaged.parquet"
    refusals = 0
    for place in range(0, len(whole), 7):
        write(path, whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert len(read(path)) == len(rows)
        except DataError as error:
            refusals += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert refusals > len(whole) / 7 / 2


def test_row_98_keys_of_json_are_optional(tmp_path: Path) -> None:
    rows = [{**row, **({"comment": "check"} if index == 9 else {})} for index, row in enumerate(tiny.rows(20))]
    del rows[3]["text"]
    path = tiny.save_jsonl(tmp_path / "t.jsonl", rows)
    _, examples = prepare(train_file=str(path), slices=["comment"])
    assert examples["train"].dropped == 1, "a row without a text has an empty one"
    del rows[5]["label"]
    refused("row 6: no label", train_file=str(tiny.save_jsonl(path, rows)))
    refused("no column 'remark' for data.group", train_file=str(path), group="remark")


def test_row_98_lists_that_nobody_named_are_left_out(tmp_path: Path) -> None:
    rows = [{**row, "embedding": [0.5, 0.25], "meta": {"a": 1}} for row in tiny.rows(8)]
    for path in tables(tmp_path, rows):
        split = data.load(load_data_section({"train_file": str(path)}))["train"]
        assert set(split.rows.column_names) == {"__row__", "text", "label", "meta"}
        assert split.rows["meta"][0] == '{"a": 1}'


def test_row_98_a_column_named_after_the_file_was_read_is_found(tmp_path: Path) -> None:
    """What is in the cache must not depend on which columns were asked for first."""
    path = tiny.save_csv(tmp_path / "t.csv", [{**row, "x": str(index)} for index, row in enumerate(tiny.rows(20))])
    prepare(train_file=str(path))
    _, examples = prepare(train_file=str(path), group="x")
    assert examples["train"].column("x")
    refused("no column 'y' for data.slices", train_file=str(path), slices=["y"])


def shards(folder: Path, count: int = 3) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = tiny.rows(8 * count)
    (folder / "data").mkdir(parents=True)
    for index in range(count):
        part = pa.Table.from_pylist(rows[8 * index : 8 * (index + 1)])
        pq.write_table(part, folder / "data" / f"train-{index:05d}-of-{count:05d}.parquet")
    return rows


def test_row_98_a_folder_of_shards(tmp_path: Path) -> None:
    rows = shards(tmp_path / "set")
    split = data.load(load_data_section({"name": str(tmp_path / "set")}))["train"]
    assert [{key: row[key] for key in ("text", "label")} for row in split.rows] == rows
    assert list(split.rows["__row__"]) == list(range(1, 25))
    pattern = str(tmp_path / "set" / "data" / "train-*.parquet")
    assert data.load(load_data_section({"train_file": pattern}))["train"].fingerprint == split.fingerprint
    (tmp_path / "set" / "data" / "train-00001-of-00003.parquet").unlink()
    for keys in ({"name": str(tmp_path / "set")}, {"train_file": pattern}):
        refused("train-00001-of-00003", "missing", **keys)


def test_row_98_several_files_in_their_order(tmp_path: Path) -> None:
    one = tiny.save_csv(tmp_path / "one.csv", tiny.rows(10))
    two = tiny.save_jsonl(tmp_path / "two.jsonl", tiny.rows(10, seed=1))
    both, other = ([str(one), str(two)], [str(two), str(one)])
    splits = [data.load(load_data_section({"train_file": files}))["train"] for files in (both, other)]
    assert splits[0].fingerprint != splits[1].fingerprint
    assert list(splits[0].rows["text"]) == [*splits[1].rows["text"][10:], *splits[1].rows["text"][:10]]
    write(two, two.read_bytes() + b'{"text": "one more", "label": "pos"}\n')
    changed = data.load(load_data_section({"train_file": both}))["train"]
    assert changed.fingerprint not in {split.fingerprint for split in splits}
    refused("named twice", error=ConfigError, train_file=[str(one), str(one)])
    refused("data.train_file: no file is named like", train_file=str(tmp_path / "three*.csv"))
    write(two, '{"text": "a"}\n')
    refused("two.jsonl: no column 'label'", train_file=both)


def test_row_98_several_files_in_a_recipe(tmp_path: Path, models: Callable[[str], Path]) -> None:
    shards(tmp_path / "set")
    path = write(
        tmp_path / "r.toml", f'[model]\nname = "{models("bert")}"\n[data]\ntrain_file = ["set/data/train-*.parquet"]\n'
    )
    recipe = recipes.load(path)
    assert recipe.data.train_file == [str(tmp_path / "set/data/train-*.parquet")]
    text = recipes.dump(recipe, {}, tmp_path / "elsewhere")
    assert "../set/data/train-*.parquet" in text
    (tmp_path / "elsewhere").mkdir()
    assert recipes.load(write(tmp_path / "elsewhere" / "r.toml", text)) == recipe
    content = tiny.recipe(
        models("bert"), "unused", data={"train_file": recipe.data.train_file}, training={"max_steps": 1}
    )
    tuned = workflow.run(recipes.parse(content), tmp_path / "one").metrics["tuned"]
    again = workflow.evaluate(str(tmp_path / "one"))
    assert again["eval_accuracy"] == tuned["eval_accuracy"]
    assert data_keys(pattern := str(tmp_path / "set/data/train-*.parquet"))["train_file"] == pattern


def test_row_98_gzipped_text(tmp_path: Path) -> None:
    rows = tiny.rows(20)
    plain = {
        "t.csv": tiny.save_csv(tmp_path / "t.csv", rows).read_bytes(),
        "t.tsv": as_pandas_writes([*rows, ODD[0]]).encode(),
        "t.jsonl": tiny.save_jsonl(tmp_path / "t.jsonl", rows).read_bytes(),
        "t.json": json.dumps(rows).encode(),
    }
    for name, content in plain.items():
        path = write(tmp_path / f"{name}.gz", gzip.compress(content))
        assert read(path)[:20] == rows
        assert len(rows_of(train_file=str(path))) == len(read(path))
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.csv.gz", gzip.compress(plain["t.csv"]))
    assert len(rows_of(name=str(tmp_path / "set"))) == 20
    packed = gzip.compress(plain["t.csv"])
    for broken in (packed[:-20], plain["t.csv"], packed[:60] + bytes(20) + packed[80:]):
        refused("x.csv.gz: not a readable gzip file", train_file=str(write(tmp_path / "x.csv.gz", broken)))
    bomb = write(tmp_path / "bomb.csv.gz", gzip.compress(b"text,label\n" + b"a" * (80 << 20)))
    refused("bomb.csv.gz: unpacks to more than", train_file=str(bomb))
    write(tmp_path / "t.parquet.gz", b"")
    refused("no data format", error=ConfigError, train_file=str(tmp_path / "t.parquet.gz"))


def zip_of(path: Path, files: dict[str, bytes], **keys: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content, **keys)
    return path


def test_row_98_a_file_in_a_zip_file(tmp_path: Path, run: Path, cli: Cli) -> None:
    rows = tiny.rows(20)
    plain = {
        "t.csv": tiny.save_csv(tmp_path / "t.csv", rows).read_bytes(),
        "t.jsonl": tiny.save_jsonl(tmp_path / "t.jsonl", rows).read_bytes(),
        "t.json": json.dumps(rows).encode(),
        "t.parquet": tables(tmp_path, rows)[1].read_bytes(),
    }
    beside = {"README.md": b"#", "__MACOSX/._t.csv": b"x", ".hidden.csv": b"x"}
    for name, content in plain.items():
        path = zip_of(tmp_path / f"{name}.zip", {**beside, f"a folder/{name}": content})
        assert read(path) == rows
        assert read(path / "a folder" / name) == rows
        assert rows_of(train_file=str(path)) == rows_of(name=str(path)) == rows_of(train_file=str(tmp_path / "t.csv"))
    ended = cli("predict", run, "--input", "t.csv.zip", "--output", "out.csv")
    assert ended.returncode == 0, ended.stderr
    assert [row["text"] for row in read(tmp_path / "out.csv")] == [row["text"] for row in rows]
    into = cli("predict", run, "--text", "x", "--output", "out.zip")
    assert into.returncode == 2


def test_row_98_several_files_in_a_zip_file(tmp_path: Path, cli: Cli) -> None:
    train, dev = tiny.rows(30), tiny.rows(12, seed=5)
    files = {"set/train.csv": tiny.save_csv(tmp_path / "t.csv", train).read_bytes()}
    files["set/dev.jsonl"] = tiny.save_jsonl(tmp_path / "t.jsonl", dev).read_bytes()
    path = zip_of(tmp_path / "reviews.zip", files)
    splits = data.load(load_data_section({"name": str(path)}))
    assert {name: len(split.rows) for name, split in splits.items()} == {"train": 30, "validation": 12}
    assert splits["validation"].origin == str(path / "set/dev.jsonl")
    assert splits["train"].fingerprint != splits["validation"].fingerprint
    refused("set/dev.jsonl", "name the one", error=ConfigError, train_file=str(path))
    refused("did you mean 'set/train.csv'", error=ConfigError, train_file=str(path / "set/trian.csv"))
    shown = json.loads(cli("inspect", "data", "reviews.zip", "--json").stdout)
    assert {name: one["rows"] for name, one in shown["splits"].items()} == {"train": 30, "validation": 12}
    shown = json.loads(cli("inspect", "data", "reviews.zip/set/train.csv", "--json").stdout)
    assert sum(one["rows"] for one in shown["splits"].values()) == 30
    zip_of(path, {"a.csv": files["set/train.csv"], "b.csv": files["set/train.csv"]})
    refused("a.csv", "b.csv", error=ConfigError, name=str(path))
    refused("holds no data file", "x.txt", error=ConfigError, name=str(zip_of(path, {"x.txt": b""})))


def test_row_98_hostile_zip_files(tmp_path: Path) -> None:
    content = tiny.save_csv(tmp_path / "t.csv", tiny.rows(200)).read_bytes()
    path = zip_of(tmp_path / "x.zip", {"t.csv": content})
    whole = path.read_bytes()
    for broken in (whole[:-30], content, b"", whole[:60] + bytes(20) + whole[80:]):
        refused(f"{path}", train_file=str(write(path, broken)))
    bomb = zip_of(tmp_path / "bomb.zip", {"t.csv": b"text,label\n" + b"a" * (80 << 20)})
    refused("t.csv: unpacks to more than", train_file=str(bomb))
    zip_of(tmp_path / "bomb.zip", {"t.parquet": b"a" * (80 << 20)})
    refused("t.parquet: unpacks to more than", train_file=str(bomb))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv", content)
        with pytest.warns(UserWarning):
            archive.writestr("t.csv", content)
    refused("two entries are named 't.csv'", train_file=str(path))
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("t.csv")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refused("is a link", train_file=str(path))
    whole = zip_of(path, {"t.csv": content}).read_bytes()
    locked = whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    assert locked != whole
    refused("is encrypted", train_file=str(write(path, locked)))
    refused("no such file", train_file=str(tmp_path / ("x" * 300 + ".zip") / "t.csv"))
    (tmp_path / "folder.zip").mkdir()
    refused("not a regular file", train_file=str(tmp_path / "folder.zip"))


def as_stream(table: Any, path: Path, rows: int) -> Path:
    import pyarrow as pa

    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def test_row_98_arrow_and_feather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import feather

    table = pa.Table.from_pylist(tiny.rows(50)).append_column("id", pa.array(range(50), pa.uint16()))
    table = table.set_column(1, "label", table["label"].dictionary_encode())
    pq.write_table(table, tmp_path / "t.parquet")
    files = [as_stream(table, tmp_path / "t.arrow", 7)]
    for compression in ("lz4", "zstd", "uncompressed"):
        files.append(tmp_path / f"{compression}.feather")
        feather.write_feather(table, str(files[-1]), compression=compression, chunksize=7)
    monkeypatch.setattr(columns, "BATCH_ROWS", 3)
    for path in files:
        assert read(path) == read(tmp_path / "t.parquet")
        assert rows_of(train_file=str(path)) == rows_of(train_file=str(tmp_path / "t.parquet"))
    doubled = pa.table([["a"], ["b"]], names=["text", "text"])
    refused("2 columns are named 'text'", train_file=str(as_stream(doubled, tmp_path / "d.arrow", 7)))
    refused("Feather of the first version", train_file=str(write(tmp_path / "first.feather", b"FEA1" + bytes(60))))


@pytest.mark.parametrize("kind", ["stream", "file", "compressed"])
def test_row_98_damaged_arrow_is_one_line(kind: str, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather

    table = pa.Table.from_pylist(tiny.rows(60))
    path = as_stream(table, tmp_path / "t.arrow", 20)
    if kind != "stream":
        feather.write_feather(table, str(path), compression="lz4" if kind == "compressed" else "uncompressed")
    whole = path.read_bytes()
    for length in range(0, len(whole), 40):
        refused("not a readable Arrow file", train_file=str(write(path, whole[:length])))
    if kind == "stream":
        refused("not a readable Arrow file", train_file=str(write(path, whole + whole)))
    refused_ones = 0
    for place in range(0, len(whole), 13):
        write(path, whole[:place] + b"\xff\x7f\xfe" + whole[place + 3 :])
        try:
            prepare(train_file=str(path))
        except DataError as error:
            refused_ones += 1
            assert "\n" not in str(error)
    assert refused_ones > 20


def saved(folder: Path, count: int = 40) -> Path:
    """A data set with splits and names of labels, as ``datasets`` saves it."""
    import datasets

    names = datasets.ClassLabel(names=["pos", "neg"])
    kinds = datasets.Features({"text": datasets.Value("string"), "label": names, "lang": datasets.Value("string")})
    rows = [
        {**row, "label": names.str2int(row["label"]), "lang": ("de", "en")[place % 4 // 2]}
        for place, row in enumerate(tiny.rows(count))
    ]
    whole = datasets.Dataset.from_list(rows, features=kinds)
    both = datasets.DatasetDict(train=whole, validation=whole.select(range(8)))
    both.save_to_disk(folder, num_shards={"train": 3, "validation": 1})
    return folder


def test_row_98_a_folder_that_datasets_saved(tmp_path: Path, cli: Cli) -> None:
    import datasets

    folder = saved(tmp_path / "set")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    splits = data.load(load_data_section({"name": str(folder)}))
    assert {name: len(split.rows) for name, split in splits.items()} == {"train": 40, "validation": 8}
    assert splits["train"].rows["text"][:] == [row["text"] for row in tiny.rows(40)]
    task, examples = prepare(name=str(folder))
    assert task.answer.names == ("pos", "neg")
    wanted = [task.answer.names.index(row["label"]) for row in tiny.rows(8)]
    assert examples["validation"].truth.tolist() == wanted
    _, filtered = prepare(name=str(folder), filter={"lang": "en"})
    assert len(filtered["train"]) == 20
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, "nothing is written"
    shown = json.loads(cli("inspect", "data", "set", "--json").stdout)
    assert {name: one["rows"] for name, one in shown["splits"].items()} == {"train": 40, "validation": 8}
    assert len(rows_of(name=str(folder / "train"))) == 40
    changed = datasets.Dataset.load_from_disk(folder / "train").select(range(39))
    changed.save_to_disk(tmp_path / "other")
    other = data.load(load_data_section({"name": str(tmp_path / "other")}))["train"]
    assert other.fingerprint != splits["train"].fingerprint
    refused("no column 'review'", name=str(folder), text="review")


def test_row_98_a_damaged_folder_that_datasets_saved(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set")
    shard = folder / "train" / "data-00001-of-00003.arrow"
    whole, state = shard.read_bytes(), (folder / "train" / "state.json").read_text()
    for broken in (whole[:-8], whole[:-100], b"", whole[:300] + b"\xff" * 40 + whole[340:]):
        shard.write_bytes(broken)
        refused("data-00001-of-00003.arrow: not a readable Arrow file", name=str(folder))
    shard.unlink()
    refused("data-00001-of-00003.arrow: no such file", name=str(folder))
    shard.write_bytes(whole)
    for content, named in [
        ("{", "can't be read as JSON"),
        ("[]", "no list"),
        (state.replace("data-00001", "../data-00001"), "in its own folder"),
        ('{"_data_files": [3]}', "in its own folder"),
    ]:
        write(folder / "train" / "state.json", content)
        refused("state.json", named, name=str(folder))
    write(folder / "dataset_dict.json", '{"splits": ["../set/train"]}')
    refused("dataset_dict.json", name=str(folder))


def class_folder(folder: Path, rows: list[dict[str, Any]], ending: str = ".txt") -> Path:
    for place, row in enumerate(rows):
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        write(folder / row["label"] / f"{place}_9{ending}", row["text"] + "\n")
    return folder


def in_order(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted(((row["text"], row["label"]) for row in rows), key=lambda one: one[1])


def test_row_98_a_folder_for_each_class(tmp_path: Path, run: Path, cli: Cli) -> None:
    """As aclImdb is unpacked: other files beside the folders, and one of texts without a label."""
    train, test = tiny.rows(60), tiny.rows(24, seed=3)
    folder = class_folder(tmp_path / "aclImdb" / "train", train).parent
    class_folder(folder / "test", test)
    class_folder(folder / "train", [{"text": "no label", "label": "unsup"}])
    for other in ("README", "imdb.vocab", "train/labeledBow.feat", "train/.DS_Store", "train/pos/.hidden"):
        write(folder / other, b"\xff")
    splits = data.load(load_data_section({"name": str(folder)}))
    assert {name: len(split.rows) for name, split in splits.items()} == {"train": 60, "test": 24}
    read_back = splits["train"].rows.to_list()
    assert [(row["text"], row["label"]) for row in read_back] == in_order(train), "2_9 comes before 10_9"
    assert splits["train"].origin == f"{folder / 'train'} (without unsup)"
    assert rows_of(name=str(folder / "train")) == rows_of(train_file=str(folder / "train")) == read_back
    shown = json.loads(cli("inspect", "data", "aclImdb", "--json").stdout)
    assert {name: one["rows"] for name, one in shown["splits"].items()} == {"train": 60, "test": 24}
    ended = cli("evaluate", run, "--data", "aclImdb/test", "--json")
    assert ended.returncode == 0, ended.stderr
    assert 0 <= json.loads(ended.stdout)["eval_accuracy"] <= 1
    before = splits["train"].fingerprint
    write(folder / "train" / "pos" / "0_9.txt", "changed")
    assert data.load(load_data_section({"name": str(folder)}))["train"].fingerprint != before
    assert len(rows_of(name=str(class_folder(tmp_path / "news", train, "")))) == 60, "names without an ending"


def test_row_98_what_a_folder_for_each_class_must_not_hold(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "set", tiny.rows(40))
    odd = folder / "pos" / "odd.txt"
    where = {"name": str(folder)}
    refused(f"{write(odd, b'caf' + bytes([0xE9]))}: the byte at offset 3 is not UTF-8", **where)
    assert prepare(**where, encoding="cp1252")
    assert prepare(**where, skip_bad_rows=0.1)[1]["train"].skipped == 1
    odd.unlink()
    write(folder / "pos" / "odd.jpg", b"")
    refused(str(folder / "pos" / "odd.jpg"), "no text by its name", **where)
    (folder / "pos" / "odd.jpg").unlink()
    for target in ("/dev/zero", "nowhere", str(folder)):
        odd.symlink_to(target)
        refused(f"{odd}: not a regular file", **where)
        odd.unlink()
    (folder / "none").mkdir()
    refused(f"{folder / 'none'}: holds no text", **where)
    (folder / "none").rmdir()
    refused("no column 'TEXT'", "did you mean 'text'?", **where, text="TEXT")
    (tmp_path / "splits" / "train").mkdir(parents=True)
    write(tmp_path / "splits" / "train" / "a.txt", "x")
    refused("no folder of texts for each class", error=ConfigError, name=str(tmp_path / "splits"))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_row_98_an_array_of_objects(
    indent: int | None, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_module, "_CHUNK", chunk)
    rows = [
        {"text": 'brackets [{, a "quote", \\ and \u00e4', "label": -1.5e3, "more": {"a": [1, None, True]}},
        {"text": "", "label": 12345, "more": []},
        {"text": "x" * 50, "label": None},
    ]
    path = write(tmp_path / "t.json", "\ufeff \n" + json.dumps(rows, indent=indent) + "\n\n")
    assert read(path) == rows
    assert read(write(path, "[ ]")) == []
    for broken, named in [
        ('[{"a": 1}, {"a": 2]', "row 2"),
        ('[{"a": 1},]', "row 2"),
        ('[{"a": 1}', "row 1"),
        ('[{"a": 1} {"a": 2}]', "row 1"),
        ('[{"a": 1, "a": 2}]', "row 1"),
        ('[{"a": NaN}]', "row 1"),
        ('["a"]', "row 1"),
        ('[{"a": "open}]', "row 1"),
        ('[{"a": 1}] x', "after the end of the array"),
        ("[" * 20_000, "row 1"),
    ]:
        with pytest.raises(DataError, match=named):
            read(write(path, broken))


def test_row_98_json_lines_may_be_named_json(tmp_path: Path) -> None:
    rows = tiny.rows(4)
    path = tiny.save_jsonl(tmp_path / "t.json", rows)
    assert read(path) == rows
    several = json.dumps({"version": 1, "data": rows}, indent=1)
    refused("line 1", "one array of objects", train_file=str(write(path, several)))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [16, 1 << 20])
def test_row_98_an_array_under_the_only_key(
    indent: int | None, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_module, "_CHUNK", chunk)
    rows = tiny.rows(40)
    whole = json.dumps({'the "data"': rows}, indent=indent)
    path = write(tmp_path / "t.json", f"\ufeff\n {whole}\n\n")
    assert read(path) == rows
    monkeypatch.setattr(json_module, "_LONGEST_LINE", 64)  # a line that is too long to be looked at as a whole
    assert read(path) == rows
    assert len(rows_of(train_file=str(path))) == 40
    for broken, named in [
        (whole[:-1], "after the end of the array"),
        (whole + "x", "after the end of the array"),
        (whole[:-1] + ', "more": 1}', "after the end of the array|not a valid JSON object"),
        (whole[:-2], "after the end of the array|row 40|line 1"),
    ]:
        with pytest.raises(DataError, match=named):
            read(write(path, broken))


def test_row_98_a_row_that_holds_a_list_is_a_row(tmp_path: Path) -> None:
    """JSON lines of one key each, whose value is an array of objects, as chats are written."""
    rows = [{"messages": [{"role": "user", "content": str(place)}]} for place in range(3)]
    assert read(tiny.save_jsonl(tmp_path / "t.jsonl", rows)) == rows
    more = [{"entities": [{"start": 0}], "text": "x"}]
    assert read(tiny.save_jsonl(tmp_path / "t.jsonl", more)) == more


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("sep=;\ntext;label\n1,5 stars;b\n", None),
        ("\ufeffsep=;\r\ntext;label\r\n1,5 stars;b\r\n", None),
        ("\n \r\ntext;label\n1,5 stars;b\n", None),
        ("text|label\n1,5 stars|b\n", None),
        ("text\tlabel\n1,5 stars\tb\n", None),
        ('"text"~"label"\n1,5 stars~b\n', "~"),
        ('text,label\n"1,5 stars",b\n', None),
    ],
)
def test_row_98_what_separates_the_fields(content: str, delimiter: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", content)
    assert read(path, Reading(delimiter=delimiter)) == [{"text": "1,5 stars", "label": "b"}]


def test_row_98_fields_that_may_be_separated_in_two_ways(tmp_path: Path, run: Path) -> None:
    path = write(tmp_path / "t.csv", "text,a;label\none,x;pos\ntwo,y;neg\n")
    refused("',' or by ';'", "data.delimiter", train_file=str(path))
    assert rows_of(train_file=str(path), delimiter=";", text="text,a")[1]["label"] == "neg"
    workflow.predict_file(run, path, tmp_path / "out.jsonl", column="text,a", delimiter=";")
    assert [row["label"] for row in read(tmp_path / "out.jsonl")] == ["pos", "neg"]
    # Decided by the rows: only one of them fits.
    assert len(read(write(path, "text,a;b,label\none,x,pos\ntwo,y,neg\n"))[0]) == 3
    for wrong in (";;", "", "a", '"', "\n"):
        refused("data.delimiter", error=ConfigError, train_file=str(path), delimiter=wrong)


def test_row_98_a_header_in_the_middle_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\none,a\n\ntext,label\ntwo,b\n")
    refused("line 4: row 2 is the header again", "take it out", train_file=str(path))
    assert len(rows_of(train_file=str(path), skip_bad_rows=0.5)) == 2
    assert len(read(write(path, "text\ntext\n"))) == 1, "one column may hold its own name"


def test_row_98_the_encoding_of_standard_input(run: Path, cli: Cli) -> None:
    line = '{"text": "caf\u00e9"}\n'.encode("cp1252")
    ended = cli("predict", run, "--input", "-", "--encoding", "cp1252", input=line, text=False)
    assert json.loads(ended.stdout)["text"] == "caf\u00e9", ended.stderr


def test_row_98_evaluate_takes_the_names_that_the_data_use(run: Path, tmp_path: Path) -> None:
    rows = tiny.rows(40, seed=3)
    other = [{**row, "label": {"neg": "bad", "pos": "good"}[row["label"]]} for row in rows]
    plain = LabelColumns(train_file=str(tiny.save_jsonl(tmp_path / "a.jsonl", rows)))
    named = LabelColumns(train_file=str(tiny.save_jsonl(tmp_path / "b.jsonl", other)))
    with pytest.raises(DataError, match=r"row 1: the label 'bad' is none of 'neg', 'pos'.*set data\.labels"):
        workflow.evaluate(str(run), named)
    with_names = named.model_copy(update={"labels": ["bad", "good"]})
    expected, found = (workflow.evaluate(str(run), section) for section in (plain, with_names))
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"])
    turned = plain.model_copy(update={"labels": ["pos", "neg"]})
    assert workflow.evaluate(str(run), turned)["eval_loss"] == pytest.approx(expected["eval_loss"]), "names win"
    for wrong in (["bad", "good", "odd"], ["pos", "bad"]):
        with pytest.raises(ConfigError, match=r"data\.labels: .*'neg', 'pos'"):
            workflow.evaluate(str(run), named.model_copy(update={"labels": wrong}))
