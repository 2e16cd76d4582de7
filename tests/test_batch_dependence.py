"""A text gets the answer that it gets alone, also from architectures in which padding reaches the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from featherweight import load_predictor, workflow
from featherweight import recipe as recipes
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.padded import Padded
from featherweight.records.rows import Encoding, Ragged

Models = Callable[[str], Path]

_BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "fnet": {**_BERT, "use_tpu_fourier_optimizations": False},
    "mobilebert": {
        **_BERT, "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32, "hidden_size": 32,
        "num_feedforward_networks": 1,
    },
    "convbert": {**_BERT, "embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3},
}  # fmt: skip


def classifier(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tiny.vocabulary()), pad_token_id=0, num_labels=2, **KINDS[kind])
    model = AutoModelForSequenceClassification.from_config(config).eval()
    torch.nn.init.normal_(model.get_input_embeddings().weight)  # the pad token's is not zero in published weights
    return model


def saved(folder: Path, kind: str) -> Path:
    classifier(kind).base_model.save_pretrained(folder)
    tiny.tokenizer("bert").save_pretrained(folder)
    return folder


def texts(lengths: list[int]) -> Encoding:
    draw = np.random.default_rng(1)
    offsets = np.cumsum([0, *lengths])
    tokens = draw.integers(6, len(tiny.vocabulary()), int(offsets[-1])).astype(np.int32)
    return Encoding.unlabelled(Ragged(tokens, offsets))


def probabilities(execution: Execution, model: Any, encoding: Encoding, rows: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return execution.outputs(model, encoding, rows).values.softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_row_76_a_batch_changes_no_answer(kind: str) -> None:
    model = classifier(kind)
    execution = Execution(model, pad_token_id=0)
    encoding = texts([3, 9, 4, 9, 16, 4, 7])
    rows = [5, 0, 4, 1, 6, 3, 2]
    together = probabilities(execution, model, encoding, rows)
    alone = torch.cat([probabilities(execution, model, encoding, [row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert execution.equal_lengths
    assert "texts of one length" in execution.describe()["batch_dependence"]
    naive = probabilities(_replaced(execution, Padded(0, torch.device("cpu"), "r")), model, encoding, rows)
    assert float((naive - alone).abs().max()) > 1e-4, "negative control: padded, the answers differ"


def _replaced(execution: Execution, forward: Padded) -> Execution:
    execution.forward = forward
    return execution


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gpt_neo"])
def test_row_76_other_models_are_not_split(kind: str, models: Models) -> None:
    """Packed, or padded with masks that hold, they run in batches of any lengths as before."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(tiny.config(kind, num_labels=2, pad_token_id=0)).eval()
    execution = Execution(model, pad_token_id=0)
    assert not execution.equal_lengths
    assert execution.describe()["batch_dependence"] is None
    calls: list[int] = []
    model.register_forward_pre_hook(lambda module, arguments: calls.append(1))
    probabilities(execution, model, texts([3, 9, 4]), [0, 1, 2])
    assert len(calls) == 1


def test_row_76_where_nothing_helps_the_promise_is_withdrawn_aloud() -> None:
    """A model that centres its states over the whole batch, as batch statistics do."""
    model = classifier("fnet")
    model.fnet.encoder.register_forward_hook(
        lambda module, arguments, output: output.__setitem__(
            "last_hidden_state", output["last_hidden_state"] - output["last_hidden_state"].mean(0, keepdim=True) / 2
        )
    )
    execution = Execution(model, pad_token_id=0)
    assert not execution.equal_lengths
    assert "no batch prevents that" in execution.describe()["batch_dependence"]


def test_row_76_a_step_is_the_same_in_micro_batches_of_equal_length() -> None:
    """The loss is a sum over rows, so that gradients are those of the rows one by one."""
    model = classifier("fnet")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    execution = Execution(model, pad_token_id=0)
    encoding = texts([3, 9, 4, 9])

    def gradient(batches: list[list[int]]) -> torch.Tensor:
        model.zero_grad()
        for rows in batches:
            execution.outputs(model, encoding, rows).values[:, 0].sum().backward()
        return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])

    torch.testing.assert_close(gradient([[0, 1, 2, 3]]), gradient([[0], [1], [2], [3]]), atol=1e-4, rtol=1e-4)


def test_row_76_run_predict_and_card_keep_it(train_csv: Path, tmp_path: Path) -> None:
    content = tiny.recipe(saved(tmp_path / "fnet", "fnet"), train_csv, training={"max_steps": 4})
    metrics = workflow.run(recipes.parse(content), tmp_path / "run").metrics
    assert metrics["reliability"]["gate"]["largest_difference"] < 1e-5
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "Take care: padding changes answers, so texts of one length run together" in card
    assert json.loads((tmp_path / "run" / "adapter" / "featherweight.json").read_text())["equal_lengths"] is True
    asked = [row["text"] for row in tiny.rows(9, seed=5)]
    predictor = load_predictor(tmp_path / "run")
    together = predictor.answers(asked)["probabilities"]
    alone = np.concatenate([predictor.answers([one])["probabilities"] for one in asked])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_row_76_adapters_that_share_a_base_keep_it() -> None:
    from featherweight.engine.running.many_adapters import AdapterWeights, MultiLora

    model = classifier("convbert")
    multi = MultiLora(model, 0)
    torch.manual_seed(3)
    multi.add("other", AdapterWeights({}, {"classifier.out_proj": torch.nn.Linear(32, 5)}))
    multi.add("own", AdapterWeights({}, {"classifier.out_proj": torch.nn.Linear(32, 2)}))
    encoding = texts([3, 9, 4, 9, 16])
    names = ["own", "other", "other", "own", "own"]
    together = multi.outputs(encoding, names).values
    for row, name in enumerate(names):
        one = Encoding.unlabelled(encoding.tokens[np.asarray([row])])
        alone = multi.outputs(one, [name]).values[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=0)
        assert not together[row, len(alone) :].any()


def test_row_76_an_onnx_export_runs_equals_together(train_csv: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    content = tiny.recipe(saved(tmp_path / "model", "mobilebert"), train_csv, training={"max_steps": 4})
    workflow.run(recipes.parse(content), tmp_path / "run")
    evidence = workflow.export(tmp_path / "run", "onnx")
    assert evidence["batch_dependence"]
    assert "Take care: padding changes answers" in (Path(evidence["output"]) / "README.md").read_text()
    asked = [row["text"] for row in tiny.rows(9, seed=5)]
    predictor = load_predictor(evidence["output"])
    together = predictor.answers(asked)["probabilities"]
    alone = np.concatenate([predictor.answers([one])["probabilities"] for one in asked])
    np.testing.assert_allclose(together, alone, atol=1e-5)
