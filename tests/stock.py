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


def require_same_gradients(ours: Any, theirs: Any) -> None:
    """Of every parameter that trains, by its norm; there are some."""
    expected = dict(theirs.named_parameters())
    seen = 0
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            gradient = expected[name].grad
            assert parameter.grad is not None, name
            assert float((parameter.grad - gradient).norm()) <= 1e-4 * float(gradient.norm()) + 1e-7, name
            seen += 1
    assert seen > 4
