"""A graph in fp32 that ONNX Runtime answers with, beside a tokenizer that needs nothing but ``tokenizers``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer

from featherweight.errors import ConfigError
from featherweight.export import Subject
from featherweight.export.merged import merge
from featherweight.quiet import quiet

MODEL = "model.onnx"
_OPSET = 17
_NEEDED = ("onnx", "onnxruntime")
_INPUTS = ("input_ids", "attention_mask")


class Onnx:
    """``input_ids`` and ``attention_mask`` in, int64, (texts, tokens), padded on the right; ``logits`` out, float32."""

    is_exact: ClassVar[bool] = True

    def require(self, artefact: Path) -> None:
        require_packages()

    def write(self, subject: Subject, folder: Path) -> None:
        write_graph(merge(subject.model), folder / MODEL)
        write_tokenizer(subject, folder / "tokenizer.json")


def require_packages() -> None:
    """Raises ConfigError, with what to install, where the packages for ONNX are missing."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"--format: ONNX needs {', '.join(missing)}; run: pip install 'featherweight[export]'")


class _Logits(torch.nn.Module):
    """What is traced: two tensors in, one out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


def write_graph(model: Any, path: Path) -> None:
    """Trace ``model`` on two texts of unlike length, with both dimensions free. Changes how it attends.

    Raises:
        ConfigError: the architecture can't be traced.
    """
    # As products and a softmax: the trace of PyTorch's fused attention looks for rows that see nothing, in two more
    # passes over all scores.
    model.set_attn_implementation("eager")
    # Distinct token ids that are not the pad token: heads that read the last real token must find it in the graph.
    pad = model.config.pad_token_id or 0
    input_ids = (torch.arange(14).reshape(2, 7) + pad + 1) % model.config.get_text_config().vocab_size
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, 5:], attention_mask[1, 5:] = pad, 0
    with quiet("torch.onnx"), torch.no_grad():  # it warns of branches on shapes; other shapes are proved afterwards
        try:
            torch.onnx.export(
                _Logits(model).eval(),
                (input_ids, attention_mask),
                str(path),
                input_names=list(_INPUTS),
                output_names=["logits"],
                dynamic_axes={**{name: {0: "texts", 1: "tokens"} for name in _INPUTS}, "logits": {0: "texts"}},
                opset_version=_OPSET,
                dynamo=False,
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.errors.OnnxExporterError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"--format onnx: {model.config.model_type} can't be traced: {reason}; export merged instead"
            ) from error


def write_tokenizer(subject: Subject, path: Path) -> None:
    """The tokenizer as ``tokenizers`` reads it, with the run's truncation in it."""
    tokenizer = Tokenizer.from_str(subject.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(subject.facts["max_length"], direction=subject.tokenizer.truncation_side)
    tokenizer.save(str(path))
