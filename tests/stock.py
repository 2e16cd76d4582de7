"""What the stock libraries alone make of a published folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def by_card(artefact: Path) -> tuple[Any, Any]:
    """Model and tokenizer, by running the code that the folder's model card shows."""
    card = (artefact / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder", str(artefact))
    assert not re.search(r"(import|from) featherweight", code)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["model"].eval(), names["tokenizer"]


@torch.no_grad()
def logits(model: Any, tokenizer: Any, texts: Sequence[str], max_length: int) -> torch.Tensor:
    """Of one padded batch; shape (texts, classes)."""
    inputs = tokenizer(list(texts), truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    return model(**inputs).logits  # type: ignore[no-any-return]
