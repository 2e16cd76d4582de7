"""How a base model's frozen weights may be held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

Dtype: TypeAlias = Literal["float32", "bfloat16", "auto"]
Quantization: TypeAlias = Literal["nf4", "int8"]

# In words.
SAID: Mapping[str, str] = {"bfloat16": "bf16", "nf4": "NF4 (4 bits)", "int8": "int8"}
