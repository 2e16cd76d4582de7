"""Rivals that are for some data alone: the cosine of a pair's texts, and class means where rows are few."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from scipy.stats import spearmanr

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.evidence.baselines import Part, applies
from featherweight.evidence.baselines.labels import Prototype
from featherweight.records.rows import Examples, Rows
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]
Row = dict[str, Any]
QUICK = {"max_steps": 2}


def alike(count: int) -> list[Row]:
    """Pairs that share none to all of their words; the more they share the less the number."""
    draw = random.Random(0)
    words = tiny.GOOD + tiny.BAD + tiny.PLAIN
    found = []
    for index in range(count):
        one = draw.sample(words, 5)
        shared = index % 6
        other = [*one[:shared], *draw.sample(words, 5 - shared)]
        found.append({"sentence1": " ".join(one), "sentence2": " ".join(other), "label": 10 - shared + draw.random()})
    return found


def of_run(content: Row, folder: Path) -> tuple[RunDirectory, Row]:
    workflow.run(recipes.parse(content), folder, progress=False)
    directory = RunDirectory(folder)
    return directory, dict(directory.read_metrics())


def pooled(model: Path, text: str, most: int) -> np.ndarray:
    """As sentence-transformers pools: the mean over all tokens, special ones among them."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, trunk = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    with torch.no_grad():
        states = trunk(**tokenizer(text, return_tensors="pt", truncation=True, max_length=most)).last_hidden_state
    return np.asarray(states[0].mean(dim=0).numpy(), dtype=np.float64)


class TestCosine:
    def test_it_is_that_of_both_texts_alone_on_a_line(self, models: Models, tmp_path: Path) -> None:
        pairs = alike(90)
        train = tiny.save_jsonl(tmp_path / "t.jsonl", pairs)
        content = tiny.recipe(models("bert"), train, data={"max_length": 5}, training=QUICK)
        directory, metrics = of_run({**content, "task": "regression"}, tmp_path / "run")
        assert list(metrics["baselines"]) == ["mean", "tfidf-ridge", "ridge-probe", "cosine"]
        saved = directory.read_predictions("cosine", "validation")

        def cosine(row: Row) -> float:
            one, other = (pooled(models("bert"), row[name], 5) for name in ("sentence1", "sentence2"))
            return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

        cosines = np.asarray([cosine(row) for row in pairs])
        truth = np.asarray([row["label"] for row in pairs])
        known = np.setdiff1d(np.arange(90), saved.ids)
        line = np.polynomial.Polynomial.fit(cosines[known], truth[known], 1).convert()
        np.testing.assert_allclose(saved.answers["value"], line(cosines[saved.ids]), atol=2e-3)
        expected = spearmanr(cosines[saved.ids], saved.truth).statistic
        assert expected < -0.5, "the line falls, and the answers rank as the truth does"
        # Of the answers themselves: rounding ranks those of pairs that are alike, and not alike on all processors.
        told = spearmanr(saved.answers["value"], saved.truth).statistic
        assert metrics["baselines"]["cosine"]["eval_spearman"] == pytest.approx(told, abs=1e-6)

    def test_the_gain_over_it_is_told_by_spearman_too(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", alike(90))
        content = {**tiny.recipe(models("bert"), train, training=QUICK), "task": "regression"}
        _, metrics = of_run(content, tmp_path / "run")
        one = metrics["rungs"]["cosine"]["paired"]["spearman"]
        assert list(metrics["rungs"]["cosine"]["paired"]) == ["spearman"]
        assert one["base"] == metrics["baselines"]["cosine"]["eval_spearman"]
        assert one["tuned"] == metrics["tuned"]["eval_spearman"]
        assert one["confidence_interval"][0] <= one["difference"] <= one["confidence_interval"][1]
        assert "paired" not in metrics["rungs"]["mean"], "others are compared by the headline alone"
        assert "Against cosine by Spearman" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    def test_single_texts_have_none_unless_it_is_named(self, models: Models, tmp_path: Path) -> None:
        rows = [{**row, "label": float(len(row["text"]))} for row in tiny.rows(60)]
        content = {
            **tiny.recipe(models("bert"), tiny.save_jsonl(tmp_path / "t.jsonl", rows), training=QUICK),
            "task": "regression",
        }
        _, metrics = of_run(content, tmp_path / "run")
        assert "cosine" not in {*metrics["baselines"], *metrics["baselines_left_out"]}
        _, metrics = of_run({**content, "evidence": {"baselines": ["mean", "cosine"]}}, tmp_path / "named")
        assert list(metrics["baselines"]) == ["mean"]
        assert "name two columns in data.text" in metrics["baselines_left_out"]["cosine"]


def few(count: int, names: int) -> list[Row]:
    """Texts of the label's own word among others."""
    draw = random.Random(1)
    telling = (tiny.GOOD + tiny.BAD)[:names]
    rows = []
    for index in range(count):
        words = [telling[index % names], *draw.sample(tiny.PLAIN, 2)]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": f"l{index % names}"})
    return rows


class TestPrototype:
    def test_it_answers_the_nearest_class_mean(self, models: Models, tmp_path: Path) -> None:
        rows = few(64, 4)
        content = tiny.recipe(models("bert"), tiny.save_jsonl(tmp_path / "t.jsonl", rows), training=QUICK)
        directory, metrics = of_run(content, tmp_path / "run")
        assert list(metrics["baselines"]) == ["majority", "tfidf-logistic-regression", "prototype", "linear-probe"]
        over_draws = metrics["baselines"]["prototype"]["scatter"]
        assert over_draws["draws"] == 10
        assert over_draws["lowest"] < over_draws["highest"]
        assert f"{over_draws['lowest']:.4f} to {over_draws['highest']:.4f}" in directory.report.read_text(
            encoding="utf-8"
        )
        assert "scatter" not in metrics["baselines"]["linear-probe"]
        saved = directory.read_predictions("prototype", "validation")
        directions = np.stack([pooled(models("bert"), row["text"], 16) for row in rows])
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        labels = np.asarray([int(row["label"][1]) for row in rows])
        known = np.setdiff1d(np.arange(64), saved.ids)
        means = np.stack([directions[known][labels[known] == one].mean(axis=0) for one in range(4)])
        cosines = directions[saved.ids] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        found = saved.answers["probabilities"]
        assert (found.argmax(axis=1) == cosines.argmax(axis=1)).all()
        logs = np.log(found.astype(np.float64))
        slope = np.polyfit((cosines - cosines.mean(axis=1, keepdims=True)).ravel(),
                           (logs - logs.mean(axis=1, keepdims=True)).ravel(), 1)  # fmt: skip
        assert slope[0] > 0
        np.testing.assert_allclose(
            logs - logs.mean(axis=1, keepdims=True),
            slope[0] * (cosines - cosines.mean(axis=1, keepdims=True)),
            atol=1e-2 * slope[0],
        )

    def test_rows_have_no_part_in_the_mean_that_they_sharpen_by(self) -> None:
        """Directions that say nothing of the label: with its own share in the mean each row would seem sure."""
        draw = np.random.default_rng(0)

        def fitted(directions: np.ndarray, labels: np.ndarray) -> float:
            texts = Rows(pa.table({"text": [""] * len(labels)}))
            examples = Examples("train", texts, ("text",), labels, np.arange(len(labels)), 0, "x", "x")
            rival = Prototype()
            rival.fit(Part(examples, lambda rows: directions[rows], lambda asked: directions[asked.ids]), Label("abcd"))
            return rival.temperature

        labels = np.arange(24) % 4
        noise = draw.normal(size=(24, 64)).astype(np.float32)
        assert fitted(noise, labels) > 10, "as good as no answer"
        told = noise + 16 * np.eye(4, 64)[labels]
        assert fitted(told.astype(np.float32), labels) < 3
        assert fitted(noise[:4], labels[:4]) == 1.0, "of classes of one row nothing can be tried"

    def test_with_many_rows_a_class_it_is_no_rival(self) -> None:
        def rows(count: int) -> Examples:
            texts = Rows(pa.table({"text": [""] * count}))
            return Examples("train", texts, ("text",), np.zeros(count), np.arange(count), 0, "x", "x")

        assert applies("prototype", rows(99), Label("ab"))
        assert not applies("prototype", rows(100), Label("ab"))
        assert applies("prototype", rows(100), Label("abc"))
        assert applies("majority", rows(100), Label("ab")), "one that does not say is one always"
