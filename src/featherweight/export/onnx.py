"""A graph in fp32 that ONNX Runtime answers with, beside a tokenizer that needs nothing but ``tokenizers``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer

from featherweight.engine.running.batches import collate
from featherweight.engine.running.choosing import says_it_takes_kinds
from featherweight.errors import ConfigError, first_line
from featherweight.export import Subject
from featherweight.export.merged import merge
from featherweight.process.quiet import quiet
from featherweight.records.questions import columns_of
from featherweight.registry import DEFAULT_TASK, TASKS
from featherweight.runs.directory import FACTS
from featherweight.sources.json_files import read_json
from featherweight.sources.trial_texts import Frame, with_kinds

MODEL = "model.onnx"
_OPSET = 17
_TOLERANCE = 1e-3  # of logits; proved to be far less on the run's own rows
_NEEDED = ("onnx", "onnxruntime")
_INPUTS = ("input_ids", "attention_mask")
_KINDS = "token_type_ids"


class Onnx:
    """``input_ids`` and ``attention_mask`` in, int64, (texts, tokens), padded on the right, with ``token_type_ids``
    where the model was tuned on pairs and is told of them; ``logits`` out, float32."""

    is_exact: ClassVar[bool] = True

    def require(self, artefact: Path) -> None:
        require_packages()
        refuse_writers(artefact)

    def write(self, subject: Subject, folder: Path) -> None:
        write_tokenizer(subject, folder / "tokenizer.json")
        write_graph(subject, folder / MODEL)


def require_packages() -> None:
    """Raises ConfigError, with what to install, where the packages for ONNX are missing."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"--format: ONNX needs {', '.join(missing)}; run: pip install 'featherweight[export]'")


def refuse_writers(artefact: Path) -> None:
    """Raises ConfigError for a model that writes text, which takes more than one pass through a graph."""
    path = artefact / FACTS
    task = read_json(path).get("task", DEFAULT_TASK) if path.is_file() else DEFAULT_TASK
    if TASKS[task].scores_tokens:
        raise ConfigError(
            f"--format: a model for {task} writes token by token, which this graph does not; export it as 'merged' or "
            "'adapter'"
        )


class _Logits(torch.nn.Module):
    """What is traced: tensors in, by the names of the inputs, and one out."""

    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.inputs, tensors, strict=True))).logits  # type: ignore[no-any-return]


def write_graph(subject: Subject, path: Path) -> None:
    """Trace the model, merged, on two texts of unlike length, with both dimensions free. Changes how it attends.

    Raises:
        ConfigError: the architecture can't be traced, or the trace holds for the traced lengths alone.
    """
    # As products and a softmax: the trace of PyTorch's fused attention looks for rows that see nothing, in two more
    # passes over all scores.
    model, frame = merge(subject.model), Frame.of(subject.tokenizer)
    inputs = _inputs_of(subject, model)
    model.set_attn_implementation("eager")
    with quiet("torch.onnx"), torch.no_grad():  # it warns of branches on shapes; other shapes are tried below
        try:
            torch.onnx.export(
                _Logits(model, inputs).eval(),
                tuple(_batch(model, frame, inputs, [7, 5]).values()),
                str(path),
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_axes={**{name: {0: "texts", 1: "tokens"} for name in inputs}, "logits": {0: "texts"}},
                opset_version=_OPSET,
                dynamo=False,
            )
            others = [1, 12, 4], [subject.facts["max_length"]]
            same = all(_answers_alike(model, path, _batch(model, frame, inputs, lengths)) for lengths in others)
        except Exception as error:
            raise _refused(model, f"can't be traced: {first_line(error)}") from error
    if not same:
        raise _refused(model, "is traced with branches that hold for the traced lengths alone")


def _inputs_of(subject: Subject, model: Any) -> tuple[str, ...]:
    """What the graph takes."""
    told = _KINDS in subject.tokenizer.model_input_names and says_it_takes_kinds(model)
    return (*_INPUTS, _KINDS) if told and len(columns_of(subject.facts)) == 2 else _INPUTS


def _batch(model: Any, frame: Frame, inputs: Sequence[str], lengths: list[int]) -> dict[str, torch.Tensor]:
    """Texts of these lengths, or of what the frame has, padded on the right: for each input a tensor (texts, tokens),
    int64."""
    texts = frame.texts(model, lengths)
    pad = model.config.get_text_config().pad_token_id or 0
    batch = collate(with_kinds(texts), range(len(texts)), pad, torch.device("cpu"))
    return {name: getattr(batch, name) for name in inputs}


def _answers_alike(model: Any, path: Path, batch: Mapping[str, torch.Tensor]) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})
    expected = model(**batch).logits
    return torch.allclose(torch.from_numpy(logits), expected, rtol=_TOLERANCE, atol=_TOLERANCE)


def _refused(model: Any, why: str) -> ConfigError:
    return ConfigError(f"--format: no ONNX of this model: {model.config.model_type} {why}; export merged instead")


def write_tokenizer(subject: Subject, path: Path) -> None:
    """The tokenizer as ``tokenizers`` reads it, with the run's truncation in it.

    Raises:
        ConfigError: it is one that ``tokenizers`` can't read.
    """
    if not subject.tokenizer.is_fast:
        kind = type(subject.tokenizer).__name__
        raise ConfigError(f"--format: no ONNX of this model: its {kind} runs in Python alone; export merged instead")
    tokenizer = Tokenizer.from_str(subject.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(subject.facts["max_length"], direction=subject.tokenizer.truncation_side)
    tokenizer.save(str(path))
