"""What a run of labels has of a third party's parts: run by ``test_contracts`` where the package is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.registry import ANSWERS, BASELINES, CHECKS, EXHIBITS, TASKS


@pytest.fixture(scope="module")
def run(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = tiny.rows(80)
    rows[0]["text"] = rows[0]["text"].upper()
    content = tiny.recipe(models("bert"), tiny.save_csv(folder / "rows.csv", rows))
    content["training"]["report_to"] = "diary"
    workflow.run(recipes.parse(content), folder / "out")
    return folder / "out"


def test_a_run_has_the_statistic_the_baseline_the_exhibit_and_the_check(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for one in (metrics["base"], metrics["tuned"], *metrics["epochs"], metrics["baselines"]["first-word"]):
        assert 0 < one["eval_geometric_mean_probability"] <= 1
    pair = metrics["paired"]["geometric_mean_probability"]
    low, high = pair["confidence_interval"]
    assert low < pair["difference"] < high
    own = ["majority", "tfidf-logistic-regression", "prototype", "linear-probe"]
    assert list(metrics["baselines"]) == [*own, "first-word"]
    assert "first-word" in metrics["rungs"]
    assert 0.5 <= metrics["certainty"]["tuned"] <= 1
    assert metrics["data_checks"]["shouting"] == 1
    assert "1 texts are in capitals." in metrics["data_checks"]["warnings"]


def test_readers_see_them(run: Path) -> None:
    report, card = ((run / name).read_text(encoding="utf-8") for name in ("report.html", "adapter/README.md"))
    for said in (">Certainty</h2>", "first-word", "geometric mean probability", "Texts in capitals: 1."):
        assert said in report
    for said in ("The mean probability of its answers is", "first-word", "geometric mean probability"):
        assert said in card


def test_an_observer_was_told_how_it_went(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    evaluations = [f"step {8 * one['epoch']:g}: validation loss {one['eval_loss']:.4f}" for one in metrics["epochs"]]
    written = (run / "diary.txt").read_text(encoding="utf-8").splitlines()
    assert written == ["tiny-out: on from step 0, seed 42", *evaluations, metrics["headline"]]


def test_another_kind_of_answer_has_none_of_them() -> None:
    """Negative control: each says for which kinds of answer it is."""
    assert "ordinal" in ANSWERS
    assert "ordinal-regression" in TASKS
    for table, name in ((BASELINES, "first-word"), (EXHIBITS, "certainty"), (CHECKS, "shouting")):
        assert name in table.for_kind((), "label")
        assert name not in table.for_kind((), "number")
        assert name not in table.for_kind((), "ordinal")


def test_a_typing_error_in_the_tasks_own_section_is_one_line(run: Path) -> None:
    from featherweight.errors import ConfigError

    content = {**tiny.recipe("model", "rows.csv", data={"rank": 7}), "task": "ordinal-regression"}
    with pytest.raises(ConfigError, match=r"data\.rank.*did you mean 'ranks'"):
        recipes.parse(content)
