"""Derived files on disk, keyed by everything that they derive from, complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherweight.errors import ResourceError
from featherweight.storage import sync, sync_tree


def cache_folder() -> Path:
    """``FEATHERWEIGHT_CACHE``, or ``featherweight`` in the user's cache folder."""
    configured = os.environ.get("FEATHERWEIGHT_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featherweight"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def key_of(*parts: Any) -> str:
    """A short stable name for JSON-able values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder ``kind-key`` in the cache, built by ``build(folder)`` if it is not there yet.

    ``build`` fills a folder aside, which is renamed when it is complete, so a killed or failed build leaves nothing
    that a later one could pick up, and two processes that build the same thing don't disturb each other.
    """
    root = cache_folder()
    target = root / f"{kind}-{key}"
    if target.is_dir():
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=root))
    except OSError as error:
        raise ResourceError(f"{root}: can't be written ({error.strerror}); set FEATHERWEIGHT_CACHE") from error
    try:
        build(aside)
        sync_tree(aside)
        try:
            aside.rename(target)
            sync(root)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same content
                raise
    except OSError as error:
        raise ResourceError(
            f"{root}: can't be written ({error.strerror}); free space there or set FEATHERWEIGHT_CACHE"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
