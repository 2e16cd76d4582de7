"""A run, an adapter or a model as one file: ``.zip``, ``.tar``, ``.tar.gz``, ``.tgz``.

An archive is looked at as a whole before anything is written, and refused as a whole: names that lead elsewhere, links
and devices, names that a file system may take for one another, more entries or bytes than any run has. What passes is
unpacked into the cache, complete or absent, by code that makes only plain files and folders.
"""

from __future__ import annotations

import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from featherweight.errors import ModelError
from featherweight.storage import names
from featherweight.storage.cache import cached, file_hash, key_of

MAX_ENTRIES = 10_000
MAX_BYTES = 64 << 30
MAX_RATIO = 100  # weights and JSON hardly shrink; what shrinks more is nothing but zeros
_FREE_BYTES = 16 << 20  # below this much, no ratio is a danger
_MAX_DIRECTORY = 8 << 20
_MAX_PATH = 1_000  # characters of an entry's whole name
_MAX_EXTENDED = 64 << 10  # bytes of what a tar says of an entry beside its header
_MAX_ALL_EXTENDED = 4 << 20  # twice what GNU tar or Python write for as many entries as may be
_LONG_NUMBER = re.compile(rb"[0-9]{33}")
_LOCAL_HEADER = 30  # bytes of a zip's header before each entry, at least
_CHUNK = 1 << 20
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Entry:
    """What an archive says of a file or folder in it."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], Any]


def is_archive(name: str | Path) -> bool:
    """Whether the name is that of a file that can be unpacked."""
    return str(name).lower().endswith(_ENDINGS) and Path(name).is_file()


def unpacked(name: str | Path) -> Path:
    """The folder that a name means: that of an archive's content in the cache, or the path itself.

    Where everything in the archive is in one folder, that folder.

    Raises:
        ModelError: the archive is damaged, or holds what it must not.
        ResourceError: the cache can't be written.
    """
    path = Path(name)
    if not is_archive(path):
        return path
    with explained(path):
        key = key_of(file_hash(path))
        folder = cached("unpacked", key, lambda aside: _unpack(path, aside))
    inner = list(folder.iterdir())
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def _unpack(path: Path, folder: Path) -> None:
    opened = zip_entries if path.suffix.lower() == ".zip" else _tar_entries
    with explained(path):
        _check(path, opened(path))
        for entry in opened(path):
            target = folder.joinpath(*entry.name.split("/"))
            if entry.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, target.open("xb") as sink:
                if _copy(source, sink, entry.size) != entry.size:
                    raise ModelError(f"{path}: {entry.name!r} is cut short")


def _check(path: Path, entries: Iterator[Entry]) -> None:
    """Refuse the archive for its first entry that is wrong."""
    packed = path.stat().st_size
    seen: dict[str, bool] = {}
    total = 0
    for count, entry in enumerate(entries, start=1):
        if count > MAX_ENTRIES:
            raise ModelError(f"{path}: more than {MAX_ENTRIES:,} entries; no run or model has so many")
        if entry.size < 0:
            raise ModelError(f"{path}: the entry {_shown(entry.name)} has a size of {entry.size}")
        if len(entry.name) > _MAX_PATH:
            raise ModelError(f"{path}: the entry {_shown(entry.name)} is longer than {_MAX_PATH:,} characters")
        if found := names.path_problem(entry.name):
            raise ModelError(f"{path}: the entry {_shown(entry.name)} {found}; nothing was unpacked")
        total += entry.size
        if total > MAX_BYTES or total > max(_FREE_BYTES, MAX_RATIO * packed):
            raise ModelError(
                f"{path}: unpacks to more than {MAX_RATIO} times its {packed:,} bytes, or than {MAX_BYTES >> 30} GiB; "
                "nothing was unpacked"
            )
        _check_collision(path, entry, seen)
    if not seen:
        raise ModelError(f"{path}: the archive is empty")


def _check_collision(path: Path, entry: Entry, seen: dict[str, bool]) -> None:
    """Refuse two entries that are one file where case or Unicode's forms are not told apart, or a file as a folder."""
    parts = names.folded(entry.name).split("/")
    whole = "/".join(parts)
    parents = ["/".join(parts[:end]) for end in range(1, len(parts))]
    if (whole in seen and not (entry.is_folder and seen[whole])) or any(seen.get(one) is False for one in parents):
        raise ModelError(f"{path}: two entries are both {_shown(entry.name)} where case is not told apart")
    seen.update(dict.fromkeys(parents, True))
    seen[whole] = entry.is_folder


def zip_entries(path: Path) -> Iterator[Entry]:
    """What a zip file says is in it. Raises ModelError, or what ``explained`` makes one."""
    _require_short_directory(path)
    with zipfile.ZipFile(path) as archive:
        _refuse_overlaps(path, archive)
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise ModelError(f"{path}: the entry {_shown(info.filename)} is a link or device; nothing was unpacked")
            if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:  # others ask for any memory
                raise ModelError(f"{path}: the entry {_shown(info.filename)} is not packed by deflate; pack it again")
            if info.flag_bits & 0x1:
                raise ModelError(f"{path}: the entry {_shown(info.filename)} is encrypted; unpack it yourself")
            name = info.filename.removesuffix("/") if info.is_dir() else info.filename
            yield Entry(_relative(name), info.file_size, info.is_dir(), partial(archive.open, info))


def _tar_entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as raw:
        plain: Any = raw if path.suffix.lower() == ".tar" else gzip.GzipFile(fileobj=raw)
        bounded = _Bounded(plain)
        with tarfile.open(fileobj=bounded, mode="r:", tarinfo=_Header) as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members = []  # else every header stays in memory
                if member.isdir() and member.name == ".":
                    continue
                if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE} or member.sparse:
                    raise ModelError(
                        f"{path}: the entry {_shown(member.name)} is a link or device; nothing was unpacked"
                    )
                yield Entry(
                    _relative(member.name),
                    member.size,
                    member.isdir(),
                    partial(archive.extractfile, member),
                )


class _Bounded:
    """A stream that no header can make read, or skip, more than an archive may hold.

    Attributes:
        headers: that were met, with those that stand before the header of an entry.
        extended: bytes in those.
        in_pax: whether what is read next is one of those in the pax format.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.headers = self.extended = 0
        self.in_pax = False

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError("more than a mebibyte at once")
        content = self._stream.read(size)
        if self.in_pax and _LONG_NUMBER.search(content):  # tarfile would look through it in quadratic time
            raise tarfile.ReadError("an extended header with a number of more than 32 digits")
        self.in_pax = False
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset > MAX_BYTES:
            raise tarfile.ReadError("an entry larger than any file")
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


class _Header(tarfile.TarInfo):
    """A header, checked before tarfile acts on it: one may be preceded by others, which may hold anything."""

    def _proc_member(self, archive: Any) -> Any:
        stream: _Bounded = archive.fileobj
        stream.headers += 1
        if stream.headers > MAX_ENTRIES:
            raise tarfile.ReadError(f"more than {MAX_ENTRIES:,} entries, extended headers among them")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse()
        if self.type in (*_PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            stream.extended += self.size
            again = self.type == tarfile.XGLTYPE and archive.pax_headers  # what it holds is copied for each entry
            if not 0 <= self.size <= _MAX_EXTENDED or stream.extended > _MAX_ALL_EXTENDED or again:
                raise tarfile.ReadError(f"extended headers of more than {_MAX_EXTENDED:,} bytes")
        stream.in_pax = self.type in _PAX
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_00(self, *_: Any) -> None:
        raise _sparse()

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def _sparse() -> tarfile.ReadError:
    return tarfile.ReadError("a sparse entry; pack it again without --sparse")


def _refuse_overlaps(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse entries that lie within one another, of which a small file can hold any number."""
    end = archive.start_dir
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + _LOCAL_HEADER + info.compress_size > end:
            raise ModelError(
                f"{path}: the entry {_shown(info.filename)} overlaps what follows it; nothing was unpacked"
            )
        end = info.header_offset


def _require_short_directory(path: Path) -> None:
    """Refuse a zip whose table of entries is larger than so many entries need, before it is read into memory."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - 65_557 - 76))  # the longest comment, and the records before it
        tail = stream.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) < place + 22:
            raise ModelError(f"{path}: not a whole zip file")
        (length,) = struct.unpack("<L", tail[place + 12 : place + 16])
        if tail[max(0, place - 20) : place].startswith(b"PK\x06\x07"):
            record = tail[max(0, place - 76) : place - 20]
            length = struct.unpack("<Q", record[40:48])[0] if len(record) == 56 else _MAX_DIRECTORY + 1
    if length > _MAX_DIRECTORY:
        raise ModelError(f"{path}: more than {MAX_ENTRIES:,} entries; no run or model has so many")


def _copy(source: Any, sink: Any, size: int) -> int:
    copied = 0
    while copied < size and (chunk := source.read(min(_CHUNK, size - copied))):
        sink.write(chunk)
        copied += len(chunk)
    return copied


def _relative(name: str) -> str:
    """``./a/b`` as tar writes it is ``a/b``; all else stays as it is, to be refused."""
    return name.removeprefix("./")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "...")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the libraries raise for a damaged archive is a ModelError that names it."""
    try:
        yield
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, ValueError,
        struct.error, RuntimeError, OverflowError, UnicodeError, MemoryError,
    ) as error:  # fmt: skip
        raise ModelError(f"{path}: can't be unpacked: {error or type(error).__name__}") from None
