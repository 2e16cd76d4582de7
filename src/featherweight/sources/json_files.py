"""JSON beside a model or an adapter, from somebody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featherweight.errors import ModelError

_MAX_JSON_BYTES = 16 << 20


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's or adapter's folder. Raises ModelError that names the file."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError(f"{path}: larger than the {_MAX_JSON_BYTES:,} bytes that are read of such a file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: a JSON object was expected")
    return content
