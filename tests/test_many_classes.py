"""Many classes: baselines, tables and files that stay bounded and readable, and the same figures as ever with few."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import pyarrow as pa
import pytest
import stock
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.errors import ConfigError
from featherweight.evidence import logistic, words
from featherweight.evidence.baselines import labels as rivals
from featherweight.evidence.data import giveaways
from featherweight.evidence.exhibits import Case
from featherweight.evidence.exhibits.confusion import Confusion, confusion, confusion_cells, mistakes
from featherweight.evidence.exhibits.where import Where, shown_slices
from featherweight.records.rows import Examples, Rows
from featherweight.report import page, tables
from featherweight.runs.directory import RunDirectory
from featherweight.runs.predictions import Predictions

Models = Callable[[str], Path]


def _topics(classes: int, rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Texts of two words that together tell the class, four that tell nothing, and one that occurs nowhere else."""
    draw = random.Random(seed)
    return [
        {
            "text": f"topic{one % 50} thing{one // 50} {' '.join(draw.choices(tiny.PLAIN, k=4))} once{draw.random()}",
            "label": f"label {one:04d}",
        }
        for _ in range(rows)
        for one in range(classes)
    ]


def _words(made: list[dict[str, str]]) -> tuple[list[str], np.ndarray]:
    return [row["text"] for row in made], np.asarray([int(row["label"].split()[1]) for row in made])


@pytest.mark.slow
def test_row_88_two_thousand_classes_run_in_bounded_memory_and_on_one_screen(models: Models, tmp_path: Path) -> None:
    """2,000 classes of 5 rows, from the command line at 80 columns, in a process of its own. It asked for 28 GB."""
    data = tiny.save_csv(tmp_path / "many.csv", _topics(2000, 5))
    script = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
        "sys.stdout.write(done.stdout); sys.stderr.write(done.stderr + '\\nPEAK ' + "
        "str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-m", "featherweight", "run", "--model", str(models("bert")), "--data", str(data),
               "--output-dir", str(tmp_path / "run"), "--set", "training.max_steps=3", "--set", "data.max_length=16"]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.rpartition("PEAK ")[2]) < 1_500_000  # kB
    assert "the 10 commonest of 2,000 labels" in done.stdout
    assert len(done.stdout.splitlines()) < 100
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["baselines"]["tfidf-logistic-regression"]["eval_accuracy"] > 0.9
    assert not metrics["baselines_left_out"]
    sizes = {name: (tmp_path / "run" / name).stat().st_size for name in ("metrics.json", "report.html")}
    assert sizes["metrics.json"] < 3_000_000
    assert sizes["report.html"] < 500_000
    card = (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert len(card) < 20_000
    model, _ = stock.by_card(tmp_path / "run" / "adapter")
    assert model.config.id2label[1999] == "label 1999"


def test_row_88_many_classes_are_fitted_one_by_one_and_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty classes by both ways: the bounded one holds a weight for each class and feature, and answers as well."""
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    texts, labels = _words(_topics(30, 12))
    asked, truth = _words(_topics(30, 4, seed=1))

    def accuracy(kind: type) -> float:
        model = logistic.WordModel(10.0).fit(texts, labels)
        assert isinstance(model._model, kind)
        found = np.concatenate(list(model.probabilities(asked)))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
        return float(np.mean(model.classes[found.argmax(axis=1)] == truth))

    joint = accuracy(LogisticRegression)
    monkeypatch.setattr(logistic, "MOST_JOINT_WEIGHTS", 1000)
    assert accuracy(SGDClassifier) >= joint - 0.03
    monkeypatch.setattr(logistic, "_MOST_WEIGHTS", 30 * 300)
    assert accuracy(SGDClassifier) >= joint - 0.1, "the 300 features that most rows have"


def test_row_88_words_of_much_text_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = _words(_topics(4, 40))
    named = np.concatenate(list(logistic.WordModel(10.0).fit(texts, labels).probabilities(texts)))
    monkeypatch.setattr(words, "_MOST_NAMED_CHARACTERS", 1000)
    model = logistic.WordModel(10.0).fit(texts, labels)
    hashed = np.concatenate(list(model.probabilities(texts)))
    assert model._model.coef_.shape[1] == words._BUCKETS
    np.testing.assert_allclose(hashed, named, atol=0.02)


def test_row_88_a_wide_probe_works_on_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    features = (draw.normal(size=(200, 64)) + 3 * draw.normal(size=(5, 64))[labels]).astype(np.float32)
    monkeypatch.setattr(rivals, "MOST_JOINT_WEIGHTS", 5 * 8)
    model = rivals.fit_probe(features, labels)
    assert model[-1].coef_.shape == (5, 8)
    assert np.mean(model.predict(features) == labels) > 0.95


def test_row_88_a_baseline_that_fails_is_said_and_left_out(
    models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from featherweight.report.console import Console

    def fail(*_: Any) -> None:
        raise MemoryError("Unable to allocate\n28 GiB")

    monkeypatch.setattr(rivals.TfidfLogisticRegression, "fit", fail)
    monkeypatch.setattr(rivals.Majority, "predict", fail)
    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
    metrics = workflow.run(recipes.parse(content), tmp_path / "run", console=Console()).metrics
    assert list(metrics["baselines"]) == ["linear-probe"]
    assert metrics["baselines_left_out"] == dict.fromkeys(
        ["majority", "tfidf-logistic-regression"], "MemoryError: Unable to allocate 28 GiB"
    )
    assert (
        "the baseline majority failed and is left out: MemoryError: Unable to allocate 28 GiB"
        in capsys.readouterr().err
    )
    assert "majority failed and is left out" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_row_88_the_recipe_chooses_the_baselines(models: Models, train_csv: Path, tmp_path: Path) -> None:
    """None of them too; a run of before, which had no such key, is taken up; another choice is another run."""
    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
    chosen = {**content, "evidence": {"baselines": ["linear-probe"]}}
    assert list(workflow.run(recipes.parse(chosen), tmp_path / "one").metrics["baselines"]) == ["linear-probe"]
    none = workflow.run(recipes.parse({**content, "evidence": {"baselines": []}}), tmp_path / "none").metrics
    assert none["baselines"] == {}
    assert "tuned model" in page.one_run(RunDirectory(tmp_path / "none"), none)
    with pytest.raises(ConfigError, match=r"evidence\.baselines was \['linear-probe'\], is None"):
        workflow.run(recipes.parse(content), tmp_path / "one", resume=True)
    everything = workflow.run(recipes.parse(content), tmp_path / "all").metrics
    assert len(everything["baselines"]) == 3
    directory = RunDirectory(tmp_path / "all")
    environment = directory.read_environment()
    assert environment["identity"].pop("evidence.baselines") is None
    directory.write_json(directory.environment, environment)
    workflow.run(recipes.parse(content), tmp_path / "all", resume=True)
    with pytest.raises(ConfigError, match=r"no baseline is named 'linear_probe' \(did you mean 'linear-probe'\?\)"):
        recipes.parse({**content, "evidence": {"baselines": ["linear_probe"]}})


def test_row_88_the_confusion_of_many_classes_keeps_only_what_is_not_zero() -> None:
    draw = np.random.default_rng(0)
    few, many = (draw.random((200, classes)).astype(np.float32) for classes in (20, 21))
    labels = draw.integers(0, 20, 200)
    texts = Examples("x", Rows(pa.table({"text": ["a"] * 200})), "text", labels, np.arange(200), 0, "x", "x")

    def found(probabilities: np.ndarray) -> dict[str, Any]:
        both = pairs.answers(probabilities)
        return dict(Confusion().find(Case(pairs.kind(probabilities), texts, both, both, 0))["where"])

    assert set(found(few)) == {"confusion"}
    cells = found(many)["confusion_cells"]["base"]
    assert cells == confusion_cells(pairs.answers(many), labels)
    dense = np.zeros((21, 21), dtype=int)
    dense[cells["label"], cells["prediction"]] = cells["rows"]
    assert dense.tolist() == confusion(pairs.answers(many), labels)
    where = {"confusion_cells": {"base": cells, "tuned": cells}}
    shares = {"train": {f"label {one}": 0.0 for one in range(21)}}
    sparse = mistakes({"where": where, "label_shares": shares})
    where = {"confusion": dict.fromkeys(["base", "tuned"], dense.tolist())}
    assert sparse == mistakes({"where": where, "label_shares": shares}), "runs of before kept every cell"
    assert sparse[0][3] == max(dense[one, other] for one in range(21) for other in range(21) if one != other)


def test_row_88_tables_show_the_commonest_and_the_worst_labels() -> None:
    from rich.console import Console

    shares = {"train": {f"label {one}": (one + 1) / 5050 for one in range(100)}, "validation": {}}
    console = Console(width=80, record=True, markup=False)
    console.print(tables.described(Label.described, shares, {"train": range(5050), "validation": range(10)}))
    text = console.export_text()
    assert "label 99 " in text
    assert "label 89 " not in text
    assert "(90 others)" in text
    kept = [
        {"by": "label", "value": f"label {one}", "rows": one + 1, "base": 0.1, "tuned": one / 100} for one in range(100)
    ]
    length = {"by": "length", "value": "1 word", "rows": 100, "base": 0.1, "tuned": 0.9}
    metrics = {"where": {"slices": [*kept, length]}}
    (found,) = Where().brief(metrics)
    assert [row[0] for row in found.rows] == [f"label {one}" for one in range(10)]
    shown, said = shown_slices(metrics)
    assert [one["value"] for one in shown] == [f"label {one}" for one in (*range(20), *range(80, 100))] + ["1 word"]
    assert "100 labels" in said
    assert Where().brief({"where": {"slices": kept[:10]}}) == []
    assert shown_slices({"where": {"slices": kept[:40]}}) == (kept[:40], "")


def test_row_88_what_gives_labels_away_is_counted_without_a_table_of_all_pairs() -> None:
    """Against the dense count, ties among labels included."""
    draw = np.random.default_rng(0)
    codes, labels = draw.integers(0, 30, 1500), draw.integers(0, 12, 1500)
    table = np.zeros((30, 12))
    np.add.at(table, (codes, labels), 1)
    values, found = giveaways._commonest_labels(codes, labels)
    np.testing.assert_array_equal(found, table.argmax(axis=1)[values])
    texts = [f"word{one} tell{label}" if label % 3 else f"word{one}" for one, label in zip(codes, labels, strict=True)]
    words = giveaways.words(texts, labels)
    assert {one["word"] for one in words} == {f"tell{label}" for label in range(12) if label % 3}
    assert all(one["rows"] == int((labels == one["label"]).sum()) and one["share"] == 1 for one in words)


def test_row_88_probabilities_are_kept_and_read_without_an_object_for_each(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    draw = np.random.default_rng(0)
    probabilities = draw.random((7, 300)).astype(np.float32)
    directory = RunDirectory(tmp_path)
    names = [f"label {one}" for one in range(300)]
    kept = Predictions(np.arange(7), Label(names), pairs.answers(probabilities), np.arange(7))
    directory.write_predictions("tuned", "test", kept)
    read = directory.read_predictions("tuned", "test")
    np.testing.assert_array_equal(read.answers["probabilities"], probabilities)
    np.testing.assert_array_equal(read.truth, np.arange(7))
    table = pq.read_table(tmp_path / "predictions" / "tuned-test.parquet")
    assert table.schema.field("probabilities").type == pa.list_(pa.float32()), "as runs of before have it"
