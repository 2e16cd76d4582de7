"""Labelled rows from local files, installed packages and the hub, as memory-mapped Arrow.

Local rows are read once by the strict readers of ``formats`` and kept as Arrow in the cache, keyed by the file's
hash; from then on they are memory-mapped, so their number costs disk, not memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError, DataError
from featherweight.names import exists
from featherweight.recipe import FILE_KEYS, PACKAGE_PREFIX, DataSection
from featherweight.records import Split
from featherweight.registry import FORMATS, did_you_mean
from featherweight.sources import hub, packages
from featherweight.sources.cache import cached, file_hash, key_of
from featherweight.sources.formats import Reading, Row, format_of

if TYPE_CHECKING:
    import datasets

ROW = "__row__"
SPLITS = ("train", "validation", "test")
_BATCH_ROWS = 10_000
_BATCH_BYTES = 16 << 20


def load(section: DataSection) -> dict[str, Split]:
    """Read every split that the recipe's data section names.

    Returns:
        Split name to rows; at least one of ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: the section names something that isn't there.
        DataError: a file can't be read exactly.
        ModelError: the hub can't be reached or refuses.
    """
    files = _files(section)
    if files is not None:
        return {name: load_file(path, section, name) for name, path in files.items()}
    assert section.name is not None
    return {
        name: Split(name, _keep(rows, section), f"{section.name} ({name})", revision, _class_names(rows, section.label))
        for name, (rows, revision) in hub.load_dataset(section.name, section.config, section.revision).items()
        if name in SPLITS
    }


def load_file(path: Path, section: DataSection, name: str) -> Split:
    """Read one file as the split ``name``."""
    _refuse_special(path)
    fingerprint = file_hash(path)
    how = (section.encoding, section.skip_bad_rows)
    key = key_of(fingerprint, path.suffix, section.text, section.label, section.filter, how)
    folder = cached("rows", key, lambda aside: _build(path, section, aside / "rows.arrow"))
    import datasets

    rows = datasets.Dataset.from_file(str(folder / "rows.arrow"))
    skipped = json.loads((folder / "skipped.json").read_text(encoding="utf-8"))
    return Split(name, rows, str(path), fingerprint, skipped=skipped)


def open_file(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, Row]]:
    """Stream the rows of a file, as read, without caching them."""
    _refuse_special(path)
    reader = format_of(path)
    with path.open("rb") as stream:
        yield from reader.read(stream, str(path), Reading(encoding))


def _files(section: DataSection) -> dict[str, Path] | None:
    """Split name to file, or None where the section names a hub data set."""
    if section.name is None:
        given = {key.removesuffix("_file"): getattr(section, key) for key in FILE_KEYS}
        return {name: Path(value) for name, value in given.items() if value is not None}
    is_package = section.name.startswith(PACKAGE_PREFIX)
    path = packages.locate(section.name) if is_package else Path(section.name)
    if exists(path) and path.is_dir():
        return _files_in(path)
    if is_package or exists(path):
        return {"train": path}
    if path.is_absolute() or path.suffix.lower() in {end for name in FORMATS for end in FORMATS[name].suffixes}:
        raise ConfigError(f"data.name: {section.name}: no such file or folder")
    return None


def _files_in(folder: Path) -> dict[str, Path]:
    """The files of a folder that are called after a split, at its top or in ``data/``, as data sets are laid out."""
    suffixes = {suffix for name in FORMATS for suffix in FORMATS[name].suffixes}
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("data/*")]):
        name = path.stem.split("-")[0].lower()
        if name in SPLITS and path.suffix.lower() in suffixes:
            if name in found:
                raise ConfigError(f"data.name: {folder} holds both {found[name].name} and {path.name}; name files")
            found[name] = path
    if not found:
        raise ConfigError(
            f"data.name: {folder} holds no train, validation or test file ({', '.join(sorted(suffixes))}); "
            "set data.train_file"
        )
    return found


def _refuse_special(path: Path) -> None:
    if not exists(path):
        siblings = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file{did_you_mean(str(path), siblings)}")
    if not path.is_file():
        raise DataError(f"{path}: not a regular file; name a CSV, TSV, JSONL or Parquet file")


def _build(path: Path, section: DataSection, target: Path) -> None:
    """Write the rows of ``path`` that pass the filter as an Arrow stream of strings."""
    import pyarrow as pa

    reader = format_of(path)
    bad: list[DataError] = []
    how = Reading(section.encoding, bad.append if section.skip_bad_rows else _refuse_with_hint)
    label_types: dict[str, list[int]] = {}  # JSON type: [count, first row]
    columns: list[str] | None = None
    total = kept = 0
    writer = None
    with path.open("rb") as stream, pa.OSFile(str(target), "wb") as sink:
        for batch in _batched(reader.read(stream, str(path), how)):
            if columns is None:
                columns = list(batch[0][1])
                _require_columns(columns, section, str(path))
                schema = pa.schema([(ROW, pa.int64()), *((name, pa.large_string()) for name in columns)])
                writer = pa.ipc.new_stream(sink, schema)
            total += len(batch)  # rows with unknown keys among them
            sound = [(number, row) for number, row in batch if _is_sound(row, number, columns, str(path), how)]
            rows = [(number, row) for number, row in sound if _passes(row, section)]
            kept += len(rows)
            for number, row in rows:
                seen = label_types.setdefault(_json_type(row.get(section.label)), [0, number])
                seen[0] += 1
            arrays = [pa.array([number for number, _ in rows], pa.int64())]
            arrays += [pa.array([_as_text(row.get(name)) for _, row in rows], pa.large_string()) for name in columns]
            assert writer is not None
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        if writer is not None:
            writer.close()
    _settle_bad_rows(bad, total, section, target.with_name("skipped.json"))
    if total == 0:
        raise DataError(f"{path}: no rows; the file needs a header and at least two labelled rows")
    if kept == 0:
        raise DataError(f"{path}: none of the {total} rows has {section.filter}; check data.filter")
    kinds = {kind: seen for kind, seen in label_types.items() if kind != "null"}
    if len(kinds) > 1:
        table = "; ".join(f"{kind}: {count} rows, first in row {row}" for kind, (count, row) in sorted(kinds.items()))
        raise DataError(f"{path}: the label column {section.label!r} mixes types ({table}); write them all alike")


def _batched(rows: Iterator[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Group rows by count and by size, so that neither many rows nor huge ones fill the memory."""
    batch: list[tuple[int, Row]] = []
    size = 0
    for number, row in rows:
        batch.append((number, row))
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _require_columns(found: list[str], section: DataSection, origin: str) -> None:
    wanted = [("text", section.text), ("label", section.label), *(("filter", name) for name in section.filter)]
    wanted += [*(("slices", name) for name in section.slices), *([("group", section.group)] if section.group else [])]
    for key, name in wanted:
        if name not in found:
            raise DataError(
                f"{origin}: no column {name!r} for data.{key}{did_you_mean(name, found)}; "
                f"the file has: {', '.join(map(repr, found))}"
            )


def _is_sound(row: Row, number: int, columns: list[str], origin: str, how: Reading) -> bool:
    unknown = [name for name in row if name not in columns]
    if unknown:
        how.on_bad_row(DataError(f"{origin}: row {number} has the key {unknown[0]!r}, which the first row lacks"))
    return not unknown


def _refuse_with_hint(error: DataError) -> None:
    raise DataError(f"{error}; mend it, or leave such rows out with --skip-bad-rows")


def _settle_bad_rows(bad: list[DataError], read: int, section: DataSection, target: Path) -> None:
    """Write down how many rows are left out, or refuse the file where they are more than may be."""
    if len(bad) > section.skip_bad_rows * max(read, len(bad)):
        raise DataError(
            f"{bad[0]}; {len(bad):,} such rows beside {read:,}, and data.skip_bad_rows lets no more than "
            f"{section.skip_bad_rows:.2%} be left out"
        )
    target.write_text(json.dumps(len(bad)), encoding="utf-8")


def _passes(row: Row, section: DataSection) -> bool:
    return all(_as_text(row.get(name)) == wanted for name, wanted in section.filter.items())


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return names.get(type(value), type(value).__name__)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        # A lone surrogate, which JSON can spell, has no UTF-8 form.
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _keep(rows: datasets.Dataset, section: DataSection) -> datasets.Dataset:
    _require_columns(rows.column_names, section, section.name or "data")
    if not section.filter:
        return rows
    columns = list(section.filter)
    return rows.filter(
        lambda *values: all(
            _as_text(value) == section.filter[name] for name, value in zip(columns, values, strict=True)
        ),
        input_columns=columns,
    )


def _class_names(rows: datasets.Dataset, label: str) -> tuple[str, ...] | None:
    names = getattr(rows.features[label], "names", None)
    return tuple(names) if names else None
