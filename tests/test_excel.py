"""Excel workbooks, as people have them: what CSV would have for each cell, or one line. Fault list row 98."""

from __future__ import annotations

import datetime as dt
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import tiny

from featherweight.errors import ConfigError, DataError
from featherweight.sources import data
from featherweight.sources.formats import Reading, format_of, opened, xlsx
from featherweight.tasks.columns import LabelColumns, NumberColumns
from featherweight.tasks.regression import Regression
from featherweight.tasks.sequence_classification import SequenceClassification

SHEET, STRINGS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"


def book(path: Path, *sheets: Sequence[Sequence[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for place, rows in enumerate(sheets):
        sheet = made.create_sheet(f"Sheet {place + 1}")
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def reviews(path: Path, count: int = 40) -> Path:
    return book(path, [["text", "label"], *([row["text"], row["label"]] for row in tiny.rows(count))])


def read(path: Path, **how: Any) -> list[dict[str, Any]]:
    with opened(path) as (reader, stream):
        return [row for _, row in reader.read(stream, str(path), Reading(**how))]


def refused(path: Path, *named: str, **keys: Any) -> None:
    with pytest.raises(DataError) as caught:
        section = LabelColumns(train_file=str(path), **keys)
        SequenceClassification.prepare(data.load(section), section, seed=0)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *named):
        assert part in message, message


def changed(path: Path, part: str, change: Callable[[str], str]) -> Path:
    """The workbook with one of its parts written anew."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    parts[part] = change(parts.get(part, ""))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def as_excel_writes(path: Path) -> Path:
    """The workbook with its texts in a part of their own."""
    texts: list[str] = []

    def shared(found: re.Match[str]) -> str:
        texts.append(found[2])
        return f'<c{found[1]} t="s"><v>{len(texts) - 1}</v></c>'

    inline = re.compile(r'<c([^>]*) t="inlineStr"><is>(.*?)</is></c>', re.DOTALL)
    changed(path, SHEET, lambda xml: inline.sub(shared, xml))
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    changed(path, STRINGS, lambda _: f'<sst xmlns="{space}">{"".join(f"<si>{text}</si>" for text in texts)}</sst>')
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    override = f'<Override PartName="/{STRINGS}" ContentType="{kind}" /></Types>'
    return changed(path, "[Content_Types].xml", lambda xml: xml.replace("</Types>", override))


def test_row_98_texts_in_a_part_of_their_own(tmp_path: Path) -> None:
    path = reviews(tmp_path / "t.xlsx")
    before = read(path)
    assert "inlineStr" not in zipfile.ZipFile(as_excel_writes(path)).read(SHEET).decode()
    assert read(path) == before == tiny.rows(40)
    changed(path, STRINGS, lambda xml: xml.replace(f">{before[0]['text']}<", ">a_x000D_\nb<"))
    assert read(path)[0]["text"] == "a\r\nb", "as Excel keeps a carriage return"


def test_row_98_a_cell_is_what_csv_has_for_it(tmp_path: Path) -> None:
    cells = {
        "whole": (1, "1"),
        "whole as Excel keeps it": (1.0, "1"),
        "number": (2.5, "2.5"),
        "large": (1e300, "1e+300"),
        "yes": (True, "true"),
        "date": (dt.date(2024, 5, 1), "2024-05-01"),
        "date of a cell": (dt.datetime(2024, 5, 1), "2024-05-01"),
        "instant": (dt.datetime(2024, 5, 1, 3, 4, 5), "2024-05-01T03:04:05"),
        "time": (dt.time(3, 4), "03:04:00"),
        "digits that are text": ("007", "007"),
        "empty": (None, ""),
        "lines": ("a\nb", "a\nb"),
        "7": ("header that is a number", "header that is a number"),
        "last": ("x", "x"),
    }
    header = [int(name) if name.isdigit() else name for name in cells]
    row = [value for value, _ in cells.values()]
    path = book(tmp_path / "t.xlsx", [[], header, [], row, [None, ""], ["short"], []], [], [[None]])
    wanted = [{name: text for name, (_, text) in cells.items()}, dict.fromkeys(cells, "") | {"whole": "short"}]
    assert read(path) == wanted
    assert len(read(changed(path, SHEET, lambda xml: xml.replace('ref="A1:N6"', 'ref="A1"')))) == 2, "a wrong size"


def test_row_98_labels_are_read_as_those_of_a_csv_file(tmp_path: Path) -> None:
    rows = [[f"word {place}", float(place % 2), place / 4] for place in range(40)]
    path = book(tmp_path / "t.xlsx", [["text", "label", "score"], *rows])
    section = LabelColumns(train_file=str(path))
    task, examples = SequenceClassification.prepare(data.load(section), section, seed=0)
    assert task.answer.names == ("0", "1")
    assert sum(map(len, examples.values())) == 40
    numbers = NumberColumns(train_file=str(path), label="score")
    _, examples = Regression.prepare(data.load(numbers), numbers, 0)
    assert sorted(value for one in examples.values() for value in one.truth.tolist()) == [row[2] for row in rows]
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(path, "t.xlsx")
    assert read(tmp_path / "t.zip") == read(path)


def test_row_98_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    rows = [["text", "label"], ["a", "b"]]
    refused(book(path, rows, [], rows), "2 sheets hold something ('Sheet 1', 'Sheet 3')")
    refused(book(path, [], []), "the workbook is empty")
    refused(book(path, [["text", "label"]]), "no rows")
    refused(book(path, [["text", "text", "label"], ["a", "b", "c"]]), "2 columns are named 'text'")
    refused(book(path, [*rows, [], ["a", "b", "c"]]), "row 2 (line 4 of the sheet): 3 cells where the header has 2")
    refused(book(path, [["Text", "label"], ["a", "b"]]), "did you mean 'Text'?")
    broken = [["text", "label", "other"], *[["a", "x", "#N/A"], ["b", "y", 1]] * 20]
    assert [row["other"] for row in read(book(path, broken))][:2] == ["#N/A", "1"]
    broken[3] = ["c", "#REF!", 1]
    refused(book(path, broken), "row 3 (line 4 of the sheet)", "B4 holds the error #REF!", "--skip-bad-rows")
    section = LabelColumns(train_file=str(path), skip_bad_rows=0.1)
    assert data.load(section)["train"].skipped == 1


def test_row_98_a_damaged_workbook_is_one_line(tmp_path: Path) -> None:
    path = as_excel_writes(reviews(tmp_path / "t.xlsx"))
    whole = path.read_bytes()
    for length in range(0, len(whole), 300):
        path.write_bytes(whole[:length])
        refused(path, "not a readable Excel file")
    refusals = 0
    for place in range(0, len(whole), 50):
        path.write_bytes(whole[:place] + b"\xff\0\xfe" + whole[place + 3 :])
        try:
            read(path)
        except DataError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 20
    path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    refused(path, "locked with a password, or an .xls file")
    for part in ("xl/workbook.xml", "xl/sharedStrings.xml", "xl/styles.xml"):
        path.write_bytes(whole)
        refused(changed(path, part, lambda xml: xml[: len(xml) // 2]), "not a readable Excel file")


def test_row_98_a_hostile_workbook_takes_no_more_than_its_size(tmp_path: Path) -> None:
    path = as_excel_writes(reviews(tmp_path / "t.xlsx"))
    whole = path.read_bytes()
    refused(
        changed(path, SHEET, lambda xml: xml.replace("<sheetData>", "<sheetData>" + " " * (80 << 20))), "unpacks to"
    )
    for number, named in [("999999999999999999", "rows"), ("x", "readable"), ("9" * 5000, "readable")]:
        path.write_bytes(whole)
        refused(changed(path, SHEET, lambda xml, n=number: xml.replace('<row r="3"', f'<row r="{n}"')), named)
    path.write_bytes(whole)
    refused(changed(path, SHEET, lambda xml: xml.replace('r="A3"', 'r="AAAAAAAAAA3"')), "not a readable Excel file")
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(12))
    dtd = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]>'
    for part in (SHEET, STRINGS):
        path.write_bytes(whole)

        def laughing(xml: str) -> str:
            start = xml.index("?>") + 2 if xml.startswith("<?xml") else 0
            return xml[:start] + dtd + xml[start:].replace("<v>0</v>", "<v>&l12;</v>").replace("<t>", "<t>&l12;", 1)

        refused(changed(path, part, laughing), "not a readable Excel file")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path.write_bytes(whole)
    entity = f'<!DOCTYPE x [<!ENTITY f SYSTEM "file://{secret}">]>'
    changed(
        path,
        STRINGS,
        lambda xml: entity + xml[xml.index("?>") + 2 if xml.startswith("<?xml") else 0 :].replace("<t>", "<t>&f;", 1),
    )
    try:
        assert "secret" not in str(read(path))
    except DataError as error:
        assert "secret" not in str(error)


def test_row_98_two_cells_far_apart_take_no_memory(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active["A1"], made.active["A1048576"] = "text", "x"
    made.save(tmp_path / "t.xlsx")
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from pathlib import Path\nfrom featherweight.sources.formats import opened\n"
        "path = Path(sys.argv[1])\n"
        "with opened(path) as (reader, stream): print([row for _, row in reader.read(stream, str(path))])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", limited, tmp_path / "t.xlsx"], capture_output=True, text=True, timeout=120
    )
    assert ended.stdout.strip() == "[{'text': 'x'}]", ended.stderr


def test_row_98_numbers_are_written_as_numbers_and_texts_are_no_formulas(tmp_path: Path) -> None:
    rows = [{"text": "=1+1", "n": 3, "f": 0.1, "b": True}, {"text": "#N/A", "n": 2**53 + 1, "f": -2.0, "b": False}]
    rows += [{"text": "a\r\nb ", "n": 0, "f": 1e-7, "b": True}, {"text": "@x", "n": -1, "f": 5e300, "b": True}]
    format = format_of("x.xlsx")
    writer = format.writer()
    for row in rows:
        writer.see(row)
    writer.settle([], [])
    stream = io.BytesIO()
    assert writer.write(stream, iter(rows)) == 4
    assert [row for _, row in format.read(stream, "x")] == [writer.plain(row) for row in rows]
    sheet = openpyxl.load_workbook(stream).active
    assert [cell.data_type for cell in sheet[2]] == ["s", "n", "n", "b"]
    assert [cell.value for cell in sheet[2]] == ["=1+1", 3, 0.1, True]
    assert sheet["B3"].value == str(2**53 + 1)
    with pytest.raises(xlsx.NotHeldError, match="more than 32,767 characters"):
        writer.see({"text": "x" * 40_000})


def test_row_98_without_the_library_one_line_says_which_extra(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews(tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    for call in (lambda: read(tmp_path / "t.xlsx"), lambda: format_of("x.xlsx").writer()):
        with pytest.raises(ConfigError, match=r"pip install 'featherweight\[xlsx\]'"):
            call()
    for command in (["--help"], ["predict", "--help"]):
        loaded = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "featherweight", *command], capture_output=True, text=True
        )
        assert loaded.returncode == 0
        assert "openpyxl" not in loaded.stderr


def test_row_98_from_the_command_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    reviews(tmp_path / "t.xlsx")
    ended = cli("inspect", "data", "t.xlsx", "--json")
    assert ended.returncode == 0, ended.stderr
    assert '"rows": 40' in ended.stdout
    assert cli("inspect", "data", "t.xls").returncode == 3
