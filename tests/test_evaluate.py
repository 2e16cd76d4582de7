"""``evaluate`` and ``export`` know their run's data, and ``evaluate`` shows what ``metrics.json`` has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, DataError
from featherweight.tasks.columns import LabelColumns

Models = Callable[[str], Path]


class Lines:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        from featherweight.report.console import Console

        self.lines: list[str] = []
        self.console = Console(quiet=True)
        self.console.say = self.lines.append  # type: ignore[method-assign]


def run(models: Models, folder: Path, rows: list[dict[str, Any]], **data: Any) -> Path:
    train = tiny.save_csv(folder / "train.csv", rows)
    content = tiny.recipe(models("bert"), train, data=data, training={"num_train_epochs": 2})
    workflow.run(recipes.parse(content), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def made(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(models, tmp_path_factory.mktemp("made"), tiny.rows(160))


@pytest.fixture
def finished(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its data, to be changed; beside the first, for its paths are relative."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(made.parent, folder, dirs_exist_ok=True)
    return folder / "run"


def test_row_95_evaluate_says_what_metrics_json_says(finished: Path) -> None:
    kept = json.loads((finished / "metrics.json").read_text())["tuned"]
    found = workflow.evaluate(str(finished))
    same = [key for key in kept if key.startswith("eval_") and "per_second" not in key and key != "eval_runtime"]
    assert "eval_accuracy_interval" in same
    assert {"eval_macro_f1", "eval_balanced_accuracy", "eval_matthews_correlation"} <= set(same)
    for key in same:
        assert found[key] == pytest.approx(kept[key], abs=1e-6)
    assert found["own_held_out_rows"] is True
    assert found["changed_since_run"] == []


def test_row_95_each_labels_figures_are_scikit_learns(finished: Path, tmp_path: Path) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    from featherweight.inference.predictor import load_predictor

    rows = [*tiny.rows(30, seed=5), *({"text": "the plot", "label": "neg"} for _ in range(9))]
    new = tiny.save_csv(tmp_path / "new.csv", rows)
    found = workflow.evaluate(str(finished), LabelColumns(train_file=str(new)))
    answers = [one["label"] for one in load_predictor(finished).predict([row["text"] for row in rows])]
    stock = precision_recall_fscore_support(
        [row["label"] for row in rows], answers, labels=["neg", "pos"], zero_division=0
    )
    for index, name in enumerate(("neg", "pos")):
        ours = found["labels"][name]
        assert [ours[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(
            [one[index] for one in stock]
        )


def test_row_95_the_file_is_called_by_its_name(finished: Path, tmp_path: Path, cli: Any) -> None:
    tiny.save_csv(tmp_path / "new.csv", tiny.rows(20, seed=5))
    shown = cli("evaluate", finished, "--data", "new.csv")
    assert shown.returncode == 0, shown.stderr
    assert "new.csv (20 rows)" in shown.stdout
    assert "train" not in shown.stdout.replace(str(finished), "")
    for row in ("eval_macro_f1", "eval_accuracy_interval", "precision"):
        assert row in shown.stdout


def test_row_74_changed_data_is_said_and_never_called_held_out(finished: Path) -> None:
    train = finished.parent / "train.csv"
    train.write_text(train.read_text() + "lovely film,pos\n" * 9)
    heard = Lines()
    found = workflow.evaluate(str(finished), console=heard.console)
    assert found["own_held_out_rows"] is False
    assert found["changed_since_run"] == [str(train)]
    assert found["data"] == str(train)
    (line,) = heard.lines
    assert line.startswith(f"{train} changed since the run")
    with pytest.raises(DataError, match=r"train\.csv changed since .*bring the data back"):
        workflow.export(finished, "merged")
    assert not (finished / "exports").exists()


def test_row_74_reordered_labels_changed_and_gone_files_are_named(finished: Path, cli: Any) -> None:
    train = finished.parent / "train.csv"
    raw, content = train.read_bytes(), train.read_text()
    header, *rows = content.splitlines()
    train.write_text("\n".join([header, *rows[::-1]]) + "\n")
    assert workflow.evaluate(str(finished))["own_held_out_rows"] is False
    train.write_text(content.replace(",neg", ",bad"))
    with pytest.raises(DataError, match=r"train\.csv: row 1: the label 'bad' .*\(changed since"):
        workflow.evaluate(str(finished))
    train.unlink()
    for command in (["evaluate", finished], ["export", finished, "--format", "merged"]):
        refused = cli(*command)
        assert refused.returncode == 3
        assert "no such file" in refused.stderr
        assert "bring it back" in refused.stderr.strip().splitlines()[-1]
    train.write_bytes(raw)
    assert workflow.evaluate(str(finished))["own_held_out_rows"] is True


def test_row_74_rows_that_are_drawn_otherwise_are_not_held_out(finished: Path) -> None:
    """The files are as they were, but the recipe beside the run is not."""
    recipe = finished / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("split_seed = 42", "split_seed = 7"))
    found = workflow.evaluate(str(finished))
    assert found["own_held_out_rows"] is False
    assert found["changed_since_run"] == [f"how validation rows are drawn from {finished.parent / 'train.csv'}"]
    with pytest.raises(DataError, match="how validation rows are drawn"):
        workflow.export(finished, "merged")


def test_row_74_held_out_rows_of_a_file_of_their_own_stay_so_where_train_changes(
    models: Models, tmp_path: Path
) -> None:
    other = tiny.save_csv(tmp_path / "validation.csv", tiny.rows(30, seed=9))
    folder = run(models, tmp_path, tiny.rows(60), validation_file=str(other))
    train = tmp_path / "train.csv"
    train.write_text(train.read_text() + "lovely film,pos\n")
    heard = Lines()
    found = workflow.evaluate(str(folder), console=heard.console)
    assert (found["own_held_out_rows"], found["changed_since_run"]) == (True, [str(train)])
    assert heard.lines == [f"{train} changed since the run; the validation rows are those that it held out"]
    assert workflow.export(folder, "merged")["n"] == 30
    other.write_text(other.read_text() + "lovely film,pos\n")
    found = workflow.evaluate(str(folder))
    assert (found["own_held_out_rows"], found["changed_since_run"]) == (False, [str(train), str(other)])
    with pytest.raises(DataError, match=r"validation\.csv changed since"):
        workflow.export(folder, "adapter")


def test_row_74_a_given_file_that_was_trained_on_is_named(finished: Path, tmp_path: Path) -> None:
    train = finished.parent / "train.csv"
    for section in (LabelColumns(train_file=str(train)), None):
        heard = Lines()
        found = workflow.evaluate(str(finished), section, split="train", console=heard.console)
        assert found["own_held_out_rows"] is False
        assert ["train.csv is what the run was trained on" in line for line in heard.lines] == [True]
    other = tiny.save_csv(tmp_path / "new.csv", tiny.rows(20, seed=5))
    heard = Lines()
    workflow.evaluate(str(finished), LabelColumns(train_file=str(other)), console=heard.console)
    assert heard.lines == []


def test_row_71_evaluate_reads_a_column_in_one_way(models: Models, tmp_path: Path) -> None:
    stars = [{**row, "label": index % 3 + 1} for index, row in enumerate(tiny.rows(60))]
    folder = run(models, tmp_path, stars)
    for labels, row in (([0, 1, 2] * 4, 1), ([1, 2, 3, 0, 1], 4)):
        rows = [{**one, "label": label} for one, label in zip(tiny.rows(12, seed=3), labels, strict=False)]
        new = tiny.save_csv(tmp_path / "new.csv", rows)
        with pytest.raises(DataError, match=rf"new\.csv: row {row}: the label '0' is none of '1', '2', '3'"):
            workflow.evaluate(str(folder), LabelColumns(train_file=str(new)))
        with pytest.raises(ConfigError, match=r"answers '1', '2', '3'"):  # for 1 and 2 would be other stars
            workflow.evaluate(str(folder), LabelColumns(train_file=str(new), labels=["0", "1", "2"]))


def test_row_95_evaluate_takes_other_names_for_the_outputs(finished: Path, tmp_path: Path) -> None:
    rows = tiny.rows(20, seed=5)
    words = {"neg": "bad", "pos": "good"}
    new = tiny.save_csv(tmp_path / "new.csv", [{**row, "label": words[row["label"]]} for row in rows])
    expected = workflow.evaluate(
        str(finished), LabelColumns(train_file=str(tiny.save_csv(tmp_path / "same.csv", rows)), labels=["pos", "neg"])
    )
    assert list(expected["labels"]) == ["neg", "pos"], "the model's own names are known by name, whatever their order"
    with pytest.raises(DataError, match=r"'bad' is none of 'neg', 'pos'.*data\.labels"):
        workflow.evaluate(str(finished), LabelColumns(train_file=str(new)))
    found = workflow.evaluate(str(finished), LabelColumns(train_file=str(new), labels=["bad", "good"]))
    assert found["eval_accuracy"] == expected["eval_accuracy"]
    assert list(found["labels"]) == ["bad", "good"]
    for labels in (["good", "neg"], ["a", "b", "c"]):
        with pytest.raises(ConfigError, match=r"data\.labels: .* answers 'neg', 'pos'"):
            workflow.evaluate(str(finished), LabelColumns(train_file=str(new), labels=labels))


def test_row_95_an_onnx_export_is_evaluated_as_its_run(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    workflow.export(finished, "onnx", tmp_path / "onnx")
    section = LabelColumns(train_file=str(tiny.save_csv(tmp_path / "new.csv", tiny.rows(40, seed=5))))
    run, export = (workflow.evaluate(str(one), section) for one in (finished, tmp_path / "onnx"))
    assert run.keys() == export.keys()
    assert export["eval_loss"] == pytest.approx(run["eval_loss"], abs=1e-4)
    for key in ("labels", "eval_accuracy_interval", "eval_macro_f1", "n"):
        assert export[key] == run[key]
    with pytest.raises(ConfigError, match="--data"):
        workflow.evaluate(str(tmp_path / "onnx"))
