"""Data files that are damaged or in another form than they should be: fault list rows 32, 34, 35, 36 and 48."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_faults_data import HEADER, prepare, read, refused, write

# Row 32: broken JSON lines; some may be left out, and are counted.


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"text": "cut', "line 2"),
        ('{"text": NaN, "label": "a"}', "NaN"),
        ('{"text": "a", "text": "b", "label": "a"}', "'text' appears twice"),
        ('{"text": "\\q", "label": "a"}', "line 2"),
        ('["a"]', "a JSON object"),
    ],
)
def test_row_32_broken_json_lines(line: str, named: str, tmp_path: Path) -> None:
    good = json.dumps({"text": "good", "label": "b"})
    refused(write(tmp_path / "t.jsonl", f"{good}\n{line}\n{good}\n"), named)


def broken_jsonl(path: Path, good: int, bad: int) -> Path:
    lines = [json.dumps(row) for row in tiny.rows(good)]
    for index in range(bad):
        lines.insert(2 + index * 3, '{"text": "cut')
    return write(path, "\n".join(lines))


def test_row_32_bad_rows_are_left_out_up_to_the_cap(tmp_path: Path) -> None:
    path = broken_jsonl(tmp_path / "t.jsonl", 200, 2)
    refused(path, "line 3", "--skip-bad-rows")
    _, examples = prepare(path, skip_bad_rows=0.01)
    assert sum(len(split) for split in examples.values()) == 200
    assert examples["train"].skipped == 2
    assert 2 not in [*examples["train"].ids, *examples["validation"].ids]  # rows keep their numbers
    refused(broken_jsonl(tmp_path / "u.jsonl", 200, 4), "line 3", "4 such rows beside 200", "1.00%", skip_bad_rows=0.01)
    ragged = write(tmp_path / "t.csv", HEADER + "a,b,c\n" + "word,neg\nother,pos\n" * 60)
    refused(ragged, "line 2", "--skip-bad-rows")
    assert prepare(ragged, skip_bad_rows=0.01)[1]["train"].skipped == 1


def test_row_32_an_open_quote_is_no_bad_row(tmp_path: Path) -> None:
    """It swallows the rows after it, so leaving one out would leave out many."""
    refused(
        write(tmp_path / "t.csv", HEADER + "a,b\n" * 200 + '"open,b\n' + "c,d\n" * 50), "line 202", skip_bad_rows=0.5
    )


def test_row_32_and_35_from_the_command_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    broken_jsonl(tmp_path / "t.jsonl", 200, 2)
    assert cli("inspect", "data", "t.jsonl").returncode == 3
    shown = json.loads(cli("inspect", "data", "t.jsonl", "--skip-bad-rows", "--json").stdout)
    assert shown["splits"]["train"]["rows"] == 200
    assert cli("inspect", "data", "t.jsonl", "--skip-bad-rows", "0.001").returncode == 3
    write(tmp_path / "t.csv", (HEADER + "caf\xe9 great,pos\nbad,neg\n" * 20).encode("cp1252"))
    refused_ = cli("inspect", "data", "t.csv")
    assert (refused_.returncode, "--encoding" in refused_.stderr) == (3, True)
    assert cli("inspect", "data", "t.csv", "--encoding", "cp1252").returncode == 0
    wrong = cli("inspect", "data", "t.csv", "--encoding", "no-such-code")
    assert (wrong.returncode, "no-such-code" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1", "shift_jis", "gb18030"])
def test_row_35_a_named_encoding_is_decoded(encoding: str, tmp_path: Path) -> None:
    word = {"shift_jis": "\u6620\u753b", "gb18030": "\u7535\u5f71\U0001f3ac"}.get(encoding, "caf\xe9")
    content = HEADER + f"{word} x,neg\nb,pos\n" * 30_000
    path = write(tmp_path / "t.csv", content.encode(encoding))
    _, examples = prepare(path, encoding=encoding)
    assert {text for split in examples.values() for text in split.all_texts()} == {f"{word} x", "b"}


@pytest.mark.parametrize(
    ("content", "encoding", "offset"),
    [
        (HEADER.encode() + b"caf\x81,neg\n", "cp1252", len(HEADER) + 3),
        ((HEADER + "a,neg\n").encode("utf-16") + b"\x00\xd8a\0", "utf-16", 2 + 2 * len(HEADER + "a,neg\n")),
        ((HEADER + "a\0,neg\n").encode("utf-16"), "utf-16", 2 + 2 * len(HEADER + "a")),
        (HEADER.encode("utf-16")[:-1], "utf-16", None),
    ],
)
def test_row_35_a_named_encoding_is_strict(content: bytes, encoding: str, offset: int | None, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", content)
    refused(path, f"offset {offset} " if offset else "offset", encoding=encoding)


# Row 36: everything that Unicode has.


def test_row_36_unicode_passes_through(tmp_path: Path) -> None:
    texts = [
        "\U0001f469\u200d\U0001f680 great",
        "\u05e9\u05dc\u05d5\u05dd",
        "e\u0301",
        "\u00e9",
        "\u202eabc",
        "\ud800x",
    ]
    path = write(
        tmp_path / "t.jsonl",
        "\n".join(json.dumps({"text": text, "label": "ab"[index % 2]}) for index, text in enumerate(texts * 4)),
    )
    _, examples = prepare(path)
    read_back = {text for split in examples.values() for text in split.all_texts()}
    assert read_back == {*texts[:5], "?x"}  # a lone surrogate has no UTF-8 form


def test_row_36_the_forms_of_one_text_are_reported_as_repeats(cli: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        *tiny.rows(20),
        {"text": "caf\u00e9 noir et blanc", "label": "pos"},
        {"text": "cafe\u0301 noir et blanc", "label": "pos"},
    ]
    tiny.save_csv(tmp_path / "a.csv", tiny.rows(20))
    before = json.loads(cli("inspect", "data", "a.csv", "--json").stdout)["splits"]["train"]
    tiny.save_csv(tmp_path / "a.csv", rows)
    after = json.loads(cli("inspect", "data", "a.csv", "--json").stdout)["splits"]["train"]
    assert sum(after[key] - before[key] for key in after if "repeat" in key or "normal" in key) >= 1


# Row 34.


def test_row_34_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    content = (HEADER + "ä,neg\nb,pos\n").encode()
    assert read(write(tmp_path / "a.csv", content)) == read(write(tmp_path / "b.csv", b"\xef\xbb\xbf" + content))


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ((HEADER + "ä,neg\n").encode("utf-16"), 0),
        (HEADER.encode() + "caf\xe9,neg\n".encode("latin-1"), len(HEADER) + 3),
        (HEADER.encode() + b"a\0b,neg\n", len(HEADER) + 1),
        (HEADER.encode() + b"x" * (1 << 21) + b"\xff,neg\n", len(HEADER) + (1 << 21)),
    ],
)
def test_row_35_other_encodings_are_refused_with_the_offset(content: bytes, offset: int, tmp_path: Path) -> None:
    refused(write(tmp_path / "t.csv", content), f"offset {offset} ", "UTF-8", "--encoding")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: __import__("os").mkfifo(path)])
def test_row_48_what_is_no_file_is_refused_without_hanging(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    make(path)
    refused(path, "not a regular file")
    (tmp_path / "link.csv").symlink_to(path)
    refused(tmp_path / "link.csv", "not a regular file")


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "nowhere.csv"])
def test_row_48_a_link_to_what_is_no_file_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").symlink_to(target)
    refused(tmp_path / "t.csv", "t.csv")


def test_row_48_from_the_command_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    for name, code in (("/dev/zero", 3), (str(tmp_path), 2)):
        ended = cli("inspect", "data", name, timeout=60)
        assert ended.returncode == code
        assert len(ended.stderr.strip().splitlines()) == 1
