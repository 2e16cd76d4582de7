"""Folders that ``datasets`` saved with ``save_to_disk``: of one data set, or of one for each split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import DataError, first_line
from featherweight.sources.formats.arrow import Arrow
from featherweight.storage.cache import file_hash, key_of

if TYPE_CHECKING:
    import datasets

_SPLITS_FILE, _STATE_FILE = "dataset_dict.json", "state.json"
_MOST_BYTES = 16 << 20  # of such a file


def is_saved(folder: Path) -> bool:
    """Whether the folder is one that ``datasets`` saved."""
    return (folder / _SPLITS_FILE).is_file() or (folder / _STATE_FILE).is_file()


def load_saved(folder: Path) -> dict[str, tuple[datasets.Dataset, str]]:
    """Its rows, memory-mapped, with the names of labels that they were saved with.

    Returns:
        Split name to rows and the hash of their files; ``train`` where nobody named a split.

    Raises:
        DataError: a file is missing or damaged.
    """
    if not (folder / _SPLITS_FILE).is_file():
        return {"train": _rows(folder)}
    names = _listed(folder / _SPLITS_FILE, "splits")
    if odd := [name for name in names if not _is_plain(name)]:
        raise DataError(f"{folder / _SPLITS_FILE}: names the split {odd[0]!r}, which is no folder in its own")
    return {name: _rows(folder / name) for name in names}


def _rows(folder: Path) -> tuple[datasets.Dataset, str]:
    import datasets
    import pyarrow as pa

    named = _listed(folder / _STATE_FILE, "_data_files")
    names = [one.get("filename") if isinstance(one, dict) else None for one in named]
    if not names or not all(map(_is_plain, names)):
        raise DataError(f"{folder / _STATE_FILE}: does not name the files of its rows, each one in its own folder")
    paths = [folder / str(name) for name in names]
    for path in paths:
        _require_sound(path)
    try:
        parts = [datasets.Dataset.from_file(str(path)) for path in paths]
        rows = datasets.concatenate_datasets(parts)
    except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise DataError(f"{folder}: not readable as datasets saved it: {first_line(error)}") from None
    return rows, key_of([file_hash(path) for path in paths])


def _require_sound(path: Path) -> None:
    """What is memory-mapped is believed from then on."""
    if not path.is_file():
        raise DataError(f"{path}: no such file, which {path.parent / _STATE_FILE} names; save the data set again")
    with path.open("rb") as stream:
        for _ in Arrow().open_columns(stream, str(path)).batches():
            pass


def _listed(path: Path, key: str) -> list[Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: can't be read as JSON: {error}") from None
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{path}: has no list {key!r}; save the data set again")
    return found


def _is_plain(name: Any) -> bool:
    """Whether it is the name of something in the same folder."""
    return isinstance(name, str) and name not in {"", ".", ".."} and not set(name) & set("/\\\0")
