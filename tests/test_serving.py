"""Adapters that share a base model: exact whatever else is in the batch; the server's answers are the predictor's."""

from __future__ import annotations

import csv
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
from featherweight.serving.adapters import SharedBase
from featherweight.serving.catalogue import BASE, Catalogue

TEXTS = [row["text"] for row in tiny.rows(24, seed=9)] + ["great", "", "no-such-word the the the the"]
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"name": "lora", "r": 4, "lora_alpha": 8},
    "wide": {"name": "lora", "r": 8, "lora_alpha": 64, "use_rslora": True},
    "dora": {"name": "lora", "r": 4, "use_dora": True},
    "full": {"name": "full"},
    "probe": {"name": "linear-probe"},
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
        prepared = [shared.prepare(served[name].key, [TEXTS[index]])[0] for name, index in chosen]
        answers = shared.answer([served[name].key for name, _ in chosen], prepared)
        for (name, index), answer in zip(chosen, answers, strict=True):
            assert answer["label"] == expected[name][index]["label"]
            np.testing.assert_allclose(
                list(answer["probabilities"].values()), list(expected[name][index]["probabilities"].values()), atol=1e-5
            )
    for name in set(several) & OWN:
        own = served[name].backend
        assert own is not shared
        got = own.answer([name] * len(TEXTS), own.prepare(name, TEXTS))
        np.testing.assert_allclose(probabilities(got), probabilities(expected[name]), atol=1e-5)


def test_row_65_negative_control_the_adapters_differ(several: dict[str, Path]) -> None:
    """If adapters were mixed up, the test above would see it."""
    answers = {
        name: probabilities(featherweight.load_predictor(str(several[name])).predict(TEXTS))
        for name in ("plain", "wide")
    }
    assert np.abs(np.subtract(answers["plain"], answers["wide"])).max() > 1e-2


def test_the_untuned_model_is_the_one_that_the_run_measured(several: dict[str, Path]) -> None:
    catalogue = load({"plain": several["plain"]})
    base = catalogue.find("plain" + BASE)
    assert base is not None
    measured = pq.read_table(several["plain"] / "predictions" / "base-validation.parquet")
    with (several["plain"].parent / "plain.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    texts = [rows[index]["text"] for index in measured["id"].to_pylist()]
    got = base.backend.answer([base.key] * len(texts), base.backend.prepare(base.key, texts))
    np.testing.assert_allclose(probabilities(got), measured["probabilities"].to_pylist(), atol=1e-5)


def test_unloading_leaves_the_others_as_they_were(several: dict[str, Path]) -> None:
    catalogue = load({name: several[name] for name in SHARED})
    plain = catalogue.find("plain")
    assert isinstance(plain.backend, SharedBase)
    before = plain.backend.answer([plain.key], plain.backend.prepare(plain.key, TEXTS[:1]))
    catalogue.unload("wide")
    assert catalogue.find("wide") is None
    assert catalogue.find("wide" + BASE) is None
    assert plain.backend.answer([plain.key], plain.backend.prepare(plain.key, TEXTS[:1])) == before
    for name in SHARED - {"wide"}:
        catalogue.unload(name)
    assert catalogue.all() == []
    assert catalogue._bases == {}, "the base goes with its last adapter"


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
    whole = Catalogue._adapter

    def watched(self: Catalogue, name: str, path: str) -> Any:
        seen.append(threading.current_thread())
        return whole(self, name, path)

    monkeypatch.setattr(Catalogue, "_adapter", watched)
    load({"plain": several["plain"]})
    assert seen[0] is not threading.main_thread()
    assert not seen[0].is_alive()
