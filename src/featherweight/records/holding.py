"""How a base model's frozen weights may be held."""

from __future__ import annotations

from typing import Literal, TypeAlias

Dtype: TypeAlias = Literal["float32", "bfloat16", "auto"]
Quantization: TypeAlias = Literal["nf4", "int8"]
