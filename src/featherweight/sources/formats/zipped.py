"""Data files within a zip file: ``reviews.zip`` where it holds one, ``reviews.zip/train.csv`` where it holds several.

What is said of a zip file is looked at before any of it is unpacked, by the rules of ``archives``; nothing is written
but a temporary file without a name, for formats that are not read from the start to the end.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from featherweight.errors import DataError, ModelError
from featherweight.sources import archives
from featherweight.sources.formats import compressed
from featherweight.storage.names import exists

SUFFIX = ".zip"
_SYSTEM = "__MACOSX"  # what macOS adds beside the files


def of(path: Path) -> Path | None:
    """The zip file that a path names, or leads into; None where it is of no such file."""
    possible = (one for one in (path, *path.parents) if one.suffix.lower() == SUFFIX)
    return next((one for one in possible if exists(one) and one.is_file()), None)


def entries(archive: Path) -> list[str]:
    """The names of the files within, but for hidden ones.

    Raises:
        DataError: the file is no zip file, or holds what can't be read safely.
    """
    try:
        with archives.explained(archive):
            found = [entry for entry in archives.zip_entries(archive) if not entry.is_folder]
    except ModelError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise DataError(f"{archive}: can't be read: {error.strerror}") from None
    names = [entry.name for entry in found if not _is_hidden(entry.name)]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{archive}: two entries are named {doubled!r}; pack it again")
    return names


@contextmanager
def opened(archive: Path, entry: str, *, streams: bool) -> Iterator[BinaryIO]:
    """The bytes of an entry.

    Args:
        streams: whether they are read from the start to the end, and so unpacked meanwhile.

    Raises:
        DataError: now, or while they are read: they are damaged, or more than any text of that size.
    """
    origin = str(archive / entry)
    with ExitStack() as stack:
        try:
            packed = stack.enter_context(zipfile.ZipFile(archive))
            inner = cast(BinaryIO, stack.enter_context(packed.open(entry)))
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
            raise DataError(f"{origin}: not a readable zip file: {error}") from None
        stream = cast(BinaryIO, compressed.Unpacked(inner, origin, "zip", archive.stat().st_size))
        if not streams:
            whole = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, whole)
            whole.seek(0)
            stream = cast(BinaryIO, whole)
        yield stream


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == _SYSTEM for part in name.split("/"))
