"""What the tokenizers' library, which is written in Rust, can't go on with, as an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from featherweight.errors import ModelError


@contextmanager
def no_panics() -> Iterator[None]:
    """Raises ModelError where the library panics, which is no Exception: its patterns end so, after a second, where
    they would take forever."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"the model's tokenizer can't take a text: {error}; use another model") from None
