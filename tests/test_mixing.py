"""``data.mix``: several files with a share of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, DataError
from featherweight.recipe import DataSection
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.sources.mixing import COLUMN


def files(folder: Path, *counts: int) -> list[str]:
    return [
        str(tiny.save_jsonl(folder / f"{name}.jsonl", [{**row, "text": f"{row['text']} {name}{number}"}
            for number, row in enumerate(tiny.rows(count, seed=count))]))
        for name, count in zip("abc", counts, strict=False)
    ]  # fmt: skip


def section(mix: dict[str, float], **keys: Any) -> DataSection:
    return data.found(recipes.load_data_section({"mix": mix, **keys}))


def rows(asked: DataSection) -> list[dict[str, Any]]:
    return list(data.load(asked)["train"].rows)


def test_as_many_rows_as_there_are_for_these_shares(tmp_path: Path) -> None:
    one, other = files(tmp_path, 90, 40)
    found = rows(section({one: 3, other: 1}))
    assert Counter(row[COLUMN] for row in found) == {"a.jsonl": 90, "b.jsonl": 30}
    found = rows(section({one: 1, other: 3}))
    assert Counter(row[COLUMN] for row in found) == {"a.jsonl": 13, "b.jsonl": 40}
    texts = [row["text"] for row in found]
    assert len(set(texts)) == len(texts)
    numbers = [row["__row__"] for row in found]
    assert len(set(numbers)) == len(numbers) and max(numbers) == 130


def test_the_seed_draws_them(tmp_path: Path) -> None:
    one, other = files(tmp_path, 60, 20)
    mix = {one: 1, other: 1}
    assert rows(section(mix)) == rows(section(mix)) != rows(section(mix, split_seed=7))
    prints = {data.load(section(mix, split_seed=seed))["train"].fingerprint for seed in (1, 2)}
    prints.add(data.load(section({one: 1, other: 2}, split_seed=1))["train"].fingerprint)
    assert len(prints) == 3


def test_what_would_leave_nothing_is_refused(tmp_path: Path) -> None:
    one, other = files(tmp_path, 60, 20)
    with pytest.raises(DataError, match=r"no row of .*a\.jsonl would be left"):
        rows(section({one: 1, other: 1000}))
    for keys, problem in (
        ({"mix": {one: 1}}, "at least 2"),
        ({"mix": {one: 1, other: 0}}, "greater than 0"),
        ({"mix": {one: 1, other: 1}, "train_file": one}, "either 'train_file' or 'mix'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            recipes.load_data_section(keys)


def test_each_file_is_named_in_the_figures(models: Callable[[str], Path], tmp_path: Path) -> None:
    """Paths are the recipe's folder's, and the run's own recipe gives the same rows again."""
    files(tmp_path, 60, 60)
    content = tiny.recipe(models("bert"), "unused", training={"max_steps": 8})
    content["data"] = {"mix": {"a.jsonl": 2, "b.jsonl": 1}, "max_length": 16, "validation_fraction": 0.3}
    (tmp_path / "recipe.toml").write_text(_toml(content), encoding="utf-8")
    workflow.run(recipes.load(tmp_path / "recipe.toml"), tmp_path / "run", progress=False)
    metrics = RunDirectory(tmp_path / "run").read_metrics()
    named = {one["value"] for one in metrics["where"]["slices"] if one["by"] == COLUMN}
    assert named == {"a.jsonl", "b.jsonl"}
    assert sum(metrics["rows"].values()) == 90
    again = workflow.evaluate(str(tmp_path / "run"))
    assert again["changed_since_run"] == [] and again["eval_loss"] == pytest.approx(
        metrics["tuned"]["eval_loss"], abs=1e-5
    )


def _toml(content: dict[str, Any]) -> str:
    import tomlkit

    return tomlkit.dumps(content)
