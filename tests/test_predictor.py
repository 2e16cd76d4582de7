"""One interface for whatever answers: texts of any kind in, the same answers alone, in a batch and among threads."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, DataError
from featherweight.inference.predictor import Predictor, load_predictor

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
LIGHT = ["onnxruntime", "tokenizers", "numpy"]
HEAVY = ["torch", "transformers", "peft", "pydantic", "pyarrow", "sklearn", "scipy", "datasets", "rich"]


@pytest.fixture(scope="module")
def run(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy labels, so that confidence spreads and thresholds mean something."""
    rows = tiny.rows(600, seed=3)
    for index in range(0, len(rows), 9):
        rows[index]["label"] = "pos" if rows[index]["label"] == "neg" else "neg"
    data = tiny.save_csv(tmp_path_factory.mktemp("noisy") / "train.csv", rows)
    folder = tmp_path_factory.mktemp("run") / "noisy"
    content = tiny.recipe(models("bert"), data, training={"num_train_epochs": 3})
    workflow.run(recipes.parse(content), folder)
    return folder


@pytest.fixture(scope="module")
def onnx(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("export") / "onnx"
    workflow.export(run, "onnx", folder)
    return folder


@pytest.fixture(params=["run", "onnx"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return load_predictor(request.getfixturevalue(request.param))


def texts(count: int, seed: int = 1) -> list[str]:
    return [row["text"] for row in tiny.rows(count, seed=seed)]


def test_one_text_a_list_an_iterator_and_a_file_get_the_same_answers(predictor: Predictor, tmp_path: Path) -> None:
    asked = texts(5)
    expected = [predictor.predict(text)[0] for text in asked]
    for answers in (predictor.predict(asked), predictor.predict(iter(asked)), list(predictor.stream(asked))):
        assert [one["label"] for one in answers] == [one["label"] for one in expected]
    tiny.save_jsonl(tmp_path / "in.jsonl", [{"id": index, "text": text} for index, text in enumerate(asked)])
    assert predictor.predict_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 5
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["prediction"]) for row in rows] == list(enumerate(one["label"] for one in expected))
    assert predictor.predict([]) == []


def test_row_69_a_text_alone_or_in_a_batch_gets_the_same_answer(predictor: Predictor) -> None:
    asked = [*texts(60), "", "the " * 200, "great"]
    together = predictor.answers(asked)["probabilities"]
    alone = np.concatenate([predictor.answers([text])["probabilities"] for text in asked])
    shuffled = predictor.answers(asked[::-1])["probabilities"][::-1]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, shuffled, atol=1e-5)
    assert (together.argmax(axis=1) == alone.argmax(axis=1)).all()


def test_row_69_loading_again_gives_the_same_bytes(run: Path, onnx: Path) -> None:
    for folder in (run, onnx):
        first, second = (load_predictor(folder).answers(texts(40))["probabilities"] for _ in range(2))
        assert first.tobytes() == second.tobytes()


def test_threads_may_share_a_predictor(predictor: Predictor) -> None:
    """Each thread's texts are of other lengths, so tokens or batches that leak between threads change answers."""
    asked = [[" ".join(texts(4, seed=seed)[: 1 + seed % 4])] * (1 + seed) for seed in range(8)]
    expected = [predictor.answers(some)["probabilities"] for some in asked]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(6):
            for mine, theirs in zip(
                pool.map(lambda some: predictor.answers(some)["probabilities"], asked), expected, strict=True
            ):
                np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_stream_is_read_as_it_is_answered(predictor: Predictor) -> None:
    """Bounded memory: an endless source is answered, and no more is read than a block."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "great film"

    answers = predictor.stream(endless())
    for _ in range(1500):
        next(answers)
    assert read <= 2048


def test_what_is_no_text_is_named(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="not a number"):
        predictor.predict([3])  # type: ignore[list-item]
    assert (
        predictor.predict("\ud800 great")[0]["label"] in predictor.kind.names
    )  # a lone surrogate, as JSON can spell it


def test_abstaining_keeps_to_the_rate_that_the_run_found(run: Path, onnx: Path) -> None:
    known = json.loads((run / "adapter" / "featherweight.json").read_text())
    reachable = {one["wanted_error_rate"]: one for one in known["thresholds"] if one["confidence"] is not None}
    rate, threshold = max(reachable.items())
    asked = [*texts(100, seed=8), "the", "plot", "scene the", "film with music", "unknownword"]
    for folder in (run, onnx):
        calibrated = load_predictor(folder, calibrated=True).predict(asked)
        careful = load_predictor(folder, max_error_rate=rate).predict(asked)
        sure = [max(one["probabilities"].values()) >= threshold["confidence"] for one in calibrated]
        assert [one["label"] is not None for one in careful] == sure
        assert any(sure)
        assert [one["probabilities"] for one in careful] == [one["probabilities"] for one in calibrated]
        with pytest.raises(ConfigError, match=r"has thresholds for: 0\.01"):
            load_predictor(folder, max_error_rate=0.07)


def test_the_command_abstains(cli: Cli, run: Path, tmp_path: Path) -> None:
    known = json.loads((run / "adapter" / "featherweight.json").read_text())
    rate = max(one["wanted_error_rate"] for one in known["thresholds"] if one["confidence"] is not None)
    threshold = next(one for one in known["thresholds"] if one["wanted_error_rate"] == rate)
    # As if the run had found that it is never sure enough.
    copy = tmp_path / "adapter"
    import shutil

    shutil.copytree(run / "adapter", copy)
    threshold["confidence"] = 1.1
    (copy / "featherweight.json").write_text(json.dumps(known))
    plain = cli("predict", copy, "--text", "great", "--max-error-rate", rate)
    assert plain.stdout.startswith("abstain  "), plain.stderr
    answer = json.loads(cli("predict", copy, "--text", "great", "--max-error-rate", rate, "--json").stdout)
    assert answer["predictions"][0]["label"] is None
    tiny.save_csv(tmp_path / "in.csv", [{"text": "great"}, {"text": "dull"}])
    for suffix in ("csv", "parquet"):
        ended = cli("predict", copy, "--input", "in.csv", "--output", f"out.{suffix}", "--max-error-rate", rate)
        assert ended.returncode == 0, ended.stderr
    from featherweight.sources.formats import format_of

    for suffix in ("csv", "parquet"):
        with (tmp_path / f"out.{suffix}").open("rb") as stream:
            rows = [row for _, row in format_of(f"out.{suffix}").read(stream, "out")]
        assert [row["prediction"] or None for row in rows] == [None, None]


BLOCKED = """
import sys
heavy = {heavy!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Blocker())
"""


def test_an_onnx_export_answers_where_torch_can_not_be_imported(onnx: Path, run: Path) -> None:
    code = BLOCKED.format(heavy=HEAVY) + (
        "import featherweight, json\n"
        f"print(json.dumps(featherweight.load_predictor({str(onnx)!r}).predict(['great film', ''])))\n"
        f"from featherweight.cli import main; raise SystemExit(main(['predict', {str(onnx)!r}, '--text', 'great film']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()
    expected = load_predictor(run).predict(["great film", ""])
    for mine, theirs in zip(json.loads(first), expected, strict=True):
        assert mine["label"] == theirs["label"]
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
    assert second.split()[0] == expected[0]["label"]


def test_the_blocker_blocks(run: Path) -> None:
    """Negative control: the run itself needs torch."""
    code = BLOCKED.format(heavy=HEAVY) + f"import featherweight; featherweight.load_predictor({str(run)!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert "must not be imported here" in ended.stderr


@pytest.mark.slow
def test_an_onnx_export_answers_in_an_environment_without_torch(onnx: Path, run: Path, tmp_path: Path) -> None:
    """A new environment that holds this package and the three that an export needs, with what they import."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    pins = [
        line
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text().splitlines()
        if line.partition("==")[0] in LIGHT
    ]
    assert {line.partition("==")[0] for line in pins} == set(LIGHT)
    done = subprocess.run([*install, *pins], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no package registry: {done.stderr.strip().splitlines()[-1]}")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(ROOT / "src")}
    code = (
        "import importlib.util, json, featherweight\n"
        f"answer = featherweight.load_predictor({str(onnx)!r}).predict('great film')\n"
        f"absent = [name for name in {HEAVY!r} if importlib.util.find_spec(name) is None]\n"
        "print(json.dumps([answer, absent]))"
    )
    ended = subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=clean)
    assert ended.returncode == 0, ended.stderr
    (answer,), absent = json.loads(ended.stdout)
    assert absent == HEAVY
    assert answer["label"] == load_predictor(run).predict("great film")[0]["label"]


def test_a_missing_package_is_named_with_the_extra(onnx: Path) -> None:
    code = BLOCKED.format(heavy=["onnxruntime"]) + (
        f"from featherweight.cli import main; raise SystemExit(main(['predict', {str(onnx)!r}, '--text', 'x']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'featherweight[export]'" in ended.stderr
    assert importlib.util.find_spec("onnxruntime") is not None


@pytest.mark.parametrize("is_on", [True, False])
def test_the_collector_of_garbage_waits_while_models_are_imported_and_is_then_as_it_was(run: Path, is_on: bool) -> None:
    code = (
        "import gc, json, featherweight\n"
        f"gc.{'enable' if is_on else 'disable'}()\n"
        "full = []\n"
        "gc.callbacks.append(lambda phase, facts: full.append(facts['generation'] == 2))\n"
        "found = []\n"
        "for _ in range(2):\n"
        f"    featherweight.load_predictor({str(run)!r})\n"
        "    found.append((gc.isenabled(), gc.get_freeze_count(), any(full)))\n"
        "print(json.dumps(found))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (enabled, frozen, ran), (still, after, _) = json.loads(ended.stdout)
    assert enabled is still is is_on
    assert not ran
    assert (frozen > 100_000) is is_on  # a collector that the caller turned off is the caller's
    assert after <= frozen  # the second import is none, and nothing more is frozen
