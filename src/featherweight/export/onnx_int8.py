"""The graph with its matrices in 8-bit integers, about a quarter of the size."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from featherweight.export import Subject
from featherweight.export.onnx import MODEL, refuse_writers, require_packages, write_graph, write_tokenizer


class OnnxInt8:
    """Weights by channel, embeddings too; activations by tensor, with a range seen as they come (dynamic)."""

    is_exact: ClassVar[bool] = False

    def require(self, artefact: Path) -> None:
        require_packages()
        refuse_writers(artefact)

    def write(self, subject: Subject, folder: Path) -> None:
        write_tokenizer(subject, folder / "tokenizer.json")
        whole = folder / "fp32.onnx"
        write_graph(subject, whole)
        _quantise(whole, folder / MODEL)
        for part in folder.glob("fp32.onnx*"):
            part.unlink()


def _quantise(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()  # it advises on the root logger to preprocess, which changes nothing measurable here
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            source,
            target,
            per_channel=True,
            # Without VNNI a processor adds two 8-bit products in 16 bits, which saturate; 7-bit weights never do.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
