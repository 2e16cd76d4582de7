"""The ladder's rungs: frozen features and their probe, costs, and which split each figure is of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.label import predicted
from featherweight.engine import Watch, cost
from featherweight.engine.running.embeddings import embeddings
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.features import features
from featherweight.engine.running.padded import Padded
from featherweight.errors import ConfigError, DataError
from featherweight.evidence.selection import expected_largest, optimism
from featherweight.records.rows import Encoding, Ragged
from featherweight.runs.directory import RunDirectory

Models = Callable[[str], Path]


def encoding(rows: int = 23) -> Encoding:
    generator = np.random.default_rng(4)
    lengths = generator.integers(1, 12, rows)
    tokens = generator.integers(6, len(tiny.vocabulary()), int(lengths.sum()), dtype=np.int32)
    return Encoding.unlabelled(Ragged(tokens, np.concatenate([[0], np.cumsum(lengths)])))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_features_are_the_stock_trunks(kind: str, padded: bool, tmp_path: Path) -> None:
    """What the trunk alone gives, row by row, at the token that the head reads: the first or the last."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    folder = tiny.save_model(tmp_path, kind, head=["a", "b", "c"])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    heads = {"bert": ["bert.pooler", "classifier"], "distilbert": ["pre_classifier", "classifier"]}
    head = heads.get(kind, ["classifier"] if kind == "roberta" else ["score"])
    texts, rows = encoding(), np.asarray([5, 2, 19, 0, 7])
    execution = Execution(model, 0)
    assert kind == "roberta" or not isinstance(execution.forward, Padded)  # so small a vocabulary is full of its pad
    if padded:
        execution.forward = Padded(0, torch.device("cpu"), "asked for")
        model.set_attn_implementation("eager")
    before = execution.outputs(model, texts, rows).values.detach()
    found = features(model, head, texts, rows, execution=execution, watch=Watch("features", lambda event: None))
    trunk = AutoModel.from_pretrained(folder).eval()
    place = -1 if kind in tiny.DECODERS else 0
    for row, ours in zip(rows, found, strict=True):
        tokens = torch.from_numpy(texts.tokens.row(int(row)).astype(np.int64)).unsqueeze(0)
        with torch.no_grad():
            theirs = trunk(input_ids=tokens).last_hidden_state[0, place].numpy()
        scale = 2.0 if kind == "bert" else 1.0  # both signs of a linear head add up
        np.testing.assert_allclose(ours, scale * theirs, atol=1e-4)
    assert torch.equal(execution.outputs(model, texts, rows).values, before), "the head is back"


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_embeddings_are_the_stock_trunks_states_pooled(kind: str, padded: bool, tmp_path: Path) -> None:
    """The mean over a text's own tokens, whatever runs beside it, and the model then answers as before."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    folder = tiny.save_model(tmp_path, kind, head=["a", "b", "c"])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = encoding()
    execution = Execution(model, 0)
    if padded:
        execution.forward = Padded(0, torch.device("cpu"), "asked for")
        model.set_attn_implementation("eager")
    before = execution.outputs(model, texts, np.arange(23)).values.detach()
    found = embeddings(model, texts, execution=execution, watch=Watch("embeddings", lambda event: None))
    trunk = AutoModel.from_pretrained(folder).eval()
    for row, ours in enumerate(found):
        tokens = torch.from_numpy(texts.tokens.row(row).astype(np.int64)).unsqueeze(0)
        with torch.no_grad():
            theirs = trunk(input_ids=tokens).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert torch.equal(execution.outputs(model, texts, np.arange(23)).values, before)


@pytest.fixture(scope="module")
def tested(models: Models, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run with a test split of its own, keywords and groups."""
    folder = tmp_path_factory.mktemp("tested")
    rows = [{**row, "document": str(index // 4)} for index, row in enumerate(tiny.rows(240))]
    content = tiny.recipe(
        models("bert"),
        tiny.save_csv(folder / "t.csv", rows),
        data={"test_fraction": 0.25, "keywords": ["FILM", "nowhere"], "group": "document"},
    )
    workflow.run(recipes.parse(content), folder / "run")
    return folder / "run", json.loads((folder / "run" / "metrics.json").read_text())


def test_figures_are_of_the_test_split_where_there_is_one(tested: tuple[Path, dict[str, Any]]) -> None:
    run, metrics = tested
    directory = RunDirectory(run)
    assert metrics["evaluated_split"] == "test"
    assert metrics["rows"] == {"train": 120, "validation": 60, "test": 60}
    assert metrics["comparison"]["n"] == 60
    for name in ("base", "tuned", *metrics["baselines"]):
        answers = {split: directory.read_predictions(name, split) for split in ("validation", "test")}
        right = {split: float((predicted(one.answers) == one.truth).mean()) for split, one in answers.items()}
        shown = metrics[name] if name in metrics else metrics["baselines"][name]
        assert shown["eval_accuracy"] == pytest.approx(right["test"])
        if name in ("base", "tuned"):
            assert metrics["selection"][name]["eval_accuracy"] == pytest.approx(right["validation"])
    ids = [set(directory.read_predictions("tuned", split).ids.tolist()) for split in ("validation", "test")]
    assert not ids[0] & ids[1]
    best = min(metrics["epochs"], key=lambda epoch: epoch["eval_loss"])
    assert metrics["selection"]["tuned"]["eval_loss"] == pytest.approx(best["eval_loss"], rel=1e-5)
    assert metrics["calibration"]["tuned"]["fitted_rows"] == 60, "all of validation"
    assert metrics["calibration"]["tuned"]["reported_rows"] == 60, "all of test"
    assert workflow.evaluate(str(run))["eval_accuracy"] == metrics["tuned"]["eval_accuracy"]
    assert workflow.evaluate(str(run))["split"] == "test"
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "60 test rows, which chose nothing" in html
    assert "a little hopeful" not in html
    (pair,) = workflow.compare([str(run)])["comparisons"]
    assert pair["difference"] == metrics["comparison"]["difference"]
    assert pair["test"] == metrics["comparison"]["test"] == "permutation-by-group"
    assert pair["p_value"] == pytest.approx(metrics["comparison"]["p_value"], abs=0.02), "drawn with another seed"


def test_a_test_split_leaves_validation_as_it_is(
    tested: tuple[Path, dict[str, Any]], models: Models, tmp_path: Path
) -> None:
    """Carving test takes rows of train alone, so that runs with and without it can be compared on validation."""
    rows = [{**row, "document": str(index // 4)} for index, row in enumerate(tiny.rows(240))]
    content = tiny.recipe(models("bert"), tiny.save_csv(tmp_path / "t.csv", rows), data={"group": "document"})
    workflow.run(recipes.parse(content), tmp_path / "run")
    one, other = (RunDirectory(run).read_predictions("base", "validation") for run in (tested[0], tmp_path / "run"))
    assert one.ids.tolist() == other.ids.tolist()
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "chose the best of 2 evaluations" in html
    with pytest.raises(ConfigError, match="leave no row"):
        recipes.parse(tiny.recipe("x", "t.csv", data={"validation_fraction": 0.5, "test_fraction": 0.5}))


def test_keywords_are_slices(tested: tuple[Path, dict[str, Any]]) -> None:
    run, metrics = tested
    found = [one for one in metrics["where"]["slices"] if one["by"] == "keyword"]
    ids = set(RunDirectory(run).read_predictions("tuned", "test").ids.tolist())
    holding = [row for index, row in enumerate(tiny.rows(240)) if index in ids and "film" in row["text"].split()]
    assert [(one["value"], one["rows"]) for one in found] == [("FILM", len(holding))]


def test_every_rung_has_its_cost(tested: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = tested
    costs = [one["cost"] for one in metrics["baselines"].values()]
    costs += [metrics["base"]["cost"], metrics["resources"]["tuning"]]
    for one in costs:
        assert one["seconds"] > 0
        assert one["memory_growth_bytes"] is None or one["memory_growth_bytes"] >= 0
    assert metrics["resources"]["tuning"]["energy"]["joules"] > 0


def test_the_probe_is_scikit_learns(models: Models, train_csv: Path, tmp_path: Path) -> None:
    """On features that stock transformers gives, which a frozen trunk can't change."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel, AutoTokenizer

    workflow.run(recipes.parse(tiny.recipe(models("gpt2"), train_csv)), tmp_path / "run")
    saved = RunDirectory(tmp_path / "run").read_predictions("linear-probe", "validation")
    trunk, tokenizer = AutoModel.from_pretrained(models("gpt2")).eval(), AutoTokenizer.from_pretrained(models("gpt2"))
    states, rows = [], tiny.rows(240)
    for row in rows:
        ids = tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=16)["input_ids"]
        with torch.no_grad():
            states.append(trunk(input_ids=ids).last_hidden_state[0, -1].numpy())
    labels = np.asarray([row["label"] == "pos" for row in rows])
    train = np.setdiff1d(np.arange(240), saved.ids)
    scaler = StandardScaler().fit(np.stack(states)[train])
    stock = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(np.stack(states)[train]), labels[train])
    theirs = stock.predict_proba(scaler.transform(np.stack(states)[saved.ids]))
    np.testing.assert_allclose(saved.answers["probabilities"], theirs, atol=1e-3)


def test_row_41_twins_are_taken_out_of_train_where_asked(models: Models, tmp_path: Path) -> None:
    train = [{**row, "text": f"{row['text']} number {index}"} for index, row in enumerate(tiny.rows(80))]
    held = [{**row, "text": f"{row['text']} held {index}"} for index, row in enumerate(tiny.rows(40, seed=1))]
    train += [{**row, "text": row["text"].upper() + "!"} for row in held[:10]]
    files = {"validation_file": str(tiny.save_csv(tmp_path / "v.csv", held))}
    path = tiny.save_csv(tmp_path / "t.csv", train)
    for drop, rows, twins in ((False, 90, 10), (True, 80, 0)):
        content = tiny.recipe(models("bert"), path, data={**files, "drop_train_twins": drop})
        workflow.run(recipes.parse(content), tmp_path / str(drop))
        metrics = json.loads((tmp_path / str(drop) / "metrics.json").read_text())
        assert metrics["rows"]["train"] == rows
        assert metrics["dropped_twin_rows"] == 90 - rows
        assert metrics["data_checks"]["twins"]["validation"]["normalised"] == twins
    only = tiny.save_csv(tmp_path / "o.csv", [*train[1:80:2], *[row for row in train[80:] if row["label"] == "neg"]])
    content = tiny.recipe(models("bert"), only, data={**files, "drop_train_twins": True})
    with pytest.raises(DataError, match="drop_train_twins = false"):
        workflow.run(recipes.parse(content), tmp_path / "only")


def test_choosing_the_best_of_several_flatters_by_so_much() -> None:
    """Against drawing it: candidates of one true accuracy, independent, on 400 rows."""
    assert optimism(0.02, 1) == 0
    generator, error = np.random.default_rng(0), float(np.sqrt(0.8 * 0.2 / 400))
    for candidates in (2, 5):
        best = generator.binomial(400, 0.8, (20_000, candidates)).max(axis=1) / 400
        assert optimism(error, candidates) == pytest.approx(best.mean() - 0.8, abs=5e-4)
    assert expected_largest(2) == pytest.approx(1 / np.sqrt(np.pi))


def test_energy_is_counted_where_a_counter_can_be_read(tmp_path: Path) -> None:
    def write(name: str, now: int) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "energy_uj").write_text(f"{now}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("100000000\n")

    write("intel-rapl:0", 90_000_000)
    write("intel-rapl:0:0", 5)
    with cost.Meter(tmp_path) as meter:
        grown = bytearray(64 << 20)
        grown[:: 1 << 10] = b"x" * len(grown[:: 1 << 10])
        write("intel-rapl:0", 15_000_000)  # went round once
    assert meter.energy() == {"joules": 25.0, "estimate": False, "source": "RAPL counter of the whole processor"}
    assert meter.cost()["memory_growth_bytes"] >= 60 << 20
    with cost.Meter(tmp_path / "none") as blind:
        sum(range(100_000))
    assert blind.energy()["estimate"]
    assert blind.energy()["joules"] == pytest.approx(blind.cost()["processor_seconds"] * cost.WATTS_PER_CORE)
