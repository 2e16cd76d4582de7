"""A folder with a subfolder for each class, in which every file is a text: as IMDb's reviews and 20 Newsgroups come.

The label is the subfolder's name, as for scikit-learn's ``load_files``. Files are read class by class in their natural
order, ``2.txt`` before ``10.txt``, so that a row has the same number on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from featherweight.errors import DataError
from featherweight.sources.formats import Reading, Row
from featherweight.sources.formats.decoding import decode

UNLABELLED = "unsup"  # what IMDb calls the folder of reviews without a label, which is no class
_ENDINGS = (".txt", "")
_DIGITS = re.compile(r"([0-9]+)")


def is_class_folder(path: Path) -> bool:
    """Whether a subfolder holds a text."""
    return path.is_dir() and any(_is_text(one) for folder in _classes(path) for one in _visible(folder))


def named(folder: Path) -> str:
    """What messages call it: what is left out is said."""
    return f"{folder} (without {UNLABELLED})" if (folder / UNLABELLED).is_dir() else str(folder)


def files(folder: Path) -> list[Path]:
    """Its texts, in the order of their rows.

    Raises:
        DataError: a class has none, or something else than texts.
    """
    found: list[Path] = []
    for one in _classes(folder):
        texts = _visible(one)
        if not texts:
            raise DataError(f"{one}: holds no text; each folder is a class, so take it out")
        for path in texts:
            if not path.is_file():
                raise DataError(f"{path}: not a regular file; in {one} each file is a text of the class {one.name!r}")
            if not _is_text(path):
                raise DataError(
                    f"{path}: no text by its name; in {one} each file is one, and ends in .txt or in nothing"
                )
        found += texts
    return found


def read(folder: Path, how: Reading) -> Iterator[tuple[int, Row]]:
    """Rows of ``text`` and ``label``; a file that can't be decoded is a bad row."""
    how.on_columns(["text", "label"])
    for number, path in enumerate(files(folder), 1):
        try:
            with path.open("rb") as stream:
                text = decode(stream, str(path), how.encoding).read()
        except OSError as error:
            raise DataError(f"{path}: can't be read: {error.strerror}") from None
        except DataError as error:
            how.on_bad_row(error)
        else:
            # The last line's end is the file's, and not the text's.
            yield number, {"text": text.removesuffix("\n").removesuffix("\r"), "label": path.parent.name}


def _classes(folder: Path) -> list[Path]:
    return [one for one in _visible(folder) if one.is_dir() and one.name != UNLABELLED]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted((one for one in folder.iterdir() if not one.name.startswith(".")), key=_natural)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror}") from None


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in _ENDINGS or path.suffix[1:].isdigit()


def _natural(path: Path) -> tuple[list[str | int], str]:
    parts = _DIGITS.split(path.name)  # every second is a number, so that like is compared with like
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name
