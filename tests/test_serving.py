"""Adapters that share a base model: exact whatever else is in the batch; the server's answers are the predictor's."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import serving
import tiny

import featherweight
from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.inference.loading import load_tuned, origin_of
from featherweight.inference.shared_base import SharedBase, weights_of
from featherweight.records.questions import Question
from featherweight.serving.catalogue import BASE, Catalogue

TEXTS = [row["text"] for row in tiny.rows(24, seed=9)] + ["great", "", "no-such-word the the the the"]
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"name": "lora", "r": 4, "lora_alpha": 8},
    "wide": {"name": "lora", "r": 8, "lora_alpha": 64, "use_rslora": True},
    "dora": {"name": "lora", "r": 4, "use_dora": True},
    "full": {"name": "full"},
    "probe": {"name": "linear-probe"},
    "rewritten": {"name": "lora", "r": 4, "lora_alpha": 8, "init_lora_weights": "pissa"},
}
SHARED = {"plain", "wide", "three", "probe"}
MORE = {"fifth", "sixth", "seventh", "eighth"}
OWN = {"dora", "full"}


def make(folder: Path, model: Path, name: str, kind: str, seed: int = 1) -> Path:
    labels = ("bad", "good", "odd") if name == "three" else ("neg", "pos")
    rows = tiny.rows(120, seed=seed)
    if name == "three":
        rows = [{**row, "label": labels[index % 3]} for index, row in enumerate(rows)]
    content = tiny.recipe(
        model, tiny.save_csv(folder / f"{name}.csv", rows), method=METHODS.get(name, METHODS["plain"]),
        training={"seed": seed, "learning_rate": 3e-2, "max_steps": 6},
    )  # fmt: skip
    workflow.run(recipes.parse(content), folder / name)
    return folder / name


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama", "distilbert"])
def several(
    request: pytest.FixtureRequest, models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs on one base: LoRA of unlike rank, scale and number of classes; in BERT's case what needs its own model."""
    folder = tmp_path_factory.mktemp(f"several-{request.param}")
    kind = request.param
    names = [*SHARED, *(OWN | MORE if kind == "bert" else ())]
    return {name: make(folder, models(kind), name, kind, seed) for seed, name in enumerate(sorted(names))}


def probabilities(predictions: list[dict[str, Any]]) -> list[list[float]]:
    return [list(one["probabilities"].values()) for one in predictions]


def load(paths: dict[str, Path]) -> Catalogue:
    catalogue = Catalogue()
    for name, path in paths.items():
        catalogue.load(name, str(path))
    return catalogue


def test_row_65_mixed_batches_equal_single_adapters(several: dict[str, Path]) -> None:
    """8 adapters for BERT, 4 for the others."""
    catalogue, sharing = load(several), sorted(set(several) - OWN)
    rng = np.random.default_rng(0)
    expected = {name: featherweight.load_predictor(str(path)).predict(TEXTS) for name, path in several.items()}
    served = {name: catalogue.find(name) for name in several}
    bases = {id(one.backend) for name, one in served.items() if name in sharing}
    assert len(bases) == 1, "adapters of one base share it"
    shared = served["plain"].backend
    asked = [(name, index) for name in sharing for index in range(len(TEXTS))]
    for size in (len(asked), 17, 2, 1):
        chosen = [asked[int(one)] for one in rng.permutation(len(asked))[:size]]
        prepared = [shared.prepare(served[name].key, [Question(TEXTS[index])])[0] for name, index in chosen]
        answers = shared.answer([served[name].key for name, _ in chosen], prepared)
        for (name, index), answer in zip(chosen, answers, strict=True):
            assert answer["label"] == expected[name][index]["label"]
            np.testing.assert_allclose(
                list(answer["probabilities"].values()), list(expected[name][index]["probabilities"].values()), atol=1e-5
            )
    for name in set(several) & OWN:
        own = served[name].backend
        assert own is not shared
        got = own.answer([name] * len(TEXTS), own.prepare(name, list(map(Question, TEXTS))))
        np.testing.assert_allclose(probabilities(got), probabilities(expected[name]), atol=1e-5)


def test_row_65_negative_control_the_adapters_differ(several: dict[str, Path]) -> None:
    """If adapters were mixed up, the test above would see it."""
    answers = {
        name: probabilities(featherweight.load_predictor(str(several[name])).predict(TEXTS))
        for name in ("plain", "wide")
    }
    assert np.abs(np.subtract(answers["plain"], answers["wide"])).max() > 1e-2


def test_the_untuned_model_is_the_one_that_the_run_measured(several: dict[str, Path]) -> None:
    """Of every kind of run, whether or not it shares its base."""
    catalogue = load(several)
    for name, path in several.items():
        texts, measured = untuned(path)
        np.testing.assert_allclose(ask(catalogue, name + BASE, texts), measured, atol=1e-5)


def test_unloading_leaves_the_others_as_they_were(several: dict[str, Path]) -> None:
    catalogue = load({name: several[name] for name in SHARED})
    plain = catalogue.find("plain")
    assert isinstance(plain.backend, SharedBase)
    before = plain.backend.answer([plain.key], plain.backend.prepare(plain.key, [Question(TEXTS[0])]))
    catalogue.unload("wide")
    assert catalogue.find("wide") is None
    assert catalogue.find("wide" + BASE) is None
    assert plain.backend.answer([plain.key], plain.backend.prepare(plain.key, [Question(TEXTS[0])])) == before
    for name in SHARED - {"wide"}:
        catalogue.unload(name)
    assert catalogue.all() == []
    assert catalogue._bases == {}, "the base goes with its last adapter"


# Row 75: what rewrites the base, or repeats its layers, shares nothing, and nobody else's answers change.


@pytest.fixture(scope="module", params=["bert", "llama"])
def unlike(
    request: pytest.FixtureRequest, models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs on one base, and adapters of strangers that rewrite it or repeat its layers."""
    folder = tmp_path_factory.mktemp(f"unlike-{request.param}")
    base = models(request.param)
    names = ("plain", "rewritten", "probe", "full")
    made = {name: make(folder, base, name, request.param, seed) for seed, name in enumerate(names)}
    made |= {name: adapted(folder / name, base, init_lora_weights=name) for name in ("pissa", "olora")}
    if request.param == "llama":
        made["repeated"] = adapted(folder / "repeated", base, layer_replication=[[0, 2], [0, 2]])
    return made


def adapted(folder: Path, base: Path, **options: Any) -> Path:
    """An adapter of a stranger, by stock PEFT, whose matrices are all filled."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules="all-linear", **options)
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base, pad_token_id=0), config)
    for name, value in model.named_parameters():
        if ".lora_B." in name or ".modules_to_save." in name:
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    return folder


def ask(catalogue: Catalogue, name: str, texts: list[str] = TEXTS) -> list[list[float]]:
    served = catalogue.find(name)
    assert served is not None, name
    return probabilities(
        served.backend.answer([served.key] * len(texts), served.backend.prepare(served.key, list(map(Question, texts))))
    )


def untuned(run: Path) -> tuple[list[str], list[list[float]]]:
    """The texts and the answers of the base model, as the run measured it."""
    measured = pq.read_table(run / "predictions" / "base-validation.parquet")
    with run.with_suffix(".csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [rows[index]["text"] for index in measured["id"].to_pylist()], measured["probabilities"].to_pylist()


def test_row_75_what_rewrites_its_base_is_served_as_it_is_in_any_order(unlike: dict[str, Path]) -> None:
    expected = {
        name: probabilities(featherweight.load_predictor(str(path)).predict(TEXTS)) for name, path in unlike.items()
    }
    orders = [*itertools.permutations(("plain", "pissa", "olora")), sorted(unlike), sorted(unlike, reverse=True)]
    for order in orders:
        catalogue = load({name: unlike[name] for name in order})
        for name in order:
            np.testing.assert_allclose(ask(catalogue, name), expected[name], atol=1e-5, err_msg=f"{name} of {order}")
            if (unlike[name] / "recipe.toml").is_file():
                texts, measured = untuned(unlike[name])
                got = ask(catalogue, name + BASE, texts)
                np.testing.assert_allclose(got, measured, atol=1e-5, err_msg=f"{name}@base of {order}")


def test_row_75_negative_control_the_base_is_rewritten(unlike: dict[str, Path]) -> None:
    """These adapters' own base layers are not the base model's; a plain one's are, and it shares them. So does what a
    run began at the base model's weights, for it is published as an update of them."""
    catalogue = load({name: unlike[name] for name in ("plain", "probe", "rewritten")})
    for name in ("probe", "rewritten"):
        assert catalogue.find("plain").backend is catalogue.find(name).backend
    for name in set(unlike) - {"plain", "probe", "full", "rewritten"}:
        loaded = load_tuned(str(unlike[name]), origin_of(str(unlike[name])))
        weights = weights_of(loaded)
        assert weights is not None, "plain LoRA by its layers"
        assert not catalogue.find("plain").backend.is_under(loaded, weights), name


def test_row_75_a_run_that_draws_a_new_head_is_untuned_with_that_head(tmp_path: Path) -> None:
    """The base has a trained head for the same labels, which the run did not begin with."""
    base = tiny.save_model(tmp_path / "base", "bert", head=("neg", "pos"))
    content = tiny.recipe(base, tiny.save_csv(tmp_path / "run.csv", tiny.rows(80)), training={"max_steps": 3})
    content["model"]["head"] = "new"
    workflow.run(recipes.parse(content), tmp_path / "run")
    texts, measured = untuned(tmp_path / "run")
    np.testing.assert_allclose(ask(load({"run": tmp_path / "run"}), "run" + BASE, texts), measured, atol=1e-5)


def test_row_75_models_with_another_tokenizer_share_nothing(models: Callable[[str], Path], tmp_path: Path) -> None:
    """Two folders with the same weights; in one, two words have changed places."""
    other = tmp_path / "other"
    shutil.copytree(models("bert"), other)
    text = (other / "tokenizer.json").read_text()
    swapped = text.replace('"great"', '"?"').replace('"awful"', '"great"').replace('"?"', '"awful"')
    (other / "tokenizer.json").write_text(swapped)
    paths = {name: make(tmp_path, base, name, "bert") for name, base in (("one", models("bert")), ("two", other))}
    catalogue = load(paths)
    for name, path in paths.items():
        expected = probabilities(featherweight.load_predictor(str(path)).predict(TEXTS))
        np.testing.assert_allclose(ask(catalogue, name), expected, atol=1e-5)


def test_row_75_an_archive_is_served_as_its_run(unlike: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(unlike["plain"], tmp_path / "plain")
    recipe = recipes.load(unlike["plain"] / "recipe.toml")
    text = (run / "recipe.toml").read_text()
    relative = os.path.relpath(recipe.model.name, unlike["plain"])
    assert relative in text
    (run / "recipe.toml").write_text(text.replace(relative, recipe.model.name))
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "plain")
    catalogue = load({"plain": unlike["plain"], "packed": Path(packed)})
    assert catalogue.find("plain").backend is catalogue.find("packed").backend
    assert ask(catalogue, "packed") == ask(catalogue, "plain")
    texts, measured = untuned(unlike["plain"])
    np.testing.assert_allclose(ask(catalogue, "packed" + BASE, texts), measured, atol=1e-5)


def test_row_75_a_full_run_without_its_base_is_served_alone(
    models: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(models("bert"), tmp_path / "base")
    path = make(tmp_path, base, "full", "bert")
    expected = probabilities(featherweight.load_predictor(str(path)).predict(TEXTS))
    shutil.rmtree(base)
    catalogue = load({"full": path})
    np.testing.assert_allclose(ask(catalogue, "full"), expected, atol=1e-5)
    assert catalogue.find("full" + BASE) is None
    assert "untuned model is not served" in caplog.text
    assert str(base) in caplog.text


def test_row_75_over_http(unlike: dict[str, Path]) -> None:
    """Answers, and the untuned model of every kind of run."""
    with serving.running(*unlike.values()) as server:
        named = {one["name"]: one for one in server.ask("GET", "/v1/models").json["models"]}
        for name, path in unlike.items():
            expected = probabilities(featherweight.load_predictor(str(path)).predict(TEXTS))
            got = probabilities(server.predict(TEXTS, name).json["predictions"])
            np.testing.assert_allclose(got, expected, atol=1e-5)
            if (path / "recipe.toml").is_file():
                assert named[name]["base"] == name + BASE
                texts, measured = untuned(path)
                got = probabilities(server.predict(texts, name + BASE).json["predictions"])
                np.testing.assert_allclose(got, measured, atol=1e-5)


@pytest.fixture(scope="module")
def two(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("two")
    return [make(folder, models("bert"), name, "bert", seed) for seed, name in enumerate(("plain", "three"))]


@pytest.fixture(scope="module")
def server(two: list[Path]) -> Iterator[serving.Server]:
    with serving.running(*two) as started:
        yield started


def test_answers_have_the_shape_of_predict(server: serving.Server, two: list[Path]) -> None:
    for path in two:
        expected = featherweight.load_predictor(str(path)).predict(TEXTS[:5])
        got = server.predict(TEXTS[:5], path.name)
        assert got.status == 200
        assert set(got.json) == {"predictions"}
        assert [list(one) for one in got.json["predictions"]] == [["label", "probabilities"]] * 5
        assert [one["label"] for one in got.json["predictions"]] == [one["label"] for one in expected]
        np.testing.assert_allclose(probabilities(got.json["predictions"]), probabilities(expected), atol=1e-5)
    names = {one["name"]: one for one in server.ask("GET", "/v1/models").json["models"]}
    assert set(names) == {"plain", "three", "plain@base", "three@base"}
    assert names["three"]["labels"] == ["bad", "good", "odd"]
    assert names["plain"]["base"] == "plain@base"


def test_row_69_one_text_alone_or_among_others_and_after_a_restart(server: serving.Server, two: list[Path]) -> None:
    alone = [server.predict([text], "plain").json["predictions"][0] for text in TEXTS]
    together = server.predict(TEXTS, "plain").json["predictions"]
    assert [one["label"] for one in alone] == [one["label"] for one in together]
    np.testing.assert_allclose(probabilities(alone), probabilities(together), atol=1e-5)
    with serving.running(*two) as again:
        assert again.predict(TEXTS, "plain").body == server.predict(TEXTS, "plain").body


def test_models_load_in_a_thread_that_ends(several: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With an OpenMP pool left behind by whoever loaded, the model's thread is half as fast (see Catalogue.load)."""
    seen = []
    whole = Catalogue._make

    def watched(self: Catalogue, name: str, path: str) -> Any:
        seen.append(threading.current_thread())
        return whole(self, name, path)

    monkeypatch.setattr(Catalogue, "_make", watched)
    load({"plain": several["plain"]})
    assert seen[0] is not threading.main_thread()
    assert not seen[0].is_alive()
