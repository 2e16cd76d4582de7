"""Which files a recipe's data section means: by their names, a pattern, a folder, or an installed package."""

from __future__ import annotations

import glob
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.errors import ConfigError, DataError
from featherweight.recipe import FILE_KEYS, PACKAGE_PREFIX, DataSection
from featherweight.registry import did_you_mean
from featherweight.sources import class_folders, packages
from featherweight.sources.class_folders import is_class_folder
from featherweight.sources.formats import Reading, Row, data_entries, is_readable, on_disk, opened, suffixes, zipped
from featherweight.sources.saved import is_saved
from featherweight.storage.cache import file_hash, key_of
from featherweight.storage.names import beside, exists

SPLITS = ("train", "validation", "test")
_ALSO_VALIDATION = ("dev", "valid", "val", "eval")
# As the hub and `datasets` name them: train-00000-of-00002.parquet, with a digest behind it in older ones.
_SHARD = re.compile(r"(?P<name>.+)-(?P<index>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")


@dataclass(frozen=True)
class _Shard:
    name: str
    index: int
    count: int


def of(section: DataSection) -> dict[str, list[Path]] | None:
    """Split name to its files in order, or None where the section names a data set that is no file.

    Raises:
        ConfigError: the section names something that isn't there, or that could be several things.
        DataError: a shard is missing.
    """
    if section.name is None:
        given = {key.removesuffix("_file"): getattr(section, key) for key in FILE_KEYS}
        if section.mix is not None:
            given["train"] = [*section.mix]
        return {name: _named(f"data.{name}_file", value) for name, value in given.items() if value is not None}
    is_package = section.name.startswith(PACKAGE_PREFIX)
    path = _located(section.name)
    if exists(path) and path.is_dir():
        return None if is_saved(path) else _in_folder(path)
    if zipped.of(path) == path:
        return _in_zip(path)
    if is_package or exists(on_disk(path)):
        return {"train": [path]}
    if path.is_absolute() or is_readable(path):
        raise ConfigError(f"data.name: {section.name}: no such file or folder")
    return None


def folder_of(name: str | None) -> Path | None:
    """The folder that a data set's name means, or None where it is no folder here."""
    if name is None:
        return None
    path = _located(name)
    return path if exists(path) and path.is_dir() else None


def require_regular(path: Path) -> None:
    """Raises DataError where there is no such file, or it is none that can be read from start to end.

    What is read as one is also a folder with one for each class.
    """
    if not exists(on_disk(path)):
        raise DataError(f"{path}: no such file{did_you_mean(str(path), beside(path))}")
    if not on_disk(path).is_file() and not is_class_folder(path):
        raise DataError(f"{path}: not a regular file; name a CSV, TSV, JSON, JSONL, Parquet, Arrow or Excel file")


def read(path: Path, how: Reading) -> Generator[tuple[int, Row], None, None]:
    """The rows of a file, or of a folder with one for each class. Raises DataError and ConfigError."""
    if path.is_dir():
        yield from class_folders.read(path, how)
        return
    with opened(path) as (reader, stream):
        yield from reader.read(stream, str(path), how)


def named(paths: Sequence[Path]) -> str:
    """What messages call some files that are read as one."""
    more = f" and {len(paths) - 1} more (rows counted on from file to file)" if len(paths) > 1 else ""
    return f"{class_folders.named(paths[0])}{more}"


def fingerprint(path: Path) -> str:
    """The hash of a file's content, of a zip file's with the name of the file in it, or of a folder's files."""
    if path.is_dir():
        return key_of([(one.relative_to(path), file_hash(one)) for one in class_folders.files(path)])
    outer = on_disk(path)
    return file_hash(path) if outer == path else key_of(file_hash(outer), path.relative_to(outer))


def _located(name: str) -> Path:
    return packages.locate(name) if name.startswith(PACKAGE_PREFIX) else Path(name)


def _named(key: str, value: str | Sequence[str]) -> list[Path]:
    """The files of a name or pattern, or of a list of them, in its order; those of a pattern by their names."""
    files: list[Path] = []
    for one in [value] if isinstance(value, str) else value:
        path = Path(one)
        if exists(path) or not glob.has_magic(one):
            files.append(path)
            continue
        named = glob.glob(one, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        matches = sorted(path for path in map(Path, named) if path.is_file())
        if not matches:
            raise DataError(f"{key}: no file is named like {one}")
        _require_all_shards(matches)
        files += matches
    if doubled := [path for path in files if files.count(path) > 1]:
        raise ConfigError(f"{key}: {doubled[0]} is named twice")
    return files


def _in_folder(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that are called after a split, at its top or in ``data/``, as data sets are laid out.

    Without any, its subfolders of that name that have one for each class, or else the folder itself where it has.
    """
    found = _by_split([*folder.glob("*"), *folder.glob("data/*")], folder)
    found = found or _by_split_of_classes(folder)
    if not found and is_class_folder(folder):
        return {"train": [folder]}
    if not found:
        raise ConfigError(
            f"data.name: {folder} holds no train, validation or test file ({', '.join(suffixes())}), nor a folder for "
            "each class; set data.train_file"
        )
    return found


def _by_split_of_classes(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (split := _split_named(path.name)):
            if not is_class_folder(path):
                raise ConfigError(f"data.name: {path} has no folder of texts for each class; set data.train_file")
            if split in found:
                raise ConfigError(
                    f"data.name: {folder} holds both {found[split][0].name} and {path.name}; take one out"
                )
            found[split] = [path]
    return found


def _split_named(name: str) -> str | None:
    """The split that is called so."""
    split = "validation" if name.lower() in _ALSO_VALIDATION else name.lower()
    return split if split in SPLITS else None


def _in_zip(archive: Path) -> dict[str, list[Path]]:
    """The files in a zip file that are called after a split, or the only one that there is."""
    return _by_split(data_entries(archive), archive) or {"train": [archive]}


def _by_split(paths: Sequence[Path], where: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        split = _split_named(_stem(path).split("-")[0])
        if split and is_readable(path):
            found.setdefault(split, []).append(path)
    for files in found.values():
        shards = [_shard(path) for path in files]
        if len(files) > 1 and (None in shards or len({(one.name, one.count) for one in shards if one}) > 1):
            raise ConfigError(
                f"data.name: {where} holds both {files[0].name} and {files[1].name}; name the one that you mean in "
                "data.train_file, data.validation_file or data.test_file"
            )
        _require_all_shards(files)
    return found


def _stem(path: Path) -> str:
    return path.name.split(".")[0] if path.name.lower().endswith(".gz") else path.stem


def _shard(path: Path) -> _Shard | None:
    match = _SHARD.fullmatch(_stem(path))
    return _Shard(match["name"], int(match["index"]), int(match["count"])) if match else None


def _require_all_shards(paths: Sequence[Path]) -> None:
    there: dict[tuple[Path, str, int], list[int]] = {}
    for path in paths:
        if shard := _shard(path):
            there.setdefault((path.parent, shard.name, shard.count), []).append(shard.index)
    for (folder, name, count), indices in there.items():
        missing = next((index for index in range(count) if index not in indices), None)
        if missing is not None:
            raise DataError(f"{folder}: the shard {name}-{missing:05d}-of-{count:05d} is missing; download all {count}")
        if len(indices) > count:
            raise DataError(f"{folder}: {len(indices)} files named {name}-*-of-{count:05d}; take out what is too many")
