"""What more labels would bring: the law against data made by it, the command on a real model, the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import headline
from featherweight.answers.label import Label
from featherweight.evidence import learning_curve as curves
from featherweight.report import tables

Models = Callable[[str], Path]
SIZES = [round(8000 * fraction) for fraction in curves.FRACTIONS]


def drawn(law: tuple[float, float, float], scatter: float, seeds: int = 5, seed: int = 0) -> dict[int, list[float]]:
    generator = np.random.default_rng(seed)
    error = curves.error(np.asarray(SIZES, dtype=float), *law)
    return {size: list(1 - one + generator.normal(0, scatter, seeds)) for size, one in zip(SIZES, error, strict=True)}


@pytest.mark.parametrize("law", [(3.0, 0.5, 0.1), (1.0, 0.3, 0.0), (40.0, 1.0, 0.2)])
def test_the_law_is_found_in_data_that_it_made(law: tuple[float, float, float]) -> None:
    found = curves.summarise(drawn(law, 1e-6), 0)
    assert list(found["law"].values()) == pytest.approx(law, rel=0.05, abs=0.01)
    for one in found["more"]:
        truth = 1 - curves.error(np.asarray([one["rows"]], dtype=float), *law)[0]
        assert one["accuracy"] == pytest.approx(truth, abs=1e-3)


def test_the_band_holds_the_truth_as_often_as_it_says() -> None:
    law = (3.0, 0.5, 0.1)
    truth = 1 - curves.error(np.asarray([16000.0]), *law)[0]
    held = 0
    for seed in range(12):
        low, high = curves.summarise(drawn(law, 0.004, seed=seed), seed)["more"][0]["accuracy_band"]
        held += low <= truth <= high
        assert low < high
    assert held >= 9


def test_a_flat_curve_promises_nothing_and_a_steep_one_does() -> None:
    flat = curves.summarise(drawn((0.0, 0.5, 0.2), 0.004), 0)
    assert "not shown to bring more" in curves.headline(flat, headline(Label))
    steep = curves.summarise(drawn((8.0, 0.5, 0.05), 0.002), 0)
    assert "would bring about +0.0" in curves.headline(steep, headline(Label))


@pytest.mark.parametrize("law", [(0.0, 0.5, 0.2), (8.0, 0.5, 0.05), (3.0, 0.5, 0.1)])
def test_row_97_the_headline_and_the_table_of_a_curve_have_the_same_figures(law: tuple[float, float, float]) -> None:
    """The gain is between two figures of the fitted curve, which are both said; no measured figure is mixed in."""
    found = curves.summarise(drawn(law, 0.01, seed=3), 0)
    line, rows = curves.headline(found, headline(Label)), tables.curve_rows(found)
    cells = [cell for row in rows for cell in row]
    numbers = re.findall(r"[+-]?\d+\.\d+", line)
    for number in numbers:
        assert any(number in cell.split() for cell in cells), (number, line)
    last, twice = rows[len(curves.FRACTIONS) - 1], rows[len(curves.FRACTIONS)]
    assert last[3] in numbers
    assert float(twice[3]) - float(last[3]) == pytest.approx(float(twice[5]), abs=1.5e-4)


def test_draws_are_nested_and_keep_the_shares() -> None:
    labels = np.repeat([0, 1, 2], [700, 290, 10])
    eighth, half, whole = (curves.subset(labels, fraction, 3) for fraction in (1 / 8, 1 / 2, 1))
    assert set(eighth) < set(half) < set(whole) == set(range(1000))
    assert np.bincount(labels[half]).tolist() == [350, 145, 5]
    assert len(np.bincount(labels[curves.subset(labels, 0.001, 3)])) == 3
    assert not np.array_equal(half, curves.subset(labels, 1 / 2, 4))


def test_the_command_writes_a_page_and_json(models: Models, train_csv: Path, tmp_path: Path, cli: Any) -> None:
    asked = ["learning-curve", "--model", models("bert"), "--data", train_csv, "--seeds", "3", "--output-dir", "curve"]
    ended = cli(*asked, "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found == json.loads((tmp_path / "curve" / "learning-curve.json").read_text())
    assert found["method"] == "linear-probe"
    assert [one["rows"] for one in found["points"]][-1] == 216
    assert found["points"][-1]["standard_deviation"] == 0, "all rows are the same rows for every seed"
    html = (tmp_path / "curve" / "learning-curve.html").read_text(encoding="utf-8")
    assert found["headline"] in html
    assert "<polyline" in html
    again = cli(*asked)
    assert again.returncode == 2
    assert "is there already" in again.stderr


@pytest.mark.slow
def test_real_tuning_gives_the_same_kind_of_curve(models: Models, train_csv: Path, tmp_path: Path) -> None:
    content = tiny.recipe(models("bert"), train_csv, training={"num_train_epochs": 1}, data={"max_train_samples": 80})
    found = workflow.learning_curve(recipes.parse(content), tmp_path / "curve", seeds=3, tune=True)
    assert found["method"] == "lora"
    assert [one["rows"] for one in found["points"]] == [10, 14, 20, 28, 40, 57, 80]
    assert len(list((tmp_path / "curve").glob("rows-*/metrics.json"))) == 21
