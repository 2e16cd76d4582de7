"""Labelled rows from local files, installed packages and the hub, as memory-mapped Arrow.

Local rows are read once by the strict readers of ``formats`` and kept as Arrow in the cache, keyed by the file's
hash; from then on they are memory-mapped, so their number costs disk, not memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import DataError
from featherweight.recipe import DataSection
from featherweight.records.rows import Split
from featherweight.sources import cells, data_files, hub, mixing, row_store
from featherweight.sources.formats import Reading
from featherweight.sources.saved import load_saved
from featherweight.storage.cache import cached, key_of

if TYPE_CHECKING:
    import datasets

_READING = 2  # goes up where the same bytes are read as other rows


def found(section: DataSection) -> DataSection:
    """The section with its columns, where it leaves them open and the data has others that are usual for the task.

    Raises:
        ConfigError: the section names something that isn't there.
        DataError: a file can't be read exactly.
    """
    if section.mix is not None and mixing.COLUMN not in section.slices and not section.held_out_files:
        section = section.model_copy(update={"slices": [*section.slices, mixing.COLUMN]})
    if not section.usual or section.model_fields_set >= {"text", "label"}:
        return section
    columns = _columns(section)
    for text, label in section.usual:
        usual = {"text": text if isinstance(text, str) else list(text), "label": label}
        open_ = {key: value for key, value in usual.items() if key not in section.model_fields_set}
        tried = section.model_copy(update=open_)
        if {*tried.texts, *tried.truths} <= set(columns):
            return tried
    return section


def _columns(section: DataSection) -> list[str]:
    """The columns of the first row of train, or of the first split that there is."""
    files = data_files.of(section)
    if files is not None:
        path = next(iter(files.values()))[0]
        data_files.require_regular(path)
        how = Reading(section.encoding, lambda error: None, section.delimiter)
        with closing(data_files.read(path, how)) as rows:
            return list(next((row for _, row in rows), {}))
    return list(next(iter(_typed(section).values()))[0].column_names)


def load(section: DataSection) -> dict[str, Split]:
    """Read every split that the recipe's data section names.

    Returns:
        Split name to rows; at least one of ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: the section names something that isn't there.
        DataError: a file can't be read exactly.
        ModelError: the hub can't be reached or refuses.
    """
    files = data_files.of(section)
    if files is not None:
        slices = [name for name in section.slices if name != mixing.COLUMN]
        read = section.model_copy(update={"slices": slices})
        return {name: _of_files(paths, read, name) for name, paths in files.items()}
    return {
        name: _checked(Split(name, rows, f"{section.name} ({name})", fingerprint), section)
        for name, (rows, fingerprint) in _typed(section).items()
        if name in data_files.SPLITS
    }


def _of_files(paths: Sequence[Path], section: DataSection, name: str) -> Split:
    if name != "train" or section.mix is None:
        return load_files(paths, section, name)
    parts = {path: load_files([path], section, name) for path in paths}
    return mixing.mixed(parts, [*section.mix.values()], section.split_seed, data_files.named(paths))


def load_files(paths: Sequence[Path], section: DataSection, name: str) -> Split:
    """Read files, one after the other, as the split ``name``. A test split may lack labels."""
    for path in paths:
        data_files.require_regular(path)
    try:
        hashes = [data_files.fingerprint(path) for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename}: can't be read: {error.strerror}") from None
    may_lack_label = name == "test"
    kinds = ((sorted(section.lists),) if section.lists else ()) + (("numeric",) if section.numeric else ())
    how = (section.encoding, section.delimiter, section.skip_bad_rows, section.filter, may_lack_label, *kinds)
    endings = ["".join(path.suffixes[-2:]).lower() for path in paths]
    key = key_of(_READING, hashes, endings, row_store.asked_columns(section), how)
    folder = cached("rows", key, partial(row_store.build, paths, section, may_lack_label=may_lack_label))
    import datasets

    rows = datasets.Dataset.from_file(str(folder / row_store.ROWS_FILE))
    skipped = json.loads((folder / row_store.SKIPPED_FILE).read_text(encoding="utf-8"))
    fingerprint = hashes[0] if len(hashes) == 1 else key_of(hashes)
    return Split(name, rows, data_files.named(paths), fingerprint, skipped=skipped)


def _typed(section: DataSection) -> dict[str, tuple[datasets.Dataset, str]]:
    """The splits of a data set that is no file: a folder that ``datasets`` saved, or one of the hub."""
    assert section.name is not None
    folder = data_files.folder_of(section.name)
    return load_saved(folder) if folder else hub.load_dataset(section.name, section.config, section.revision)


def _checked(split: Split, section: DataSection) -> Split:
    """A split of a data set that has types, filtered, once its columns are found to be texts and labels."""
    rows = split.rows
    asked, may_lack_label = row_store.asked_columns(section), split.name == "test"
    row_store.require_columns(rows.column_names, asked, split.origin, may_lack_label=may_lack_label)
    for label in section.truths:
        if label not in rows.column_names:
            rows = rows.add_column(label, [None] * len(rows))
    for text in section.texts if "text" not in section.lists else ():
        cells.require_texts(*_first_value(rows, text), split.origin, text, row_store.TEXT_FIX)
    if "label" not in section.lists:
        cells.require_labels(*_first_value(rows, section.label), split.origin, section.label)
    if section.filter:
        columns = list(section.filter)
        rows = rows.filter(
            lambda *values: all(
                row_store.as_text(value) == section.filter[name] for name, value in zip(columns, values, strict=True)
            ),
            input_columns=columns,
            keep_in_memory=data_files.folder_of(section.name) is not None,  # else datasets writes beside the rows
        )
    labels = rows.features.get(section.label)
    names = getattr(getattr(labels, "feature", labels), "names", None)  # of a list it is the entries that have names
    return replace(split, rows=rows, label_names=tuple(names) if names else None)


def _first_value(rows: datasets.Dataset, column: str) -> tuple[list[Any], list[int]]:
    """The first value of a column that is not null, which stands for all, as they are of one type; and its row."""
    number = 1
    for batch in rows.select_columns(column).with_format("arrow").iter(batch_size=1000):
        for value in batch.column(column):
            if value.is_valid:
                return [value.as_py()], [number]
            number += 1
    return [], []
