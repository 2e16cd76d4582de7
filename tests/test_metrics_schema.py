"""``metrics.json`` is a contract: what runs write is what ``docs/metrics.schema.json`` says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny
from conftest import ROOT
from test_golden import GOLDEN, MASKED

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import Answer
from featherweight.registry import ANSWERS

SCHEMA = json.loads((ROOT / "docs" / "metrics.schema.json").read_text(encoding="utf-8"))
Metrics = dict[str, Any]


def wrong(metrics: Metrics) -> list[str]:
    """Where a metrics.json is not what the schema says."""
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(metrics)
    return [f"{'.'.join(map(str, one.path))}: {one.message}" for one in errors if not is_masked(one)]


def is_masked(error: jsonschema.ValidationError) -> bool:
    """Whether it is about a value that the goldens leave out."""
    return error.instance is None and bool(error.path) and MASKED.search(str(error.path[-1])) is not None


@pytest.fixture(scope="module")
def metrics(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    """A fresh run's, as the file has it."""
    folder = tmp_path_factory.mktemp("schema") / "run"
    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 6})
    workflow.run(recipes.parse(content), folder, progress=False)
    found: Metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_run_writes_what_the_schema_says(metrics: Metrics) -> None:
    jsonschema.validate(metrics, SCHEMA)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_agreed_on_is_what_the_schema_says(path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))["metrics.json"]
    assert wrong(golden) == []
    without_version = {key: value for key, value in golden.items() if key != "schema_version"}
    assert len(wrong(without_version)) == 1, "negative control"


def test_every_key_that_a_run_writes_is_described(metrics: Metrics) -> None:
    assert metrics.keys() <= SCHEMA["properties"].keys()
    for one in (SCHEMA, *SCHEMA["$defs"].values()):
        assert all(value["description"] for value in one["properties"].values())


def test_every_kind_of_answer_has_its_truth_described() -> None:
    kinds: list[type[Answer]] = [ANSWERS[name] for name in ANSWERS]
    assert {kind.described.key for kind in kinds} <= SCHEMA["properties"].keys()


def broken(where: str, value: Any = None) -> Callable[[Metrics], None]:
    """What takes away the key at a dotted path, or puts a value there."""
    *path, last = where.split(".")

    def do(metrics: Metrics) -> None:
        found = metrics
        for key in path:
            found = found[key]
        if value is None:
            del found[last]
        else:
            found[last] = value

    return do


@pytest.mark.parametrize(
    "spoil",
    [
        broken("headline"),
        broken("tuned.eval_loss"),
        broken("comparison.p_value"),
        broken("reliability.gate"),
        broken("schema_version", 2),
        broken("rows.train", 1.5),
        broken("tuned.eval_accuracy", "0.9"),
        broken("tuned.eval_accuracy_interval", [0.1]),
        broken("baselines.majority.eval_macro_f1", True),
        broken("comparison.verdict", "perhaps"),
        broken("resources.tuning.energy.joules", "10"),
        broken("paired.accuracy.difference", "none"),
    ],
)
def test_what_is_missing_or_of_another_type_is_seen(metrics: Metrics, spoil: Callable[[Metrics], None]) -> None:
    """Negative controls."""
    spoilt = copy.deepcopy(metrics)
    spoil(spoilt)
    assert len(wrong(spoilt)) == 1


def test_new_keys_are_allowed(metrics: Metrics) -> None:
    """A kind of answer, an exhibit or a later version adds some."""
    more = copy.deepcopy(metrics)
    more["tuned"]["eval_mean_absolute_error"] = 0.5
    more["comparison"]["new"] = more["new"] = {"anything": 1}
    jsonschema.validate(more, SCHEMA)
