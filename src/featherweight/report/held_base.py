"""What a model card says of a base model whose weights were held in fewer bits, and how stock libraries hold it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featherweight.records.holding import SAID

_CONFIG = {
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32',
    "int8": "load_in_8bit=True",
}


def weights(holding: Mapping[str, str]) -> str:
    """How weights are held, in words."""
    parts = []
    if name := holding.get("quantization"):
        parts.append(f"its linear layers in {SAID[name]}, by bitsandbytes")
    if "dtype" in holding:
        parts.append("its embeddings in bf16" if parts else "its weights in bf16")
    return f"{' and '.join(parts)}, and multiplied in fp32"


@dataclass(frozen=True)
class HeldBase:
    """How it was held.

    Attributes:
        holding: by the keys of a recipe's ``[model]``; empty where it was as usual.
        head: dotted names of the modules that were not.
        is_gguf: whether it comes from a GGUF file, which transformers unpacks and does not quantise again.
    """

    holding: Mapping[str, str]
    head: Sequence[str]
    is_gguf: bool

    @property
    def _quantised(self) -> str | None:
        return self.holding.get("quantization")

    @property
    def _config(self) -> str | None:
        """How bitsandbytes is asked for the same, where it can be."""
        return _CONFIG[self._quantised] if self._quantised and not self.is_gguf else None

    def said(self) -> list[str]:
        if not self.holding:
            return []
        sentence = f"The base model was held with {weights(self.holding)}; the figures are of that."
        if self._quantised:
            sentence += (
                " transformers does not quantise a GGUF file, so the code below has other weights, and other answers."
                if self.is_gguf
                else " The code below also rounds what such layers multiply, so answers differ in their last digits."
            )
        return [sentence, ""]

    def imports(self) -> list[str]:
        return ["import torch"] if self._config else []

    def classes(self) -> list[str]:
        """Of transformers."""
        return ["BitsAndBytesConfig"] if self._config else []

    def before(self) -> list[str]:
        """What comes before the base model is loaded."""
        if not self._config:
            return []
        return [
            "in_bits = BitsAndBytesConfig(",
            f"    {self._config},",
            f"    llm_int8_skip_modules={sorted(self.head)!r},",
            ")",
        ]

    def arguments(self) -> str:
        """Further ones of ``from_pretrained`` for the base model."""
        if self._config:
            return ', dtype="float32", quantization_config=in_bits'
        if "dtype" in self.holding:
            return ', dtype="bfloat16"'
        return ', dtype="float32"' if self.is_gguf else ""

    def after(self) -> str:
        """What is done with the base model once it is loaded."""
        return ".float()" if "dtype" in self.holding and not self._config else ""
