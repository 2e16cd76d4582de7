"""Answers of a finished model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def predict(
    target: str | Path,
    texts: str | Iterable[str],
    *,
    calibrated: bool = False,
    max_error_rate: float | None = None,
    base_model: str | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Label and probabilities of each text, lazily and in order.

    Args:
        target: run, adapter, model or export.
        calibrated: at the temperature that the run fitted; labels are the same.
        max_error_rate: the label is None where answers would be wrong more often than this.
        base_model: where an adapter's base model is on this machine; where the adapter says itself if None.
        generation: how text is written, see :func:`featherweight.inference.predictor.load_predictor`.
    """
    from featherweight.inference.predictor import load_predictor

    predictor = load_predictor(
        target, calibrated=calibrated, max_error_rate=max_error_rate, base_model=base_model, generation=generation
    )
    return predictor.stream([texts] if isinstance(texts, str) else texts)


def predict_file(
    target: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    column: str | Sequence[str] | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    calibrated: bool = False,
    max_error_rate: float | None = None,
    base_model: str | None = None,
    generation: Mapping[str, Any] | None = None,
) -> int:
    """Answer each row of a file into another; gives the number of rows. See :meth:`Predictor.predict_file`."""
    from featherweight.inference.predictor import load_predictor

    predictor = load_predictor(
        target, calibrated=calibrated, max_error_rate=max_error_rate, base_model=base_model, generation=generation
    )
    return predictor.predict_file(source, output, column=column, encoding=encoding, delimiter=delimiter)
