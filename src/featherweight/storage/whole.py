"""Files and folders that are there whole or not at all, whatever stops the process or the machine.

What is new is written beside its place under a name that begins with ``.new-`` and that nobody can foresee, so that no
link can wait there and no two writers meet; flushed to the disk; and renamed. A folder that had the name waits as
``.old-NAME`` until the new one has it. :func:`tidy` puts right what a kill left of either.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from featherweight.errors import ConfigError, ResourceError

NEW, OLD = ".new-", ".old-"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_file(path: Path, fill: Callable[[BinaryIO], object], option: str = "--output-dir") -> None:
    """Make the file ``path`` by ``fill(stream)``, or leave what was there. Its mode is the umask's.

    Args:
        option: what to choose another of where the disk forbids it.

    Raises:
        ResourceError: the disk is full or can't be written.
    """
    aside = _beside(path)
    try:
        with writing(path, option=option):
            with aside.open("xb") as stream:
                fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)
            sync(path.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def write_folder(path: Path, fill: Callable[[Path], None], needed: int | None = None) -> None:
    """Make the folder ``path`` by ``fill(aside)``, or leave what was there.

    Args:
        needed: bytes that it takes, for the message where the disk has not enough.

    Raises:
        ResourceError: the disk is full or can't be written.
    """
    old = path.with_name(OLD + path.name)
    with writing(path, needed), new_folder(path) as aside:
        fill(aside)
        sync_tree(aside)
        try:
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            aside.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """A folder beside ``path`` that goes away again unless it was renamed."""
    aside = _beside(path)
    aside.mkdir(mode)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{NEW}{path.name[:40]}.{secrets.token_hex(8)}")


def remove_folder(path: Path) -> None:
    """Take a folder, or what stands in its place, away by one rename, so that half of it is never found under its
    name."""
    aside = _beside(path)
    with suppress(OSError):
        path.rename(aside)
        remove(aside)


def remove(path: Path) -> None:
    """Take a file, a link or a whole folder away; what a link leads to stays. Raises OSError where it can't be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def empty_folder(folder: Path) -> None:
    """Take away what is in a folder, if it is there."""
    for path in folder.glob("*"):
        remove(path)


def link(path: Path, target: Path) -> None:
    """Give a file that is never written again a second name; a copy of it where the disk knows no such names. Raises
    OSError where there is no room."""
    try:
        os.link(path, target)
    except FileExistsError:
        pass  # from before a kill
    except OSError:
        write_file(target, lambda stream: stream.write(path.read_bytes()))


def tidy(folder: Path) -> None:
    """Put right what a kill left in ``folder``: a replaced folder comes back where the new one never got its name,
    and what was only half written goes.

    Raises:
        ResourceError: the folder can't be written.
    """
    if not folder.is_dir():
        return
    with writing(folder):
        for old in folder.glob(f"{OLD}*"):
            path = old.with_name(old.name.removeprefix(OLD))
            if path.exists():
                shutil.rmtree(old)
            else:
                old.rename(path)
        for aside in folder.glob(f"{NEW}*"):
            remove(aside)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and the folder itself, to the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def free_bytes(path: Path) -> int:
    """Bytes that this user can still write on the disk of ``path``, which may not exist yet."""
    return shutil.disk_usage(next(one for one in (path, *path.absolute().parents) if one.exists())).free


@contextmanager
def writing(path: Path, needed: int | None = None, option: str = "--output-dir") -> Iterator[None]:
    """Map what a full, read-only or forbidden disk raises, in whatever library, to one line that says what to do.

    Args:
        needed: bytes that are to be written.
        option: what to choose another of; a run's folder, which ``--output-dir`` names, goes on with ``--resume``.

    Raises:
        ResourceError: instead of OSError and its like.
    """
    try:
        yield
    except Exception as error:
        number = _errno(error)
        if number is None:
            raise
        why = os.strerror(number) + _fix(path, number, needed, option)
        raise ResourceError(f"{path}: can't be written: {why}") from error


def _errno(error: Exception) -> int | None:
    """The system's number of an error, also where a Rust library only words it."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else None


def _fix(path: Path, number: int, needed: int | None, option: str) -> str:
    if number in _FULL:
        wanted = f"{needed:,} bytes needed, " if needed is not None else ""
        then = "go on with --resume" if option == "--output-dir" else "try again"
        return f" ({wanted}{free_bytes(path):,} bytes free); make room, then {then}"
    return f"; choose another {option}" if number in _FORBIDDEN else ""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, which is made where it is missing and removed where it stays empty.

    The lock is on the folder itself and the kernel's, so a process that dies, however, leaves nothing to clean up.

    Raises:
        ConfigError: another process holds it.
        ResourceError: it can't be made or written.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    descriptor = _lock(folder)
    try:
        with writing(folder):
            if not os.access(folder, os.W_OK | os.X_OK):
                read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
                raise OSError(errno.EROFS if read_only else errno.EACCES, "")
        yield
    finally:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        os.close(descriptor)


def _lock(folder: Path) -> int:
    import fcntl

    while True:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"{folder}: another process is at work on this run; wait for it, or choose another --output-dir"
            ) from None
        except OSError:  # some network disks can't lock a folder; the run is as safe as it would be alone
            return descriptor
        with suppress(FileNotFoundError):
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # whoever held it found it empty and removed it in between
