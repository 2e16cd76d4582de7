"""Exports answer as their run does, or are not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, ModelError, UnprovenError
from featherweight.inference.predictor import load_predictor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KINDS = ["bert", "roberta", "distilbert", "gpt2", "llama"]
TEXTS = [
    "great",
    "",
    "the film was dull and very very cold",
    "a warm story with lovely music",
    "unknownword",
    "the",
] * 3

Runs = Callable[[str], Path]


@pytest.fixture(scope="module")
def runs(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A tiny finished run on a model of the kind asked for, made once."""
    made: dict[str, Path] = {}

    def get(kind: str, **sections: Any) -> Path:
        key = kind + str(sections)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run") / kind
            content = tiny.recipe(models(kind), train_csv, training={"num_train_epochs": 3}, **sections)
            workflow.run(recipes.parse(content), made[key])
        return made[key]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_an_onnx_export_answers_as_its_run(kind: str, runs: Runs, tmp_path: Path) -> None:
    """Other texts than those it was proved on, in other shapes than it was traced with; decoders read their last
    token whatever the padding."""
    run = runs(kind)
    workflow.export(run, "onnx", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "featherweight.json", "model.onnx", "tokenizer.json",
    ]  # fmt: skip
    mine, theirs = load_predictor(tmp_path / "out"), load_predictor(run)
    assert mine.kind.names == theirs.kind.names
    expected = theirs.answers(TEXTS)["probabilities"]
    np.testing.assert_allclose(mine.answers(TEXTS)["probabilities"], expected, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 0.1, "answers that are all alike would prove nothing"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_decoder_reads_the_last_real_token_where_the_text_ends_with_the_pad_token(
    kind: str, runs: Runs, tmp_path: Path
) -> None:
    workflow.export(runs(kind), "onnx", tmp_path / "out")
    texts = ["great <|endoftext|>", "<|endoftext|>", "dull film <|endoftext|> <|endoftext|>"]
    mine, theirs = load_predictor(tmp_path / "out"), load_predictor(runs(kind))
    np.testing.assert_allclose(mine.answers(texts)["probabilities"], theirs.answers(texts)["probabilities"], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_row_28_merged_answers_as_its_run(kind: str, runs: Runs, tmp_path: Path) -> None:
    """And so it does in stock transformers, with its label names and without PEFT."""
    from transformers import pipeline

    workflow.export(runs(kind), "merged", tmp_path / "out")
    assert not list((tmp_path / "out").glob("adapter*"))
    expected = load_predictor(runs(kind)).predict(TEXTS[:1])[0]
    np.testing.assert_allclose(
        load_predictor(tmp_path / "out").answers(TEXTS)["probabilities"],
        load_predictor(runs(kind)).answers(TEXTS)["probabilities"],
        atol=1e-5,
    )
    (answer,) = pipeline("text-classification", str(tmp_path / "out"))("great")
    assert answer["label"] == expected["label"]
    assert answer["score"] == pytest.approx(expected["probabilities"][expected["label"]], abs=1e-5)


def test_row_28_a_merge_that_changes_answers_is_refused(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: weights spoiled between merging and writing."""
    from featherweight.export import merged

    def spoiled(model: Any) -> Any:
        whole = model.merge_and_unload()
        whole.classifier.weight.data.mul_(1.01)
        return whole

    monkeypatch.setattr(merged, "merge", spoiled)
    with pytest.raises(UnprovenError, match="nothing was published"):
        workflow.export(runs("bert"), "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_row_23_weights_that_are_no_numbers_are_refused(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherweight.inference import loading

    load, run = loading.load, runs("bert")

    def broken(*arguments: Any, **options: Any) -> Any:
        loaded = load(*arguments, **options)
        next(value for name, value in loaded.model.named_parameters() if "lora_B" in name).data.fill_(float("nan"))
        return loaded

    monkeypatch.setattr(loading, "load", broken)  # the torch backend holds its own name for it, so the run answers well
    with pytest.raises(UnprovenError, match="no numbers"):
        workflow.export(run, "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_export_answers_from_its_own_folder(runs: Runs, tmp_path: Path) -> None:
    evidence = workflow.export(runs("bert"), "adapter", tmp_path / "out")
    assert evidence["agreement"] == 1
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    np.testing.assert_allclose(
        load_predictor(tmp_path / "out").answers(TEXTS)["probabilities"],
        load_predictor(runs("bert")).answers(TEXTS)["probabilities"],
        atol=1e-6,
    )


def test_a_fully_tuned_run_has_no_adapter_to_export(runs: Runs, tmp_path: Path) -> None:
    run = runs("bert", method={"name": "full"})
    with pytest.raises(ConfigError, match="export merged instead"):
        workflow.export(run, "adapter", tmp_path / "out")
    workflow.export(run, "onnx", tmp_path / "onnx")
    np.testing.assert_allclose(
        load_predictor(tmp_path / "onnx").answers(TEXTS)["probabilities"],
        load_predictor(run).answers(TEXTS)["probabilities"],
        atol=1e-5,
    )


@pytest.mark.parametrize("method", [{"name": "linear-probe"}, {"name": "lora", "use_dora": True}], ids=str)
def test_other_methods_are_exported_too(method: dict[str, Any], runs: Runs, tmp_path: Path) -> None:
    run = runs("bert", method=method)
    workflow.export(run, "onnx", tmp_path / "onnx")
    np.testing.assert_allclose(
        load_predictor(tmp_path / "onnx").answers(TEXTS)["probabilities"],
        load_predictor(run).answers(TEXTS)["probabilities"],
        atol=1e-5,
    )


def test_row_28_int8_is_published_with_its_figures_or_refused(runs: Runs, tmp_path: Path) -> None:
    """60 rows can't rule out a loss of 2 points unless every answer stays, so the margin decides; both ways are run."""
    run = runs("bert")
    with pytest.raises(UnprovenError, match="--margin 0"):
        workflow.export(run, "onnx-int8", tmp_path / "out", margin=0.0)
    assert list(tmp_path.iterdir()) == []
    evidence = workflow.export(run, "onnx-int8", tmp_path / "out", margin=0.5, min_agreement=0.5)
    facts = json.loads((tmp_path / "out" / "featherweight.json").read_text())
    recorded = facts["export"]
    assert recorded == json.loads(json.dumps({key: value for key, value in evidence.items() if key != "output"}))
    assert recorded["comparison"]["confidence_interval"][0] > -0.5
    assert recorded["margin"] == 0.5
    assert set(recorded["speed"]["export"]) == {"latency_ms", "texts_per_second"}
    assert {one["wanted_error_rate"] for one in facts["thresholds"]} == {0.01, 0.02, 0.05, 0.1}
    card = (tmp_path / "out" / "README.md").read_text()
    for figure in (
        f"{recorded['agreement']:.4f}",
        f"{recorded['accuracy']['export']:.4f}",
        "| texts a second |",
        "0.5",
    ):
        assert figure in card
    import onnx

    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


@pytest.mark.parametrize("export_format", ["merged", "onnx"])
def test_row_70_an_export_answers_a_thousand_rows_as_its_run(export_format: str, runs: Runs, tmp_path: Path) -> None:
    texts = [row["text"] for row in tiny.rows(1000, seed=5)]
    workflow.export(runs("bert"), export_format, tmp_path / "out")
    mine, theirs = load_predictor(tmp_path / "out"), load_predictor(runs("bert"))
    assert [one["label"] for one in mine.predict(texts)] == [one["label"] for one in theirs.predict(texts)]
    np.testing.assert_allclose(mine.answers(texts)["probabilities"], theirs.answers(texts)["probabilities"], atol=1e-4)


def test_an_occupied_folder_is_left_alone(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        workflow.export(runs("bert"), "onnx", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_row_97_without_the_packages_the_extra_is_named_before_the_work(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherweight.export import onnx
    from featherweight.workflow import exporting

    def never(recipe: object) -> None:
        raise AssertionError("the data is read, and the model answers, before the packages are asked for")

    monkeypatch.setattr(exporting, "_validation", never)
    monkeypatch.setattr(onnx, "_NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match=r"no_such_package; run: pip install 'featherweight\[export\]'"):
        workflow.export(runs("bert"), "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_row_05_sigterm_while_exporting_leaves_nothing(runs: Runs, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "featherweight", "export", str(runs("bert")), "--format", "onnx"]
    process = subprocess.Popen(
        [*command, "--output-dir", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("writing onnx"):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_and_the_export_predicts(cli: Any, runs: Runs, tmp_path: Path) -> None:
    ended = cli("export", runs("bert"), "--format", "onnx", "--output-dir", "out", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["format"] == "onnx"
    answer = cli("predict", "out", "--text", "a lovely film", "--json")
    assert answer.returncode == 0, answer.stderr
    (mine,) = json.loads(answer.stdout)["predictions"]
    (theirs,) = load_predictor(runs("bert")).predict("a lovely film")
    assert mine["label"] == theirs["label"]
    refused = cli("export", runs("bert"), "--format", "onnx-int8", "--margin", "0", "--output-dir", "int8")
    assert refused.returncode == 5
    assert len([line for line in refused.stderr.splitlines() if line.startswith("featherweight:")]) == 1
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"labels": None}, "labels"),
        ({"labels": "ab"}, "labels"),
        ({"labels": ["a", "b", "c"]}, "3 labels"),
        ({"max_length": "x"}, "max_length"),
        ({"pad_token_id": [0]}, "pad_token_id"),
        ({"temperature": 0}, "temperature"),
        ({"thresholds": 7}, "thresholds"),
        ({"base_model": None}, "base_model"),
    ],
)
def test_row_84_impossible_facts_beside_an_onnx_model(
    keys: dict[str, Any], named: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    workflow.export(runs("bert"), "onnx", tmp_path / "out")
    path = tmp_path / "out" / "featherweight.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(ModelError, match=rf"featherweight\.json: .*{named}"):
        load_predictor(tmp_path / "out")


@pytest.mark.parametrize("name", ["featherweight.json", "tokenizer.json", "model.onnx"])
def test_a_damaged_export_is_exit_4_and_names_the_file(name: str, cli: Any, runs: Runs, tmp_path: Path) -> None:
    workflow.export(runs("bert"), "onnx", tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(b"{]")
    ended = cli("predict", "out", "--text", "great")
    assert ended.returncode == 4
    assert name in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
