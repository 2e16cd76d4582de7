"""Training that goes on from an adapter: ``model.adapter``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_run import stopped_and_resumed

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import Label
from featherweight.errors import FeatherweightError
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]


def run(content: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    return workflow.run(recipes.parse(content), folder, progress=False, **options).metrics


@pytest.fixture(scope="module")
def first(models: Models, train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "run"
    run(
        tiny.recipe(models("bert"), train_csv, data={"labels": ["pos", "neg"]}, training={"num_train_epochs": 3}),
        folder,
    )
    return folder


def going_on(first: Path, models: Models, train_csv: Path, **sections: Any) -> dict[str, Any]:
    model = {"name": str(models("bert")), "adapter": str(first)} | sections.pop("model", {})
    content = tiny.recipe(model["name"], train_csv, training={"num_train_epochs": 2}, **sections) | {"model": model}
    return content if "method" in sections else {key: value for key, value in content.items() if key != "method"}


def answers(folder: Path, model: str) -> Any:
    found = RunDirectory(folder).read_predictions(model, "validation")
    return Label(["neg", "pos"]).taken_from(found.kind, found.answers, found.truth)[0]["probabilities"]  # type: ignore[index,arg-type]


def test_row_99_training_goes_on_from_an_adapter(first: Path, models: Models, train_csv: Path, tmp_path: Path) -> None:
    metrics = run(going_on(first, models, train_csv), tmp_path / "second")
    np.testing.assert_allclose(answers(tmp_path / "second", "base"), answers(first, "tuned"), atol=1e-6)
    assert metrics["started_from"]["adapter"] == str(first)
    began = RunDirectory(first).read_metrics()["epochs"][0]["training_loss"]
    assert metrics["epochs"][0]["training_loss"] < began, "it knows what the first run learned"
    assert (
        "the adapter that it started from" in metrics["headline"] or metrics["comparison"]["verdict"] == "no-difference"
    )
    resolved = recipes.load(tmp_path / "second" / "recipe.toml")
    assert resolved.data.labels == ["pos", "neg"], "the adapter's order, though the data begin with the other"
    assert resolved.method.model_dump()["r"] == 4, "the adapter's rank, which the recipe leaves open"
    assert str(tmp_path) not in (tmp_path / "second" / "recipe.toml").read_text()
    by_name = workflow.predict(tmp_path / "second", ["great film"])
    assert next(iter(by_name))["label"] == "pos"


@pytest.mark.parametrize("start", ["archive", "folder", "a stranger's"])
def test_row_99_a_folder_or_an_archive_will_do(
    start: str, first: Path, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    given = tmp_path / "adapter"
    shutil.copytree(first / "adapter", given)
    data: dict[str, Any] = {}
    if start == "archive":
        given = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", given))
    if start == "a stranger's":
        (given / "featherweight.json").unlink()
        with pytest.raises(FeatherweightError, match=r"name them in data\.labels"):
            run(going_on(given, models, train_csv), tmp_path / "refused")
        data = {"data": {"labels": ["pos", "neg"]}}
    run(going_on(given, models, train_csv, **data), tmp_path / "second")
    np.testing.assert_allclose(answers(tmp_path / "second", "base"), answers(first, "tuned"), atol=1e-6)


@pytest.mark.parametrize("method", [{"name": "linear-probe"}, {"init_lora_weights": "pissa"}, {"use_dora": True}])
def test_row_99_other_methods_go_on_too(
    method: dict[str, Any], models: Models, train_csv: Path, tmp_path: Path
) -> None:
    run(tiny.recipe(models("llama"), train_csv, method=method), tmp_path / "first")
    model = {"name": str(models("llama"))}
    content = going_on(tmp_path / "first", models, train_csv, model=model, method={"name": method.get("name", "lora")})
    run(content, tmp_path / "second")
    np.testing.assert_allclose(answers(tmp_path / "second", "base"), answers(tmp_path / "first", "tuned"), atol=1e-5)


def test_row_99_it_resumes_to_the_same_bytes(
    first: Path, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = going_on(first, models, train_csv)
    run(content, tmp_path / "whole")
    for step in (0, 13):
        folder = tmp_path / f"stopped-{step}"
        stopped_and_resumed(content, folder, step, monkeypatch)
        for name in (
            "adapter/adapter_model.safetensors",
            "adapter/adapter_config.json",
            "predictions/base-validation.parquet",
        ):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_row_99_a_base_whose_own_head_has_other_labels(models: Models, train_csv: Path, tmp_path: Path) -> None:
    base = tiny.save_model(tmp_path / "base", "bert", head=["a", "b", "c"])
    model = {"name": str(base), "head": "new"}
    run(tiny.recipe(base, train_csv) | {"model": model}, tmp_path / "first")
    run(going_on(tmp_path / "first", models, train_csv, model={"name": str(base)}), tmp_path / "second")
    np.testing.assert_allclose(answers(tmp_path / "second", "base"), answers(tmp_path / "first", "tuned"), atol=1e-6)
    next(iter(workflow.predict(tmp_path / "second", ["great film"])))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"method": {"name": "lora", "r": 8}}, "method.r: 8, but .* was made with 4; leave it out"),
        ({"method": {"name": "lora", "use_dora": True}}, "method.use_dora"),
        ({"method": {"name": "linear-probe"}}, "was not made by the method 'linear-probe'"),
        ({"method": {"name": "full"}}, "was not made by the method 'full'"),
        ({"data": {"labels": ["neg", "pos"]}}, "data.labels: the adapter in model.adapter answers 'pos', 'neg'"),
        ({"data": {"labels": ["a", "b"]}}, "data.labels: the adapter in model.adapter answers"),
        ({"model": {"adapter": "runs/none"}}, "runs/none is no run and no adapter"),
        ({"model": {"name": "another"}}, "was made for .*, not for"),
    ],
)
def test_row_99_what_does_not_agree_is_refused_before_the_work(
    sections: dict[str, Any], said: str, first: Path, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    if sections.get("model", {}).get("name"):
        another = tiny.save_model(tmp_path / "another", "bert", seed=7)
        sections = {"model": {"name": str(another)}}
    with pytest.raises(FeatherweightError, match=said) as caught:
        run(going_on(first, models, train_csv, **sections), tmp_path / "second")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "second").exists()


def test_row_99_other_labels_in_the_data_are_named(first: Path, models: Models, tmp_path: Path) -> None:
    other = tiny.save_csv(tmp_path / "other.csv", tiny.rows(80, labels=("bad", "pos")))
    with pytest.raises(FeatherweightError, match="'bad'"):
        run(going_on(first, models, other), tmp_path / "second")


def test_row_99_more_epochs_of_a_finished_run_say_how(
    first: Path, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    more = tiny.recipe(models("bert"), train_csv, data={"labels": ["pos", "neg"]}, training={"num_train_epochs": 6})
    with pytest.raises(FeatherweightError, match=rf"num_train_epochs was 3.*--set model\.adapter={first}"):
        run(more, first, resume=True)
    run(tiny.recipe(models("bert"), train_csv, method={"name": "full"}, training={"max_steps": 2}), tmp_path / "whole")
    with pytest.raises(FeatherweightError, match=r"was tuned whole; give .*model as model\.name"):
        run(going_on(tmp_path / "whole", models, train_csv), tmp_path / "second")
