"""The hub path over real HTTP, against a hub on loopback, in processes of its own. Row 57 of the fault list, and the
reference recipe on GPT-2's architecture at its real size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import ROOT
from hub import LoopbackHub

from featherweight.errors import ConfigError
from featherweight.sources import data
from featherweight.tasks.columns import LabelColumns

Models = Callable[[str], Path]
TOKEN = "hf_secret_token"


def save_dataset(folder: Path, sizes: dict[str, int]) -> Path:
    """SST-2's layout on the hub: idx, sentence, a ClassLabel, and a test split whose labels are -1."""
    import datasets

    features = datasets.Features(
        {
            "idx": datasets.Value("int32"),
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
        }
    )
    (folder / "data").mkdir(parents=True)
    for split, count in sizes.items():
        rows = tiny.rows(count, seed=count, labels=(0, 1))
        columns = {
            "idx": list(range(count)),
            "sentence": [row["text"] for row in rows],
            "label": [-1 if split == "test" else row["label"] for row in rows],
        }
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))
    (folder / "README.md").write_text("---\nlicense: unknown\n---\n# Sentences\n", encoding="utf-8")
    return folder


def save_dialogues(folder: Path, count: int) -> Path:
    """As most data sets for chat models are on the hub: a column of lists of messages."""
    import datasets

    (folder / "data").mkdir(parents=True)
    talks = [
        [
            {"role": "user", "content": f"is {row['text']} any good"},
            {"role": "assistant", "content": "yes" if row["label"] == "pos" else "no"},
        ]
        for row in tiny.rows(count)
    ]
    datasets.Dataset.from_dict({"messages": talks}).to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))
    return folder


@pytest.fixture(scope="module")
def hub(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    data = save_dataset(tmp_path_factory.mktemp("hub") / "sst2", {"train": 64, "validation": 24, "test": 8})
    with LoopbackHub() as served:
        served.add("models", "owner/model", models("gpt2"))
        served.add("datasets", "owner/data", data)
        served.add("models", "owner/writer", models("llama-lm"))
        served.add("datasets", "owner/talks", save_dialogues(tmp_path_factory.mktemp("hub") / "talks", 48))
        served.add("models", "owner/private", models("gpt2"), token=TOKEN)
        served.add("datasets", "owner/private", data, token=TOKEN)
        yield served


def run(hub: LoopbackHub, home: Path, model: str, data: str, *more: str, **environment: str) -> Any:
    command = [
        sys.executable, "-m", "featherweight", "run", "--model", model, "--data", data,
        "--set", "data.text=sentence", "--set", "training.max_steps=1", "--output-dir", str(home / "run"), *more,
    ]  # fmt: skip
    home.mkdir(exist_ok=True)
    return subprocess.run(
        command, env=hub.environment(home, **environment), capture_output=True, text=True, cwd=home, timeout=300
    )


def test_model_and_data_come_from_the_hub_and_then_from_the_cache(hub: LoopbackHub, tmp_path: Path) -> None:
    online = run(hub, tmp_path, "owner/model", "owner/data")
    assert online.returncode == 0, online.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["rows"] == {"train": 64, "validation": 24}
    assert set(metrics["label_shares"]["train"]) == {"negative", "positive"}, "the data set's own label names"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    commit = hub.repositories["models", "owner/model"].commit
    assert environment["model"] == {"name": "owner/model", "revision": commit, "fingerprint": commit}
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/model", commit)
    before = len(hub.requests)
    offline = run(hub, tmp_path, "owner/model", "owner/data", "--output-dir", "again", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert len(hub.requests) == before, "offline means offline"
    one, again = (tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("run", "again"))
    assert one.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_dialogues_of_the_hub_are_learned(hub: LoopbackHub, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }} {% endfor %}"
    more = ["--set", "task=causal-lm", "--set", "data.text=messages", "--set", f"data.chat_template={template}"]
    ended = run(hub, tmp_path, "owner/writer", "owner/talks", *more, "--set", "data.max_length=32")
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sum(metrics["rows"].values()) == 48
    assert metrics["heeding"]["rows"] > 0, "what the assistant says was told from what it was asked"


def test_private_repositories_want_the_token_and_never_show_it(hub: LoopbackHub, tmp_path: Path) -> None:
    ended = run(hub, tmp_path, "owner/private", "owner/private", HF_TOKEN=TOKEN)
    assert ended.returncode == 0, ended.stderr
    assert any(sent for _, path, sent in hub.requests if "owner/private" in path)
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in [*written, ended.stdout.encode(), ended.stderr.encode()])


@pytest.mark.parametrize(
    ("model", "data", "environment", "named"),
    [
        ("owner/nothing", "owner/data", {}, ["model 'owner/nothing'", "none of that name"]),
        ("owner/model", "owner/nothing", {}, ["data set 'owner/nothing'", "none of that name"]),
        ("owner/private", "owner/data", {}, ["model 'owner/private'", "HF_TOKEN"]),
        ("owner/private", "owner/data", {"HF_TOKEN": "hf_wrong"}, ["model 'owner/private'", "no access"]),
        ("owner/model", "owner/private", {}, ["data set 'owner/private'", "HF_TOKEN"]),
        ("owner/model", "owner/data", {"HF_HUB_OFFLINE": "1"}, ["HF_HUB_OFFLINE is set", "no complete copy"]),
        ("owner/model", "owner/data", {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["can't be reached"]),
    ],
    ids=["model-404", "data-404", "model-401", "model-wrong-token", "data-401", "offline", "unreachable"],
)
def test_row_57_what_the_hub_refuses_is_exit_4_with_its_cause(
    model: str, data: str, environment: dict[str, str], named: list[str], hub: LoopbackHub, tmp_path: Path
) -> None:
    ended = run(hub, tmp_path, model, data, **environment)
    assert ended.returncode == 4, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hf_wrong" not in ended.stderr
    for part in named:
        assert part in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["model.revision", "data.revision"])
def test_row_57_a_revision_that_is_gone(key: str, hub: LoopbackHub, tmp_path: Path) -> None:
    ended = run(hub, tmp_path, "owner/model", "owner/data", "--set", f"{key}=v9")
    assert ended.returncode == 4, ended.stderr
    assert "'v9'" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_row_57_a_download_cut_short_is_never_used(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.cut_short.add("model.safetensors")
    try:
        ended = run(hub, tmp_path, "owner/model", "owner/data")
    finally:
        hub.cut_short.clear()
    assert ended.returncode == 4, ended.stderr
    assert "owner/model" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    mended = run(hub, tmp_path, "owner/model", "owner/data")
    assert mended.returncode == 0, mended.stderr


def test_a_name_that_is_no_hub_id_is_exit_2(hub: LoopbackHub, tmp_path: Path) -> None:
    ended = run(hub, tmp_path, "not a/hub/id", "owner/data")
    assert ended.returncode == 2, ended.stderr


@pytest.mark.parametrize("name", ["csv", "json", "text", "parquet", "webdataset"])
def test_a_kind_of_file_is_no_data_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By such a name datasets would walk through all that lies below the current folder, and read what it likes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\ngood,1\nbad,0\n" * 4, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"data.name: '{name}' is a kind of file.*train_file"):
        data.load(LabelColumns(name=name))


def save_real_size_gpt2(folder: Path) -> Path:
    """GPT-2 with its 124,439,808 parameters, randomly drawn, and a byte-level tokenizer without a pad token."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2Model, GPT2TokenizerFast

    torch.manual_seed(0)
    model = GPT2Model(GPT2Config())
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
    model.save_pretrained(folder)
    words = ByteLevelBPETokenizer()
    words.train_from_iterator([row["text"] for row in tiny.rows(200)], vocab_size=400, special_tokens=["<|endoftext|>"])
    words.save_model(str(folder))
    GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_reference_recipe_end_to_end_at_gpt2s_real_size(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        hub.add("models", "openai-community/gpt2", save_real_size_gpt2(tmp_path / "gpt2"))
        data = save_dataset(tmp_path / "sst2", {"train": 64, "validation": 24, "test": 8})
        hub.add("datasets", "stanfordnlp/sst2", data)
        home = tmp_path / "home"
        command = [
            sys.executable, "-m", "featherweight", "run", str(ROOT / "recipes" / "gpt2-sst2.toml"),
            "--output-dir", str(tmp_path / "run"),
        ]  # fmt: skip
        ended = subprocess.run(
            command, env=hub.environment(home), capture_output=True, text=True, cwd=tmp_path, timeout=800
        )
    assert ended.returncode == 0, ended.stderr
    assert "Trainable parameters: 812,544 of 125,253,888" in ended.stdout
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["trainable_parameters"], metrics["total_parameters"]) == (812_544, 125_253_888)
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    expected = {
        "r": 8, "lora_alpha": 32, "lora_dropout": 0.1, "bias": "none", "target_modules": ["c_attn", "c_proj"],
        "task_type": "SEQ_CLS", "fan_in_fan_out": True, "base_model_name_or_path": "openai-community/gpt2",
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    assert "score" in config["modules_to_save"]
