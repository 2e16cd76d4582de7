"""What predict writes: every row as it was read, of whatever type and name, or one line before the first answer.

Fault list row 73.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from conftest import ROOT
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyarrow import feather

from featherweight.errors import ConfigError, DataError, FeatherweightError
from featherweight.inference.backends import answers_of
from featherweight.inference.predictor import Predictor
from featherweight.records.questions import Question, Tokens
from featherweight.sources.formats import format_of
from featherweight.tasks.sequence_classification import SequenceClassification

CASES = ROOT.parent / "shared" / "cases" / "15"
ENDINGS = ("csv", "tsv", "xlsx", "jsonl", "parquet", "arrow")
TEXTS, TYPED = ("csv", "tsv", "xlsx"), ("parquet", "arrow")
Row = dict[str, Any]

many = settings(
    max_examples=int(os.environ.get("FEATHERWEIGHT_CASES", "100")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Answers:
    """Answers by the text's length, and counts the texts that it was asked."""

    fitted: Mapping[str, Any] = {}
    text_columns = ()
    max_length = 512

    def __init__(self, labels: Sequence[str] = ("neg", "pos")) -> None:
        self.task = SequenceClassification(labels)
        self.asked = 0

    def tokenise(self, asked: Sequence[Question]) -> list[Tokens]:
        return [Tokens([len(one.text)]) for one in asked]

    def answers(self, rows: Sequence[Tokens], options: Mapping[str, Any], heard: Any = None) -> Any:
        return answers_of(self, rows, options)

    def outputs(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        self.asked += len(rows)
        width = self.task.answer.width
        return np.asarray([[row.ids[0] % 7 - place for place in range(width)] for row in rows], np.float32)


def read(path: Path) -> list[Row]:
    with path.open("rb") as stream:
        return [row for _, row in format_of(path).read(stream, str(path))]


def predict(source: Path, target: Path, labels: Sequence[str] = ("neg", "pos")) -> list[Row] | None:
    """The rows of the target, or None where it is refused: before the first answer, in one line, leaving nothing."""
    backend = Answers(labels)
    target.unlink(missing_ok=True)
    try:
        count = Predictor(backend).predict_file(source, target)
    except (DataError, ConfigError) as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(source))
        assert backend.asked == 0
        assert not target.exists()
        return None
    rows = read(target)
    assert len(rows) == count == backend.asked
    return rows


def own(row: Row, labels: Sequence[str] = ("neg", "pos")) -> Row:
    """What was added to a row, checked."""
    nested = row.get("probabilities")
    shares = nested if isinstance(nested, dict) else {name: float(row[f"probability_{name}"]) for name in labels}
    assert [*shares] == [*labels]
    assert math.isclose(sum(shares.values()), 1, abs_tol=1e-5)
    assert shares[row["prediction"]] == max(shares.values())
    added = ["prediction", "probabilities"] if isinstance(nested, dict) else ["prediction", *row][-len(labels) :]
    assert [*row][-len(added) :] == added or not isinstance(nested, dict)
    names = {"prediction", "probabilities", *(f"probability_{name}" for name in labels)}
    return {name: value for name, value in row.items() if name not in names}


def as_cell(value: Any, ending: str = "csv") -> str:
    """What a file of nothing but texts says for a value; a workbook's numbers don't say whether they are whole."""
    if ending == "xlsx" and isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return str(int(value))
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=as_cell)


def without_missing(value: Any) -> Any:
    """A value with what is missing left out of its objects, comparable where it holds NaN."""
    if isinstance(value, dict):
        return {name: without_missing(one) for name, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [without_missing(one) for one in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def require_same(before: Sequence[Row], after: Sequence[Row], ending: str) -> None:
    columns = list(dict.fromkeys(name for row in before for name in row))
    if ending in TEXTS:
        for name in columns:  # these can't tell an empty text from none, so no file has both in one column
            cells = [row.get(name) for row in before]
            assert not ("" in cells and None in cells)
        assert [own(row) for row in after] == [
            {name: as_cell(row.get(name), ending) for name in columns} for row in before
        ]
    elif ending == "jsonl":
        assert json.dumps([own(row) for row in after]) == json.dumps(before, default=as_cell)
    else:
        assert [without_missing(own(row)) for row in after] == [without_missing(row) for row in before]
        assert not before or [*own(after[0])] == columns


# What people have: every one of these was lost, broken or a traceback.


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["nested", "optional"])
def test_row_73_optional_and_nested_keys(name: str, ending: str, tmp_path: Path) -> None:
    rows: list[Row] = [{"text": "one"}, {"text": "two", "note": "keep me"}, {"text": "three", "other": 3}]
    if name == "nested":
        rows = [
            {"text": "one", "meta": {"id": 0, "lang": "en"}, "tags": ["a"]},
            {"text": "two", "meta": {"more": None}},
        ]
    after = predict(tiny.save_jsonl(tmp_path / "in.jsonl", rows), tmp_path / f"out.{ending}")
    assert after is not None
    require_same(rows, after, ending)
    if (path := CASES / f"{name}.jsonl").is_file():
        after = predict(path, tmp_path / f"out.{ending}")
        assert after is not None
        require_same(read(path), after, ending)


@pytest.mark.parametrize(
    ("values", "endings"),
    [
        ([1, "one"], "csv tsv jsonl"),
        ([1, 2.5], "csv tsv jsonl parquet"),
        ([2**53 + 1, 2.5], "csv tsv jsonl"),
        ([True, 1], "csv tsv jsonl"),
        ([2**70, 1], "csv tsv jsonl"),
        ([[1], ["a"]], "csv tsv jsonl"),
        ([{"a": 1}, {"a": "b"}], "csv tsv jsonl"),
        ([[], {}], "csv tsv jsonl"),
        ([{}, {}], "csv tsv jsonl arrow"),
        ([[], []], "csv tsv jsonl parquet"),
        ([None, None], "csv tsv jsonl parquet"),
        ([None, ""], "jsonl parquet"),
        (["a\tb", "c"], "csv tsv jsonl parquet"),
        (["a\r\nb", "\r"], "csv tsv jsonl parquet"),
        (['"whole"', '"'], "csv tsv jsonl parquet"),
        (['say "so"', ""], "csv tsv jsonl parquet"),
        (["a\0b", ""], "jsonl parquet"),
        (["\ud800", "x"], "jsonl"),
        ([float("inf"), 1.0], "csv tsv parquet"),
    ],
)
def test_row_73_what_each_format_holds(values: list[Any], endings: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {place}", "value": value} for place, value in enumerate(values)]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps(row).replace("Infinity", "1e999") for row in rows))
    held = []
    for ending in ENDINGS:
        after = predict(source, tmp_path / f"out.{ending}")
        if after is not None:
            held.append(ending)
            require_same(rows, after, ending)
    expected = endings.replace("parquet", "parquet arrow").replace("tsv", "tsv xlsx").split()
    assert held == [one for one in ENDINGS if one in expected]


def test_row_73_the_message_names_the_row_and_a_format_that_holds_it(tmp_path: Path) -> None:
    rows = [{"text": "a", "value": 1}, {"text": "b", "value": "x"}]
    source = tiny.save_jsonl(tmp_path / "in.jsonl", rows)
    with pytest.raises(DataError, match=r"the column 'value' holds values of two types .*write \.jsonl"):
        Predictor(Answers()).predict_file(source, tmp_path / "out.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "raw": [None, b"x"]}), tmp_path / "in.parquet")
    for ending in (*TEXTS, "jsonl"):
        with pytest.raises(DataError, match=r"row 2: the column 'raw' holds bytes, .*write \.parquet"):
            Predictor(Answers()).predict_file(tmp_path / "in.parquet", tmp_path / f"out.{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_row_31_a_column_of_nearly_the_name_is_offered(ending: str, tmp_path: Path) -> None:
    source = save(tmp_path / f"in.{ending}", [{"TEXT": "a", "n": "1"}])
    with pytest.raises(DataError, match=r"no column 'text' \(did you mean 'TEXT'\?\); it has 'TEXT', 'n'; set --col"):
        Predictor(Answers()).predict_file(source, tmp_path / "out.jsonl")
    assert Predictor(Answers()).predict_file(source, tmp_path / "out.jsonl", column="TEXT") == 1


@pytest.mark.parametrize(
    ("column", "refusing"),
    [
        ("prediction", ENDINGS),
        ("probabilities", ("jsonl", *TYPED)),
        ("probability_pos", TEXTS),
        ("probability_", ()),
    ],
)
@pytest.mark.parametrize("source", ENDINGS)
def test_row_73_no_column_is_overwritten(column: str, refusing: Sequence[str], source: str, tmp_path: Path) -> None:
    rows = [{"text": "a", column: "mine"}, {"text": "b", column: "mine too"}]
    path = save(tmp_path / f"in.{source}", rows)
    for ending in ENDINGS:
        after = predict(path, tmp_path / f"out.{ending}")
        assert (after is None) == (ending in refusing)
        if after is not None:
            assert [row[column] for row in after] == ["mine", "mine too"]


def test_row_73_a_key_of_a_later_row_is_not_overwritten_either(tmp_path: Path) -> None:
    path = tiny.save_jsonl(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b", "prediction": "mine"}])
    for ending in ENDINGS:
        assert predict(path, tmp_path / f"out.{ending}") is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_row_73_no_rows(ending: str, tmp_path: Path) -> None:
    empty = pa.schema([("id", pa.int32()), ("text", pa.string()), ("at", pa.timestamp("us", "UTC"))])
    pq.write_table(empty.empty_table(), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("id,text,at\n")
    (tmp_path / "in.jsonl").write_text("")
    for source in ("in.parquet", "in.csv", "in.jsonl"):
        out = tmp_path / f"out.{ending}"
        assert predict(tmp_path / source, out) == []
        given = [] if source == "in.jsonl" else ["id", "text", "at"]
        if ending == "xlsx":
            header = [cell.value for cell in openpyxl.load_workbook(out).active[1]]
            assert header == [*given, "prediction", "probability_neg", "probability_pos"]
        elif ending in TEXTS:
            with out.open(newline="") as stream:
                header = next(csv.reader(stream, delimiter="," if ending == "csv" else "\t"))
            assert header == [*given, "prediction", "probability_neg", "probability_pos"]
        elif ending in TYPED:
            schema = table_of(out).schema
            assert schema.names == [*given, "prediction", "probabilities"]
            assert source != "in.parquet" or [schema.field(name) for name in given] == [*empty]
        else:
            assert out.read_bytes() == b""
    (tmp_path / "in.csv").write_text("id,words\n")
    assert predict(tmp_path / "in.csv", tmp_path / f"out.{ending}") is None


@pytest.mark.parametrize("labels", [["a\tb", 'c"d'], ["x,y", "é\n"], ['"q"', "r"], ["", "b"]])
@pytest.mark.parametrize("ending", ENDINGS)
def test_row_73_labels_of_any_name(labels: list[str], ending: str, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "bb"}]
    after = predict(tiny.save_jsonl(tmp_path / "in.jsonl", rows), tmp_path / f"out.{ending}", labels)
    if ending == "tsv" and "\t" in labels[0]:
        assert after is None  # the name of a column, which a header of TSV can't hold
        return
    assert after is not None
    assert [own(row, labels) for row in after] == rows


def test_row_73_the_output_is_a_file(tmp_path: Path) -> None:
    path = tiny.save_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "null.csv").symlink_to("/dev/null")
    for name in ("folder.csv", "null.csv"):
        with pytest.raises(ConfigError, match="not a regular file"):
            Predictor(Answers()).predict_file(path, tmp_path / name)
    with pytest.raises(FeatherweightError, match="can't be written: No such file or directory"):
        Predictor(Answers()).predict_file(path, tmp_path / "missing" / "out.csv")
    assert Path("/dev/null").is_char_device()


def test_row_73_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    source = tiny.save_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    backend = Answers()
    answer = backend.outputs

    def meanwhile(texts: list[str]) -> NDArray[np.float32]:
        with source.open("a") as stream:
            stream.write('{"text": "b"}\n')
        return answer(texts)

    backend.outputs = meanwhile  # type: ignore[method-assign]
    with pytest.raises(DataError, match="changed while it was read"):
        Predictor(backend).predict_file(source, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# Everything that there is.

nasty = st.text(st.sampled_from("a \"',;|\t\r\n\0\ufeff#=\\{}[]é\u2028\ud800\U0001f600"), max_size=6)
words = st.one_of(st.text(max_size=8), nasty, st.sampled_from(["", "sep=;", "1", "true", "null", "text", "nan"]))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False, allow_infinity=False), words
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
keys = st.lists(words.filter(lambda name: name != "text"), max_size=4, unique=True)


@st.composite
def json_rows(draw: st.DrawFn) -> list[Row]:
    columns = {name: draw(st.sampled_from([leaves, values, words, st.integers()])) for name in draw(keys)}
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        kept = [name for name in columns if draw(st.booleans())]
        rows.append({"text": draw(words), **{name: draw(columns[name]) for name in kept}})
    return rows


def save(path: Path, rows: Sequence[Row]) -> Path:
    """As other programs write such files."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([*rows]), path)
    elif path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        book.active.append([*dict.fromkeys(name for row in rows for name in row)])
        for row in rows:
            book.active.append([*row.values()])
        book.save(path)
    elif path.suffix == ".arrow":
        feather.write_feather(pa.Table.from_pylist([*rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as stream:
            delimiter = "," if path.suffix == ".csv" else "\t"
            writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(dict.fromkeys(name for row in rows for name in row))
            writer.writerows(row.values() for row in rows)
    return path


@many
@given(rows=json_rows(), ending=st.sampled_from(ENDINGS))
@example(rows=[{"text": "", "\ufeffa": ""}], ending="csv")
@example(rows=[{"text": "x", "a;b": "1;2"}, {"text": "y", "a;b": "3;4"}], ending="csv")
@example(rows=[{"text": '"all"'}, {"text": '"quoted"'}], ending="tsv")
def test_row_73_json_lines_into_every_format(
    rows: list[Row], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("case")
    after = predict(save(folder / "in.jsonl", rows), folder / f"out.{ending}")
    if after is not None:
        require_same(rows, after, ending)
    else:
        assert ending != "jsonl" or any("prediction" in row or "probabilities" in row for row in rows)


@many
@given(data=st.data(), source=st.sampled_from(["csv", "tsv"]), ending=st.sampled_from(ENDINGS))
def test_row_73_tables_into_every_format(
    data: st.DataObject, source: str, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    columns = ["text", *data.draw(keys)]
    cells = st.fixed_dictionaries(dict.fromkeys(columns, words))
    folder = tmp_path_factory.mktemp("case")
    path = save(folder / f"in.{source}", data.draw(st.lists(cells, min_size=1, max_size=4)))
    try:
        rows = read(path)
    except DataError:  # a cell with NUL, or a table that its reader would have to guess at
        assume(False)
    assume(rows and "text" in rows[0])
    after = predict(path, folder / f"out.{ending}")
    if after is not None:
        require_same(rows, after, ending)
    else:
        assert ending in TEXTS or {"prediction", "probabilities"} & {*columns}


instants = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
ARROW: list[tuple[pa.DataType, st.SearchStrategy[Any], str]] = [
    (pa.null(), st.none(), "csv tsv jsonl"),
    (pa.bool_(), st.booleans(), "csv tsv jsonl"),
    *((kind, st.integers(0, 100), "csv tsv jsonl") for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.uint64())),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1), "csv tsv jsonl"),
    (pa.float16(), st.floats(width=16, allow_nan=False, allow_infinity=False), "csv tsv jsonl"),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False), "csv tsv jsonl"),
    (pa.float64(), st.floats(), "csv tsv"),
    (pa.string(), st.text("ab é", min_size=1, max_size=5), "csv tsv jsonl"),
    (pa.large_string(), st.text("ab é", min_size=1, max_size=5), "csv tsv jsonl"),
    (pa.string_view(), st.text("ab é", min_size=1, max_size=5), "csv tsv jsonl"),
    (pa.binary(), st.binary(max_size=5), "none"),
    (pa.large_binary(), st.binary(max_size=5), "none"),
    (pa.binary(3), st.binary(min_size=3, max_size=3), "none"),
    (pa.date32(), st.dates(), "csv tsv jsonl"),
    (pa.time32("ms"), st.times().map(lambda one: one.replace(microsecond=0)), "csv tsv jsonl"),
    (pa.time64("us"), st.times(), "csv tsv jsonl"),
    (pa.time64("ns"), st.integers(0, 86_399_999_999_999), "none"),
    *((pa.timestamp("us", zone), instants, "csv tsv jsonl") for zone in (None, "UTC", "Europe/Berlin", "+05:30")),
    (pa.timestamp("ns"), st.integers(-(2**62), 2**62), "csv tsv jsonl"),
    (pa.timestamp("us"), st.integers(-(2**63) + 1, 2**63 - 1), "csv tsv jsonl"),
    (pa.duration("us"), st.timedeltas(dt.timedelta(-9), dt.timedelta(9)), "none"),
    (pa.duration("ns"), st.integers(0, 10**9), "none"),
    (pa.decimal128(12, 3), st.decimals(-999, 999, places=3), "csv tsv jsonl"),
    (pa.decimal256(50, 0), st.decimals(-999, 999, places=0), "csv tsv jsonl"),
    (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", "y"]), "csv tsv jsonl"),
    (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=3), "csv tsv jsonl"),
    (pa.large_list(pa.string()), st.lists(st.text("a", max_size=2), max_size=3), "csv tsv jsonl"),
    (pa.list_(pa.int64(), 2), st.lists(st.integers(0, 9), min_size=2, max_size=2), "csv tsv jsonl"),
    (pa.list_(pa.timestamp("us")), st.lists(instants, max_size=2), "csv tsv jsonl"),
    (pa.struct([("a", pa.int64()), ("b", pa.string())]), st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.text("ab")}), "csv tsv jsonl"),
    (pa.struct([("raw", pa.binary())]), st.fixed_dictionaries({"raw": st.binary(max_size=2)}), "none"),
    (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(st.text("ab", max_size=2), st.integers(0, 9)), max_size=2), "none"),
    (pa.uuid(), st.binary(min_size=16, max_size=16), "none"),
]  # fmt: skip


@many
@given(data=st.data(), ending=st.sampled_from(ENDINGS))
def test_row_73_parquet_into_every_format(
    data: st.DataObject, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("case")
    names = [
        "text",
        *data.draw(st.lists(words.filter(is_utf8), max_size=3, unique=True).filter(lambda n: "text" not in n)),
    ]
    rows = data.draw(st.integers(0, 5))
    columns = [pa.array(data.draw(st.lists(st.text("ab", min_size=1), min_size=rows, max_size=rows)), pa.string())]
    for _ in names[1:]:
        kind, made, _ = data.draw(st.sampled_from(ARROW))
        found = data.draw(st.lists(st.one_of(st.none(), made), min_size=rows, max_size=rows))
        columns.append(arrow(found, kind))
    schema = pa.schema(
        [pa.field(name, one.type, metadata={"note": "kept"}) for name, one in zip(names, columns, strict=True)],
        metadata={"file": "kept"},
    )
    table = pa.Table.from_arrays(columns, schema=schema)
    pq.write_table(table, folder / "in.parquet", row_group_size=2)
    after = predict_table(folder, ending)
    if ending in TYPED:
        if after is None:
            assert {"prediction", "probabilities"} & {*names}
            return
        written = table_of(folder / f"out.{ending}")
        assert written.schema.metadata[b"file"] == b"kept"
        before = as_written(table_of(folder / "in.parquet"), ending)
        assert written.select(range(len(names))).equals(before, check_metadata=False)
        assert written.schema.names == [*names, "prediction", "probabilities"]
        assert [written.schema.field(i).type for i in range(len(names))] == before.schema.types
    elif after is not None:
        require_same(read(folder / "in.parquet"), after, ending)


def predict_table(folder: Path, ending: str) -> list[Row] | None:
    """As ``predict``, where the target may hold what Python has no value for."""
    if ending not in TYPED:
        return predict(folder / "in.parquet", folder / f"out.{ending}")
    try:
        Predictor(Answers()).predict_file(folder / "in.parquet", folder / f"out.{ending}")
    except DataError:
        return None
    return []


def table_of(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path.read_bytes()).read_all()


def as_written(table: pa.Table, ending: str) -> pa.Table:
    """Arrow's own format holds the values of categories in their place."""
    for place, one in enumerate(table.schema):
        if ending == "arrow" and pa.types.is_dictionary(one.type):
            plain = one.with_type(one.type.value_type)
            table = table.set_column(place, plain, table.column(place).cast(plain.type))
    return table


def arrow(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    whole = any(isinstance(one, int) and not isinstance(one, bool) for one in values)
    if whole and (pa.types.is_temporal(kind)):
        return pa.array(values, pa.int64()).view(kind)
    return pa.array(values, kind)


def is_utf8(name: str) -> bool:
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


EXAMPLES: dict[pa.DataType, Any] = {
    pa.float64(): math.nan,
    pa.binary(): b"\xff",
    pa.large_binary(): b"\xff",
    pa.binary(3): b"\xff\0\n",
    pa.string(): "x",
    pa.large_string(): "x",
    pa.string_view(): "x",
    pa.null(): None,
    pa.bool_(): True,
    pa.date32(): dt.date(2026, 1, 2),
    pa.time32("ms"): dt.time(1, 2, 3),
    pa.time64("us"): dt.time(1, 2, 3, 4),
    pa.time64("ns"): 1,
    pa.timestamp("ns"): 1_700_000_000_123_456_789,
    pa.timestamp("us"): dt.datetime(2026, 1, 2, 3, 4, 5, 6),
    pa.duration("us"): dt.timedelta(1),
    pa.decimal128(12, 3): Decimal("1.100"),
    pa.decimal256(50, 0): Decimal(10),
    pa.dictionary(pa.int32(), pa.string()): "x",
    pa.list_(pa.int64()): [1, None],
    pa.large_list(pa.string()): ["a"],
    pa.list_(pa.int64(), 2): [1, 2],
    pa.list_(pa.timestamp("us")): [dt.datetime(2026, 1, 2)],
    pa.struct([("a", pa.int64()), ("b", pa.string())]): {"a": 1, "b": "x"},
    pa.struct([("raw", pa.binary())]): {"raw": b"\xff"},
    pa.map_(pa.string(), pa.int64()): [("k", 1), ("k", 2)],
    pa.uuid(): b"0123456789abcdef",
}


@pytest.mark.parametrize(("kind", "held"), [(kind, held) for kind, _, held in ARROW], ids=str)
def test_row_73_every_type_of_arrow(kind: pa.DataType, held: str, tmp_path: Path) -> None:
    """What must come through elsewhere does, so that refusing everything would not pass."""
    zoned = pa.types.is_timestamp(kind) and kind.tz
    value = dt.datetime(2026, 7, 2, 3, 4, 5, 6, dt.UTC) if zoned else EXAMPLES.get(kind, 1)
    pq.write_table(pa.table({"text": ["a", "b"], "value": arrow([value, None], kind)}), tmp_path / "in.parquet")
    before = pq.read_table(tmp_path / "in.parquet")
    for ending in TYPED:
        assert predict_table(tmp_path, ending) is not None
        written = table_of(tmp_path / f"out.{ending}").select(["text", "value"])
        assert written.schema == as_written(before, ending).schema
        assert written["value"].slice(1).null_count == 1
        assert str(written["value"][0]) == str(before["value"][0])  # NaN is not equal to itself
    for ending in (*TEXTS, "jsonl"):
        after = predict(tmp_path / "in.parquet", tmp_path / f"out.{ending}")
        assert (after is not None) == (ending.replace("xlsx", "csv") in held.split())
        if after is not None:
            require_same(read(tmp_path / "in.parquet"), after, ending)


# A pipe.


@pytest.mark.slow
def test_row_73_a_pipe_is_refused_before_the_first_answer_too(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, pipe_run: Path
) -> None:
    good = "".join(json.dumps({"text": f"text {place}", "id": place}) + "\n" for place in range(3))
    ended = cli("predict", pipe_run, "--input", "-", input=good)
    assert ended.returncode == 0, ended.stderr
    assert [json.loads(line)["id"] for line in ended.stdout.splitlines()] == [0, 1, 2]
    into = cli("predict", pipe_run, "--input", "-", "--output", "out.csv", input=good)
    assert into.returncode == 0, into.stderr
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["0", "1", "2"]
    bad = good + json.dumps({"text": "x", "prediction": "mine"}) + "\n"
    ended = cli("predict", pipe_run, "--input", "-", input=bad)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "row 4" in ended.stderr or "'prediction'" in ended.stderr


@pytest.fixture(scope="module")
def pipe_run(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from featherweight import recipe as recipes
    from featherweight import workflow

    folder = tmp_path_factory.mktemp("run") / "pipe"
    workflow.run(recipes.parse(tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})), folder)
    return folder
