"""Python's collector of garbage, kept out of the way while torch and transformers are imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LARGEST = "transformers.modeling_utils"  # imports half of torch that `import torch` leaves out


@contextmanager
def importing_models() -> Iterator[None]:
    """Within this context, which may decorate a function, importing models' code takes a fifth less time.

    The import makes a million objects, nearly all of which stay. The collector looks through them again and again while
    they are made, and then for 0.2 s at a time in the middle of the work. Here it waits, and takes what is there
    afterwards as something that stays. Where the code is imported already, nothing is done.
    """
    if _LARGEST in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
