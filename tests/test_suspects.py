"""Suspected label errors that a recipe leaves out of train: listed, counted, compared, and never of a held-out split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
from test_contracts import killed_and_resumed

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.errors import ConfigError, DataError
from featherweight.evidence.data import checks, label_issues
from featherweight.records.rows import Examples, Rows
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]
FLIPPED = range(7, 200, 13)


def rows(flipped: Any = FLIPPED) -> list[dict[str, Any]]:
    """Every text has its number, so that none is the twin of another; some labels are the wrong one."""
    made = [{**row, "text": f"{row['text']} n{index}"} for index, row in enumerate(tiny.rows(240))]
    for index in flipped:
        made[index]["label"] = {"neg": "pos", "pos": "neg"}[made[index]["label"]]
    return made


def content_of(models: Models, folder: Path, **more: Any) -> dict[str, Any]:
    files = {"validation_file": str(tiny.save_jsonl(folder / "v.jsonl", rows()[200:]))}
    train = tiny.save_jsonl(folder / "t.jsonl", rows()[:200])
    return tiny.recipe(models("bert"), train, data={**files, "drop_suspects": True, **more})


@pytest.fixture(scope="module")
def finished(models: Models, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("suspects")
    content = content_of(models, folder)
    content["training"] |= {"save_strategy": "steps", "save_steps": 4}
    workflow.run(recipes.parse(content), folder / "run", progress=False)
    return folder / "run", content


def listed(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "suspects.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_wrong_labels_are_listed_and_left_out(finished: tuple[Path, dict[str, Any]]) -> None:
    run, _ = finished
    found = listed(run)
    numbers = {one["row"] - 1 for one in found}
    assert len(numbers & {*FLIPPED}) >= 0.8 * len(FLIPPED)
    assert len(numbers - {*FLIPPED}) <= 0.2 * len(FLIPPED)
    for one in found:
        source = rows()[one["row"] - 1]
        assert (one["text"], one["label"]) == (source["text"], source["label"])
        assert one["suggested"] != one["label"]
    assert [one["confidence"] for one in found] == sorted(one["confidence"] for one in found)
    metrics: dict[str, Any] = dict(RunDirectory(run).read_metrics())
    assert metrics["dropped_suspect_rows"] == len(found)
    assert metrics["rows"] == {"train": 200 - len(found), "validation": 40}, "held-out rows are never left out"


def test_a_cheap_rival_is_fitted_with_and_without_them(finished: tuple[Path, dict[str, Any]]) -> None:
    run, _ = finished
    metrics: dict[str, Any] = dict(RunDirectory(run).read_metrics())
    told = metrics["suspects"]
    assert (told["looked_at"], told["dropped"], told["rows"]) == (200, len(listed(run)), 200)
    without = metrics["baselines"]["linear-probe"]
    assert told["fitted_without"]["eval_accuracy"] == pytest.approx(without["eval_accuracy"])
    difference = told["fitted_without"]["eval_accuracy"] - told["fitted_with"]["eval_accuracy"]
    assert told["comparison"]["difference"] == pytest.approx(difference)
    assert told["comparison"]["n"] == 40
    html = (run / "report.html").read_text(encoding="utf-8")
    assert f"{told['dropped']} train rows are left out because their label is suspected to be wrong" in html


def test_with_them_is_the_rival_of_a_run_that_drops_none(
    finished: tuple[Path, dict[str, Any]], models: Models, tmp_path: Path
) -> None:
    content = content_of(models, tmp_path, drop_suspects=False)
    workflow.run(recipes.parse({**content, "training": {"max_steps": 2}}), tmp_path / "run", progress=False)
    whole: dict[str, Any] = dict(RunDirectory(tmp_path / "run").read_metrics())
    assert (whole["dropped_suspect_rows"], whole["rows"]["train"]) == (0, 200)
    assert "suspects" not in whole
    assert not (tmp_path / "run" / "suspects.jsonl").exists()
    told: dict[str, Any] = dict(RunDirectory(finished[0]).read_metrics())["suspects"]
    probe = whole["baselines"]["linear-probe"]
    assert told["fitted_with"]["eval_accuracy"] == pytest.approx(probe["eval_accuracy"])
    (pair,) = workflow.compare([str(tmp_path / "run"), str(finished[0])])["comparisons"]
    assert pair["n"] == 40, "two whole runs are compared on the same held-out rows"


def test_a_resumed_run_leaves_out_the_same_rows(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, content = finished
    killed_and_resumed(content, tmp_path / "out", 6, monkeypatch)
    assert listed(tmp_path / "out") == listed(run)
    one, other = (folder / "adapter" / "adapter_model.safetensors" for folder in (run, tmp_path / "out"))
    assert one.read_bytes() == other.read_bytes()
    told = [dict(RunDirectory(folder).read_metrics())["suspects"] for folder in (run, tmp_path / "out")]
    assert told[0] == told[1]


def test_a_class_that_would_be_emptied_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which confident learning hardly does by itself, so here it is told to."""
    labels = np.arange(40) % 2
    texts = Rows(pa.table({"text": [row["text"] for row in rows()[:40]]}))
    train = Examples("train", texts, ("text",), labels, np.arange(40), 0, "t.jsonl", "x")
    every = [{"row": int(row), "suggested": 1, "confidence": 0.1} for row in np.flatnonzero(labels == 0)]
    monkeypatch.setattr(label_issues, "find", lambda texts, labels, seed: every)
    look = checks.Look(Label(["neg", "pos"]), {"train": train}, {}, {}, 0, None)
    with pytest.raises(DataError, match=r"t\.jsonl: every train row of the class 'neg' has a label that is suspected"):
        label_issues.suspects(look)
    del every[0]
    assert label_issues.suspects(look).kept.tolist() == [0, *range(1, 40, 2)]


def test_other_answers_have_no_suspects(models: Models, tmp_path: Path) -> None:
    numbers = [{**row, "label": 1.5 * len(row["text"])} for row in tiny.rows(60)]
    content = tiny.recipe(models("bert"), tiny.save_jsonl(tmp_path / "n.jsonl", numbers), data={"drop_suspects": True})
    with pytest.raises(ConfigError, match=r"data\.drop_suspects: is for one label a row, which regression has not"):
        workflow.run(recipes.parse({**content, "task": "regression"}), tmp_path / "run")
