"""GGUF files, looked at through their memory-mapped tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from featherweight.errors import ModelError


def describe(path: Path) -> dict[str, Any]:
    """Architecture, size and dtypes; no weights are read.

    Raises:
        ModelError: the file is no GGUF file, or its tables do not fit it.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        dtypes: Counter[str] = Counter()
        for tensor in reader.tensors:
            dtypes[tensor.tensor_type.name] += int(tensor.n_elements)
        return {
            "architectures": [str(field.contents())] if field else None,
            "parameters": sum(dtypes.values()),
            "tensors": len(reader.tensors),
            "dtypes": dict(dtypes),
            "files": {path.name: "sound"},
        }
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path}: not readable as GGUF: {reason}") from None
