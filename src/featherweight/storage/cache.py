"""Derived files on disk, keyed by everything that they derive from, complete or absent.

What is in the cache is believed: a compiled library is run. So an entry is used only where nobody but this user and
root can have put it there, and a user who shares a cache with others gets a place of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from featherweight.errors import ResourceError
from featherweight.storage.whole import new_folder, remove_folder, sync, sync_tree


def cache_folder() -> Path:
    """Where this process puts what it derives; it exists.

    Raises:
        ResourceError: there is no folder that it can write and nobody else can.
    """
    return _places()[-1]


def problem() -> str | None:
    """Why this process does not write to the folder that the user chose, or None where it does."""
    wanted, place = next(_candidates()), cache_folder()
    if place == wanted.resolve():
        return None
    return f"{_stranger(wanted.resolve()) or f'{wanted} can not be written'}, so the cache is {place}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def key_of(*parts: Any) -> str:
    """A short stable name for JSON-able values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cached(
    kind: str, key: str, build: Callable[[Path], None], is_whole: Callable[[Path], bool] = lambda folder: True
) -> Path:
    """The folder ``kind-key`` in the cache, built by ``build(folder)`` if it is not there yet.

    ``build`` fills a folder aside, which is renamed when it is complete, so a killed or failed build leaves nothing
    that a later one could pick up, and two processes that build the same thing don't disturb each other.

    Args:
        is_whole: whether an entry that is there is what ``build`` made; else it is built anew.

    Raises:
        ResourceError: it can't be written.
    """

    def is_usable(entry: Path) -> bool:
        is_readable = entry.is_dir() and os.access(entry, os.R_OK | os.X_OK)
        return is_readable and _stranger(entry) is None and is_whole(entry)

    name, places = f"{kind}-{key}", _places()
    if found := next((place / name for place in places if is_usable(place / name)), None):
        return found
    target = places[-1] / name
    try:
        with new_folder(target, 0o700) as aside:
            build(aside)
            sync_tree(aside)
            try:
                aside.rename(target)
            except OSError:
                if not is_usable(target):  # else another process was faster, with the same content
                    remove_folder(target)
                    aside.rename(target)
            sync(target.parent)
    except OSError as error:
        raise ResourceError(
            f"{target.parent}: can't be written ({error.strerror or error}); free space there or set "
            "FEATHERWEIGHT_CACHE"
        ) from error
    return target


def _places() -> list[Path]:
    """Folders that only this user and root can change, in the order in which to look; the last can be written."""
    places, why = [], ""
    for index, folder in enumerate(_candidates()):
        try:
            _make(folder)
        except OSError as error:
            if index == 0:
                raise ResourceError(
                    f"{folder}: can't be written ({error.strerror}); set FEATHERWEIGHT_CACHE"
                ) from error
            continue
        place = folder.resolve()
        why = _stranger(place) or why
        if os.access(place, os.R_OK | os.X_OK) and not _stranger(place):
            places.append(place)
            if os.access(place, os.W_OK):
                return places
    raise ResourceError(f"no folder for the cache ({why}); set FEATHERWEIGHT_CACHE to one that only you can write")


def _candidates() -> Iterator[Path]:
    """The folder that the user chose, then those that this user has alone."""
    user = os.geteuid()
    if configured := os.environ.get("FEATHERWEIGHT_CACHE"):
        yield Path(configured).expanduser()
        yield Path(configured).expanduser() / f"user-{user}"
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featherweight"
    yield Path(tempfile.gettempdir()) / f"featherweight-{user}"


def _make(folder: Path) -> None:
    """Make a folder where it is missing, and those above it, for this user alone whatever the umask."""
    for one in reversed([one for one in folder.parents if not one.exists()]):
        one.mkdir(0o700, exist_ok=True)
    folder.mkdir(0o700, exist_ok=True)


def _stranger(path: Path) -> str | None:
    """How another user could change what is in the folder ``path``, which leads through no link; None if none can.

    A folder above it may be everybody's where it is sticky, as ``/tmp`` is: what others own can't be replaced there.
    """
    for one in (path, *path.parents):
        found = one.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return f"{one} is no folder"
        if found.st_uid not in {0, os.geteuid()}:
            return f"{one} belongs to another user"
        others = stat.S_IWOTH if _is_own_group(found.st_gid) else stat.S_IWOTH | stat.S_IWGRP
        if found.st_mode & others and (one == path or not found.st_mode & stat.S_ISVTX):
            return f"{one} can be written by others"
    return None


def _is_own_group(group: int) -> bool:
    """Whether it is the group that a user has alone, named after the user, as many systems make one for each."""
    import grp
    import pwd

    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and found.gr_name == user.pw_name and {*found.gr_mem} <= {user.pw_name}
