"""Models and adapters that must not be trusted, by the fault list's row numbers: exit 4, quickly, and no code runs."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, FeatherweightError, ModelError
from featherweight.serving.predictor import load_predictor
from featherweight.sources import models as sources

Models = Callable[[str], Path]


class Payload:
    """What an attacker's pickle does when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.fixture(scope="module")
def finished(models: Models, train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
    workflow.run(recipes.parse(content), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, models: Models) -> Path:
    """A copy of a finished run beside a copy of its base model, to damage."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(models("bert"), tmp_path / "base")
    text = (tmp_path / "run" / "recipe.toml").read_text()
    lines = ['name = "../base"' if "bert" in line and line.startswith("name") else line for line in text.splitlines()]
    (tmp_path / "run" / "recipe.toml").write_text("\n".join(lines))
    load_predictor(str(tmp_path / "run")).predict(["great film"])  # it works before it is damaged
    return tmp_path / "run"


def refused(error: type[FeatherweightError], name: Path | str, *named: str) -> None:
    with pytest.raises(error) as caught:
        load_predictor(str(name))
    for part in named:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# Row 49: weights that are only there as a pickle.


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_row_49_a_pickled_model_is_not_read(
    name: str, models: Models, train_csv: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(models("bert"), folder)
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "ran"
    (folder / name).write_bytes(pickle.dumps(Payload(marker)))
    ended = cli("run", "--model", folder, "--data", train_csv, "--output-dir", "out")
    assert ended.returncode == 4
    assert name in ended.stderr
    assert "pickle" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1 or "Traceback" not in ended.stderr
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_row_49_a_pickled_adapter_is_not_read(run: Path, tmp_path: Path) -> None:
    (run / "adapter" / "adapter_model.safetensors").unlink()
    marker = tmp_path / "ran"
    (run / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    refused(ModelError, run, "adapter_model.bin", "pickle")
    refused(ModelError, run / "adapter", "pickle")
    assert not marker.exists()


def test_a_pickle_in_a_checkpoint_is_not_read(models: Models, train_csv: Path, tmp_path: Path) -> None:
    """Part of row 17: what a checkpoint's manifest does not name is never opened."""
    from featherweight.engine.checkpoints import read

    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
    workflow.run(recipes.parse(content), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000002"
    marker = tmp_path / "ran"
    (checkpoint / "rng_state.pth").write_bytes(pickle.dumps(Payload(marker)))
    (checkpoint / "optimizer.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ModelError, match=r"optimizer\.safetensors"):
        read(checkpoint)
    assert not marker.exists()


# Row 50: code that a configuration asks to run.


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_row_50_remote_code_is_never_run(
    name: str, models: Models, train_csv: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(models("bert"), folder)
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    content = json.loads((folder / name).read_text())
    content["auto_map"] = {
        "AutoConfig": "evil.Evil",
        "AutoModelForSequenceClassification": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
    (folder / name).write_text(json.dumps(content))
    ended = cli("run", "--model", folder, "--data", train_csv, "--output-dir", "out")
    assert ended.returncode == 4
    assert name in ended.stderr
    assert "auto_map" in ended.stderr
    assert not marker.exists()


def test_row_50_nor_from_an_adapter(run: Path) -> None:
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "evil.Evil"}}))
    refused(ModelError, run, "adapter_config.json", "auto_map")


# Row 54: an adapter without its head. And its neighbour, row 53: one for another base.


def test_row_54_an_adapter_without_its_head(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    assert any("classifier" in name for name in tensors)
    save_file({name: value for name, value in tensors.items() if "classifier" not in name}, path)
    refused(ModelError, run, "lacks the head", "classifier")


@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_an_adapter_that_does_not_fit_is_refused(damage: str, run: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors[name.replace("layer.0", "layer.7")] = tensors[name].clone()
    else:
        tensors[name] = torch.zeros(2, 3)
    save_file(tensors, path)
    refused(ModelError, run, "does not fit")


def test_an_adapter_on_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "base")
    tiny.save_model(tmp_path / "base", "bert", seed=1)
    refused(ModelError, run, "has changed since")


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"])
def test_damaged_weights_are_refused(content: bytes, run: Path, tmp_path: Path) -> None:
    (run / "adapter" / "adapter_model.safetensors").write_bytes(content)
    refused(ModelError, run, "adapter_model.safetensors")
    (tmp_path / "base" / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError):
        sources.load_model(sources.find(str(tmp_path / "base")), "AutoModelForSequenceClassification", num_labels=2)


def test_a_checkpoint_that_lacks_encoder_weights_is_refused(models: Models, train_csv: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(models("bert"), folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "layer.1.attention" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights of .*layer\.1\.attention"):
        workflow.run(recipes.parse(tiny.recipe(folder, train_csv)), tmp_path / "run")


def test_an_unfinished_run_and_a_headless_model_do_not_answer(run: Path, models: Models) -> None:
    (run / "metrics.json").unlink()
    refused(ModelError, run, "--resume")
    refused(ModelError, models("bert"), "no classification head")


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere/at/all", "model.gguf", "package:not-installed/x", "package:peft/../x"]
)
def test_what_is_not_there_is_exit_2(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(name)):
        sources.find(name)
