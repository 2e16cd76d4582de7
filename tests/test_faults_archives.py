"""Row 55: a run as one file. What is sound works like the folder; what is not is refused whole, and nothing escapes."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ModelError
from featherweight.inference.predictor import load_predictor
from featherweight.sources import archives

Members = list[tuple[str, bytes]]


def as_zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would mend some
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def as_tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in {".gz", ".tgz"} else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


WRITERS = [("x.zip", as_zip), ("x.tar", as_tar), ("x.tar.gz", as_tar), ("x.tgz", as_tar)]
every_format = pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])


@pytest.fixture
def nothing_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cache is empty afterwards, and so is all around it."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "deep" / "cache"))
    before = sorted(path.name for path in tmp_path.iterdir())
    yield
    assert not [path for path in (tmp_path / "deep").rglob("*") if path.name != "cache"]
    assert sorted({path.name for path in tmp_path.iterdir()} - {"deep", *(name for name, _ in WRITERS)}) == before


def refused(path: Path, named: str) -> None:
    with pytest.raises(ModelError) as caught:
        archives.unpacked(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@every_format
@pytest.mark.parametrize(
    "evil",
    [
        "../x", "a/../../x", "/tmp/x", "a//x", "..", "a/..", "C:\\x", "..\\x", "a\\..\\..\\x", "nul", "a/COM1.txt", "a. ",
        "a\x1b[2Jb", "n" * 300, "a:b",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_names_that_lead_elsewhere(evil: str, name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    refused(write(tmp_path / name, [("good", b"x"), (evil, b"x")]), "nothing was unpacked")


@every_format
@pytest.mark.parametrize("pair", [("a", "A"), ("\u00e4", "a\u0308"), ("a", "a"), ("a", "a/b"), ("a/b", "A")])
@pytest.mark.usefixtures("nothing_escapes")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_row_55_names_that_collide(pair: tuple[str, str], name: str, write: Any, tmp_path: Path) -> None:
    refused(write(tmp_path / name, [(one, b"x") for one in pair]), "two entries are both")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_links_and_devices_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, "../../etc/passwd"
        archive.addfile(info)
    refused(tmp_path / "x.tar", "sparse" if kind == tarfile.GNUTYPE_SPARSE else "link or device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_links_and_devices_in_a_zip(kind: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "../../etc/passwd")
    refused(tmp_path / "x.zip", "link or device")


@pytest.mark.parametrize(("name", "write"), [("x.zip", as_zip), ("x.tgz", as_tar)])
@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_bombs(name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    refused(write(tmp_path / name, [(f"{index}", bytes(8 << 20)) for index in range(4)]), "unpacks to more than")


@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_a_header_that_is_a_bomb(tmp_path: Path) -> None:
    """A tar's extended header is read into memory before any entry is known."""
    with tarfile.open(tmp_path / "x.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * (64 << 20)}
        archive.addfile(info)
    refused(tmp_path / "x.tgz", "extended headers of more than")


def header(kind: bytes, content: bytes, name: str = "x") -> bytes:
    """One member of a tar as bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def record(key: str, value: str) -> bytes:
    """A record of a pax header: its length, counted with itself, a key and a value."""
    rest = f" {key}={value}\n"
    length = len(rest) + 1
    while len(f"{length}{rest}") != length:
        length += 1
    return f"{length}{rest}".encode()


def each(count: int, before: bytes) -> bytes:
    """So many files of a byte, with the same in front of each."""
    return b"".join(before + header(tarfile.REGTYPE, b"x", f"file{number}") for number in range(count))


PAX, GLOBAL, LONG = tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME
SPARSE = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
MANY = b"".join(record(f"{number:x}", "") for number in range(4000))
TAR_BOMBS: dict[str, Callable[[], bytes]] = {
    "many records": lambda: each(2000, header(PAX, MANY)),
    "one long number": lambda: each(1, header(PAX, b"1" * 900_000)),
    "many long numbers": lambda: each(1200, header(PAX, record("a", "1" * 60_000))),
    "many headers in a row": lambda: each(1, header(PAX, record("a", "b")) * 70_000),
    "many headers": lambda: each(9000, header(PAX, record("a", "b")) * 3),
    "large global headers": lambda: header(GLOBAL, MANY) + each(1, header(GLOBAL, MANY)) + each(3000, b""),
    "long names": lambda: each(1200, header(LONG, b"x" * 60_000)),
    "a long name": lambda: header(LONG, b"/".join([b"a"] * 30_000)) + each(1, b""),
    "a map of a sparse file": lambda: (
        header(PAX, SPARSE) + header(tarfile.REGTYPE, b"999999999\n" + b"1\n" * (8 << 20), "file")
    ),
    "a sparse entry": lambda: header(tarfile.GNUTYPE_SPARSE, b"", "file") + bytes(8 << 20),
    "a size in an extended header": lambda: each(1, header(PAX, record("size", "9" * 5000))),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAR_BOMBS)
@pytest.mark.usefixtures("nothing_escapes")
def test_row_87_headers_of_a_tar_that_are_bombs(kind: str, tmp_path: Path) -> None:
    """Small files, packed, whose headers alone took up to minutes to read, or gigabytes."""
    (tmp_path / "x.tgz").write_bytes(gzip.compress(TAR_BOMBS[kind]() + bytes(1024), 1))
    assert (tmp_path / "x.tgz").stat().st_size < 10 << 20
    began = time.process_time()
    refused(tmp_path / "x.tgz", "x.tgz")
    assert time.process_time() - began < 8


@pytest.mark.usefixtures("nothing_escapes")
def test_row_87_entries_of_a_zip_that_overlap(tmp_path: Path) -> None:
    """A hundred entries of one content, each within the limits."""
    as_zip(tmp_path / "x.zip", [("a00", b"x" * 1000), ("b", b"y" * 100_000)])
    content = (tmp_path / "x.zip").read_bytes()
    begin, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    first = content[begin : content.index(b"PK\x01\x02", begin + 1)]
    entries = b"".join(first.replace(b"a00", b"a%02d" % number) for number in range(100))
    tail = bytearray(content[end:])
    tail[8:12] = struct.pack("<HH", 100, 100)
    tail[12:16] = struct.pack("<L", len(entries))
    (tmp_path / "x.zip").write_bytes(content[:begin] + entries + tail)
    refused(tmp_path / "x.zip", "overlaps")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.usefixtures("nothing_escapes")
def test_row_87_packings_that_ask_for_any_memory(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a", b"x" * 1000)
    refused(tmp_path / "x.zip", "not packed by deflate")


def test_row_87_what_archivers_write_beside_names_is_read(tmp_path: Path) -> None:
    """Long names and times in parts of a second, by pax and by GNU tar; a comment for all, as git has it."""
    names = [f"{'long' * 20}/{'name' * 20}/{number}" for number in range(1000)]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tgz"
        comment = {"comment": "a" * 40} if form == tarfile.PAX_FORMAT else None
        with tarfile.open(path, "w:gz", format=form, pax_headers=comment) as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.mtime, info.size = 1700000000.123456789, 1  # type: ignore[assignment]
                archive.addfile(info, io.BytesIO(b"x"))
        folder = archives.unpacked(path)
        assert sorted(one.name for one in folder.rglob("*") if one.is_file()) == sorted(map(str, range(1000)))


@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_a_size_that_lies(tmp_path: Path) -> None:
    as_zip(tmp_path / "x.zip", [("a", bytes(1000))])
    content = bytearray((tmp_path / "x.zip").read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = (100).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", "x.zip")
    as_tar(tmp_path / "x.tar", [("a", b"x" * 600)])
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[124:136] = b"\x80" + (2**60).to_bytes(11, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "x.tar").write_bytes(content)
    refused(tmp_path / "x.tar", "unpacks to more than")


def numbered_tar(path: Path, count: int) -> Path:
    """Empty files named by their number, as :func:`as_tar` writes them, at the speed of the disk."""
    header = np.frombuffer(tarfile.TarInfo("0" * 7).tobuf(), np.uint8)
    names, blocks = _numerals(np.arange(count), 10, 7), np.tile(header, (count, 1))
    blocks[:, :7] = names
    blank = int(header[:148].sum()) + 8 * ord(" ") + int(header[156:].sum())  # the field of the sum counts as spaces
    blocks[:, 148:154] = _numerals(blank + names.sum(1, dtype=np.int64) - 7 * ord("0"), 8, 6)
    path.write_bytes(blocks.tobytes() + bytes(1024))
    return path


def numbered_zip(path: Path, count: int) -> Path:
    """The same as :func:`as_zip` writes it."""
    one = as_zip(path, [("0" * 7, b"")]).read_bytes()
    ends = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    local, central = (np.frombuffer(part, np.uint8) for part in (one[: ends[0]], one[slice(*ends)]))
    locals_, centrals = (np.tile(part, (count, 1)) for part in (local, central))
    locals_[:, 30:37] = centrals[:, 46:53] = _numerals(np.arange(count), 10, 7)
    centrals[:, 42:46] = (np.arange(count) * len(local)).astype("<u4")[:, None].view(np.uint8)
    size, start = centrals.size, locals_.size
    end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start)
    end += b"PK\x06\x07" + struct.pack("<IQI", 0, start + size, 1)
    end += b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, size, start, 0)
    path.write_bytes(locals_.tobytes() + centrals.tobytes() + end)
    return path


def _numerals(values: Any, base: int, length: int) -> Any:
    return (values[:, None] // base ** np.arange(length - 1, -1, -1) % base + ord("0")).astype(np.uint8)


@pytest.mark.parametrize(("name", "write"), [("x.zip", numbered_zip), ("x.tar", numbered_tar)])
@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_a_million_entries(name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    few = [f"{number:07}" for number in range(1000)]
    assert sorted(one.name for one in archives.unpacked(write(tmp_path / name, 1000)).iterdir()) == few, "sound"
    shutil.rmtree(tmp_path / "deep")
    refused(write(tmp_path / name, 10**6), "entries")


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"\x1f\x8b" + bytes(40), bytes(2048), b"x" * 4096]
)
@pytest.mark.parametrize("name", [name for name, _ in WRITERS])
@pytest.mark.usefixtures("nothing_escapes")
def test_row_55_what_is_no_archive(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, name)


@every_format
def test_row_55_cut_short(name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / name, [("a", os.urandom(5000)), ("b", os.urandom(5000))])
    path.write_bytes(path.read_bytes()[:7000])
    refused(path, name)


@pytest.fixture(scope="module")
def finished(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    workflow.run(recipes.parse(tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})), folder)
    base = (folder / "recipe.toml").read_text().splitlines()
    lines = [f'name = "{models("bert")}"' if line.startswith("name") and "bert" in line else line for line in base]
    lines = [f'train_file = "{train_csv}"' if line.startswith("train_file") else line for line in lines]
    (folder / "recipe.toml").write_text("\n".join(lines))  # as with a hub id, the base is found from everywhere
    return folder


@every_format
@pytest.mark.parametrize("wrapped", [False, True])
def test_row_55_a_sound_archive_is_as_good_as_the_folder(
    name: str, write: Any, wrapped: bool, finished: Path, tmp_path: Path
) -> None:
    del write
    path = tmp_path / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for one in sorted(finished.rglob("*")):
                archive.write(one, Path("one", one.relative_to(finished)) if wrapped else one.relative_to(finished))
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
            archive.add(finished, "one" if wrapped else ".")
    answers = load_predictor(str(path)).predict(["great film"])
    assert answers == load_predictor(str(finished)).predict(["great film"])
    assert workflow.compare([str(path)])["comparisons"]
    assert workflow.evaluate(str(path))["n"] == workflow.evaluate(str(finished))["n"]


def test_row_55_from_the_command_line(finished: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    with tarfile.open(tmp_path / "run.tar.gz", "w:gz") as archive:
        archive.add(finished / "adapter", ".")
    ended = cli("predict", "run.tar.gz", "--text", "great film", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["predictions"]
    as_zip(tmp_path / "evil.zip", [("../x", b"")])
    ended = cli("predict", "evil.zip", "--text", "great film")
    assert ended.returncode == 4
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
