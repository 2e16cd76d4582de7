"""Texts that are longer than a model takes: cut, head and tail, or windows whose answers are pooled."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving
import tiny
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_run import RESUMED, files_of, stopped_and_resumed

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.packed import Packed
from featherweight.engine.running.padded import Padded
from featherweight.errors import ConfigError
from featherweight.inference.predictor import load_predictor
from featherweight.records.cutting import Cutting, pooled
from featherweight.records.questions import Question
from featherweight.records.rows import Encoding, Ragged
from featherweight.runs.directory import RunDirectory
from featherweight.tasks.reading import tokens

Models = Callable[[str], Path]
MOST = 16


def words(count: int, seed: int = 0) -> list[str]:
    return random.Random(seed).choices(tiny.PLAIN, k=count)


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts of up to 60 words whose label one word tells, at any place of them."""
    draw, found = random.Random(seed), []
    for index in range(count):
        text = [*draw.choices(tiny.PLAIN, k=draw.randint(2, 60))]
        text.insert(draw.randint(0, len(text)), draw.choice(tiny.GOOD if index % 2 else tiny.BAD))
        found.append({"text": " ".join(text), "label": ("neg", "pos")[index % 2]})
    return found


class TestWindows:
    @settings(max_examples=60, deadline=None)
    @given(count=st.integers(0, 70), most=st.integers(4, 30), shared=st.integers(0, 20))
    def test_they_are_those_of_transformers_but_for_the_last(self, count: int, most: int, shared: int) -> None:
        tokenizer = tiny.tokenizer("bert")
        room = most - 2
        if shared >= room:
            return
        text = " ".join(words(count))
        (found,) = tokens.encode([Question(text)], tokenizer, Cutting(most, "stride", shared))
        ours = [list(one.ids) for one in found.windows()]
        theirs = tokenizer(
            text, truncation=True, max_length=most, stride=shared, return_overflowing_tokens=True
        )["input_ids"]  # fmt: skip
        assert ours[:-1] == theirs[: len(ours) - 1]
        assert len(ours) == len(theirs)
        assert ours[-1][-2:] == theirs[-1][-2:], "the last one ends where the text does"
        assert found.lost == 0
        assert all(len(one) == len(ours[0]) for one in ours), "and is as long as the others"

    def test_every_token_is_in_some_window(self) -> None:
        tokenizer = tiny.tokenizer("bert")
        (found,) = tokens.encode([Question(" ".join(words(200)))], tokenizer, Cutting(MOST, "stride", 4))
        windows = [one.ids for one in found.windows()]
        (whole,) = tokens.encode([Question(" ".join(words(200)))], tokenizer, Cutting(1000))
        joined, place = list(windows[0][1:-1]), len(windows[0]) - 2
        for one in windows[1:]:
            inner = list(one[1:-1])
            assert one[0] == windows[0][0]
            assert one[-1] == windows[0][-1]
            new = min(len(inner) - 4, len(whole.ids) - 2 - place)
            joined, place = [*joined, *inner[len(inner) - new :]], place + new
        assert joined == list(whole.ids[1:-1])

    def test_head_and_tail(self) -> None:
        tokenizer = tiny.tokenizer("bert")
        (whole,) = tokens.encode([Question(" ".join(words(100)))], tokenizer, Cutting(1000))
        (found,) = tokens.encode([Question(" ".join(words(100)))], tokenizer, Cutting(22, "head-tail"))
        inner = whole.ids[1:-1]
        assert list(found.ids) == [whole.ids[0], *inner[:5], *inner[-15:], whole.ids[-1]]
        assert found.lost == 80

    @pytest.mark.parametrize("pool", ["mean", "max"])
    def test_pooling(self, pool: Any) -> None:
        draw = np.random.default_rng(0)
        values, offsets = draw.normal(size=(9, 3)).astype(np.float32), np.asarray([0, 1, 5, 9])
        of = np.mean if pool == "mean" else np.max
        expected = np.stack([of(values[start:end], axis=0) for start, end in ((0, 1), (1, 5), (5, 9))])
        np.testing.assert_allclose(pooled(values, offsets, pool), expected, rtol=1e-6)


def encoded(kind: str, texts: list[str], pool: Any = "mean") -> Encoding:
    asked = tokens.encode([Question(one) for one in texts], tiny.tokenizer(kind), Cutting(MOST, "stride", 4, pool))
    return Encoding.asked(asked, pool)


def model_of(kind: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(
        tiny.config(kind, num_labels=3, pad_token_id=0, initializer_range=0.3)
    ).eval()


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_packed_padded_and_one_by_one_are_the_same(kind: str, pool: Any) -> None:
    """A row's answer is the pooled answer of its windows, by stock code, whatever runs together."""
    texts = [" ".join(words(count, count)) for count in (3, 80, 1, 14, 33, 200)]
    encoding = encoded(kind, texts, pool)
    assert encoding.windows is not None
    assert len(encoding) == 6
    model, stock_model = model_of(kind), model_of(kind)
    expected = []
    with torch.no_grad():
        for start, end in zip(encoding.windows[:-1], encoding.windows[1:], strict=True):
            found = [
                stock_model(input_ids=torch.tensor([encoding.tokens.row(one).tolist()])).logits[0]
                for one in range(start, end)
            ]
            together = torch.stack(found)
            expected.append(together.mean(0) if pool == "mean" else together.max(0).values)
        packed = Execution(model, pad_token_id=0)
        assert isinstance(packed.forward, Packed)
        ours = packed.outputs(model, encoding, np.asarray([5, 0, 3, 1, 2, 4])).values
        torch.testing.assert_close(ours, torch.stack(expected)[[5, 0, 3, 1, 2, 4]], atol=1e-5, rtol=1e-5)
        packed.forward = Padded(0, torch.device("cpu"), "to compare")
        again = packed.outputs(model_of(kind), encoding, np.arange(6)).values
        torch.testing.assert_close(again, torch.stack(expected), atol=1e-5, rtol=1e-5)
        first = packed.outputs(model_of(kind), replace(encoding, windows=None), encoding.windows[:-1]).values
        assert float((first - torch.stack(expected)).abs().max()) > 1e-3, "negative control: the first window alone"


def test_every_window_is_a_row_of_training() -> None:
    encoding = replace(encoded("bert", [" ".join(words(60)), "film"]), targets=np.asarray([1, 0]))
    flat = encoding.flat
    assert flat.windows is None
    assert len(flat) == len(encoding.tokens) > 3
    assert flat.targets.tolist() == [1] * (len(flat) - 1) + [0]
    assert encoding.lengths.tolist() == [int(flat.lengths[:-1].sum()), 3]
    assert encoding.items(np.arange(2)) == 2


def recipe_of(models: Models, train: Path, **sections: Any) -> dict[str, Any]:
    data = {"max_length": MOST, "long_texts": "stride", "stride": 4, **sections.pop("data", {})}
    return tiny.recipe(models("bert"), train, data=data, **{"training": {"num_train_epochs": 2}, **sections})


@pytest.fixture(scope="module")
def finished(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    train = tiny.save_jsonl(folder / "t.jsonl", rows(160))
    workflow.run(recipes.parse(recipe_of(models, train)), folder / "run", progress=False)
    return folder / "run"


class TestRuns:
    def test_nothing_is_cut_and_figures_are_of_rows(self, finished: Path) -> None:
        metrics = RunDirectory(finished).read_metrics()
        assert metrics["truncated_rows"] == {"train": 0, "validation": 0}
        assert metrics["rows"]["train"] + metrics["rows"]["validation"] == 160
        assert (
            len(RunDirectory(finished).read_predictions("tuned", "validation").truth) == metrics["rows"]["validation"]
        )
        facts = json.loads((finished / "adapter" / "featherweight.json").read_text())
        assert (facts["max_length"], facts["long_texts"], facts["stride"], facts["pool"]) == (MOST, "stride", 4, "mean")

    def test_evaluate_predict_and_what_was_saved_agree(self, finished: Path) -> None:
        metrics = RunDirectory(finished).read_metrics()
        found = workflow.evaluate(str(finished))
        assert found["eval_loss"] == pytest.approx(metrics["tuned"]["eval_loss"], abs=1e-5)
        kept = RunDirectory(finished).read_predictions("tuned", "validation")
        texts = [rows(160)[one]["text"] for one in kept.ids]
        ours = load_predictor(str(finished)).answers(texts)["probabilities"]
        np.testing.assert_allclose(ours, kept.answers["probabilities"], atol=1e-5)
        cut = load_predictor(str(finished))
        cut.backend.cutting = Cutting(MOST)
        assert np.abs(cut.answers(texts)["probabilities"] - ours).max() > 1e-3, "negative control"

    def test_a_server_answers_the_same_beside_others(self, finished: Path, models: Models, tmp_path: Path) -> None:
        """Windows of one adapter and short texts of another, with more classes, on one base."""
        draw = random.Random(0)
        three = [
            {"text": " ".join([*words(5, index), draw.choice(tiny.GOOD)]), "label": "abc"[index % 3]}
            for index in range(90)
        ]
        other = tiny.recipe(models("bert"), tiny.save_jsonl(tmp_path / "t.jsonl", three), data={"max_length": 40})
        workflow.run(recipes.parse(other), tmp_path / "other", progress=False)
        texts = [" ".join(words(count, count)) for count in (300, 3, 40, 7)]
        with serving.running(finished, tmp_path / "other") as server:
            for run in (finished, tmp_path / "other"):
                answer = server.predict(texts, run.name)
                assert answer.status == 200, answer.body
                expected = load_predictor(str(run)).predict(texts)
                for place, (found, reply) in enumerate(zip(answer.json["predictions"], expected, strict=True)):
                    for name, share in reply["probabilities"].items():
                        assert found["probabilities"][name] == pytest.approx(share, abs=1e-4)
                    assert found.get("truncated", False) == (run != finished and place in {0, 2})

    def test_an_export_answers_the_same(self, finished: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        workflow.export(finished, "onnx", tmp_path / "out")
        texts = [" ".join(words(count, count)) for count in (300, 3, 40)]
        ours, theirs = (
            load_predictor(str(one)).answers(texts)["probabilities"] for one in (finished, tmp_path / "out")
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("long_texts", ["stride", "head-tail"])
    def test_a_killed_run_resumes_to_the_same_bytes(
        self, long_texts: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(80))
        content = recipe_of(models, train, training=RESUMED)
        if long_texts == "head-tail":
            content["data"] = {key: one for key, one in content["data"].items() if key != "stride"}
            content["data"]["long_texts"] = long_texts
        workflow.run(recipes.parse(content), tmp_path / "whole")
        stopped_and_resumed(content, tmp_path / "stopped", 5, monkeypatch)
        whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
        assert whole["adapter_model.safetensors"] == stopped["adapter_model.safetensors"]


def test_keys_that_do_not_go_together() -> None:
    for keys, named in [
        ({"stride": 8}, "'stride' and 'pool' are for long_texts = 'stride'"),
        ({"long_texts": "stride", "text": ["a", "b"]}, "is for single texts"),
        ({"long_texts": "windows"}, "'cut', 'head-tail' or 'stride'"),
    ]:
        with pytest.raises(ConfigError, match=named):
            recipes.load_data_section({"train_file": "x.csv", **keys})


def test_windows_that_do_not_move_on_are_refused(models: Models, tmp_path: Path) -> None:
    train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(40))
    content = recipe_of(models, train, data={"stride": 14})
    with pytest.raises(ConfigError, match=r"data\.stride: windows of 14 tokens of a text can't share 14"):
        workflow.run(recipes.parse(content), tmp_path / "run", progress=False)


@pytest.mark.slow
def test_memory_of_a_very_long_text_is_that_of_a_short_one(finished: Path) -> None:
    """200,000 words, in a process of their own."""
    script = (
        "import resource, sys; from featherweight.inference.predictor import load_predictor\n"
        "predictor = load_predictor(sys.argv[1])\n"
        "predictor.predict(['film plot ' * 30] * 64)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "(answer,) = predictor.predict(['film plot ' * 100_000])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / before)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(finished)],
        capture_output=True, text=True, timeout=600, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert float(ended.stdout) < 1.2


def test_offsets_of_many_rows_are_those_of_their_windows() -> None:
    encoding = Encoding(Ragged.of([[1], [2, 2], [3], [4]]), np.asarray([7, 8, 9]), windows=np.asarray([0, 1, 3, 4]))
    found = encoding.windows_of(np.asarray([2, 1]))
    assert (found.values.tolist(), found.offsets.tolist()) == ([3, 1, 2], [0, 1, 3])
