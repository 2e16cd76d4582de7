"""What a value of ``featherweight.json`` may be: read as what somebody else wrote."""

from __future__ import annotations

import math
from typing import Any

_MOST_NAMES = 1_000_000


def is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value)


def are_names(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_NAMES
        and all(isinstance(one, str) for one in value)
        and len(set(value)) == len(value)
    )
