"""Models and adapters that must not be trusted, by the fault list's row numbers: exit 4, quickly, and no code runs."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, FeatherweightError, ModelError
from featherweight.inference.predictor import load_predictor
from featherweight.methods.peft.patterns import PatternError, matching
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
    from featherweight.engine.training.checkpoints import read

    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
    workflow.run(recipes.parse(content), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000002"
    marker = tmp_path / "ran"
    (checkpoint / "rng_state.pth").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ModelError, match=r"rng_state\.pth: not part of the checkpoint"):
        read(checkpoint)
    (checkpoint / "rng_state.pth").unlink()
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


# Row 54: an adapter without its head.


def test_row_54_an_adapter_without_its_head(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    assert any("classifier" in name for name in tensors)
    save_file({name: value for name, value in tensors.items() if "classifier" not in name}, path)
    refused(ModelError, run, "lacks the head", "classifier")


# Row 53: an adapter for another base is never served as the base alone.


@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_row_53_an_adapter_that_does_not_fit_is_refused(damage: str, run: Path) -> None:
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


def test_row_53_an_adapter_on_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "base")
    tiny.save_model(tmp_path / "base", "bert", seed=1)
    refused(ModelError, run, "has changed since")


@pytest.mark.parametrize("targets", [["no_such_layer"], "no_such.*"])
def test_row_53_an_adapter_that_matches_no_module_is_refused(targets: Any, run: Path) -> None:
    configure(run, target_modules=targets)
    refused(ModelError, run, "no_such")


def test_row_53_from_the_command_line(run: Path, cli: Callable[..., Any]) -> None:
    configure(run, target_modules=["no_such_layer"])
    ended = cli("predict", run, "--text", "great film")
    assert ended.returncode == 4
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1


# Row 51: safetensors that lie, in models and in adapters.


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "empty": b"",
    "cut in its length": b"\x08\0\0",
    "header longer than the file": safetensors({}, length=1_000_000),
    "header of 2^63 bytes": safetensors({}, length=2**63),
    "no JSON": b"\x10" + b"\0" * 7 + b"\xff" * 16,
    "header of 17 MiB": safetensors(b" " * (17 << 20)),
    "nested without end": safetensors(b'{"a":' * 100_000),
    "overlapping": safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12)),
    "hole": safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 12, 20)}, bytes(20)),
    "other dtype": safetensors({"a": tensor("F64", [2], 0, 8)}, bytes(8)),
    "unknown dtype": safetensors({"a": tensor("F99", [2], 0, 8)}, bytes(8)),
    "shape that overflows": safetensors({"a": tensor("F32", [2**40, 2**40], 0, 8)}, bytes(8)),
    "offsets beyond the file": safetensors({"a": tensor("F32", [2**33], 0, 2**35)}, bytes(8)),
    "bytes that belong to nothing": safetensors({"a": tensor("F32", [2], 0, 8)}, bytes(64)),
}


@pytest.mark.parametrize("lie", LIES)
def test_row_51_lying_safetensors(lie: str, run: Path, tmp_path: Path) -> None:
    for path, name in [
        (run / "adapter" / "adapter_model.safetensors", run),
        (tmp_path / "base" / "model.safetensors", tmp_path / "base"),
    ]:
        path.write_bytes(LIES[lie])
        refused(ModelError, name, str(path.name))
    assert sources.read_json(tmp_path / "base" / "config.json")  # the folder itself is sound


def test_row_51_bounded_memory(run: Path, cli: Callable[..., Any]) -> None:
    """Of a header of a million tensors only the length is read."""
    entries = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % index for index in range(1_000_000))
    (run / "adapter" / "adapter_model.safetensors").write_bytes(safetensors(b"{" + entries + b"}"))
    limit = ("import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31)); "
             "sys.argv[0] = 'featherweight'; runpy.run_module('featherweight', run_name='__main__')")  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", limit, "predict", str(run), "--text", "x"], capture_output=True, text=True
    )
    assert ended.returncode == 4, ended.stderr
    assert "is the limit" in ended.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_row_51_weights_that_are_no_numbers(value: float, run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path, part in [
        (run / "adapter" / "adapter_model.safetensors", "lora_B"),
        (tmp_path / "base" / "model.safetensors", "layer.1.output.dense.weight"),
    ]:
        whole = path.read_bytes()
        tensors = load_file(path)
        name = next(name for name in tensors if part in name)
        tensors[name].view(-1)[-1] = value
        save_file(tensors, path, metadata={"format": "pt"})
        content = (run / "metrics.json").read_text()
        fingerprint = sources.find(str(tmp_path / "base")).fingerprint
        facts = json.loads(content) | {"base_model_fingerprint": fingerprint}
        (run / "metrics.json").write_text(json.dumps(facts))
        refused(ModelError, run, name, "NaN or infinity")
        path.write_bytes(whole)
        (run / "metrics.json").write_text(content)
    load_predictor(str(run)).predict(["great film"])


# Row 52: adapter configurations that ask for the impossible.


def configure(run: Path, **keys: Any) -> None:
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"r": 0}, "r is 0"),
        ({"r": -1}, "r is -1"),
        ({"r": 10**9}, "r is 1000000000"),
        ({"r": 60_000}, "r is 60,000, but the matrices in the file have rank 4"),
        ({"r": 4.5}, "r is 4.5"),
        ({"r": True}, "r is True"),
        ({"rank_pattern": {"query": 10**9}}, "rank_pattern.query"),
        ({"peft_type": "LORRA"}, "did you mean 'LORA'"),
        ({"peft_type": None}, "peft_type None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"alpha_pattern": {"query": float("inf")}}, "alpha_pattern.query is inf"),
        ({"target_modules": "(.|.)*[!?]"}, "takes too long"),
        ({"target_modules": "(((a{1000}){1000}){1000})"}, "matches no module"),
        ({"target_modules": r"\\{99999999}"}, "matches no module"),
        ({"target_modules": r"\\{99999999999}"}, "no regular expression"),
        ({"target_modules": "[a-z.0-9_]{1,99}" * 20 + "!"}, "takes too long"),
        ({"target_modules": "(" * 500}, "no regular expression"),
        ({"target_modules": "a" * 10_000}, "longer than"),
        ({"exclude_modules": "(a?[a-z.0-9]|[a-z.0-9]a?)*[!?]"}, "takes too long"),
        ({"rank_pattern": {"(.|.)*[!?]": 4}}, "takes too long"),
        ({"layers_to_transform": [0], "layers_pattern": "((a+)+)+$"}, "layers_pattern"),
        ({"modules_to_save": ["(([a-z.]+)+)+!", "classifier"]}, "modules_to_save"),
        ({"modules_to_save": "../../etc"}, "modules_to_save"),
        ({"target_modules": [["query"]]}, "target_modules"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "megatron_config"),
    ],
)
def test_row_52_impossible_configurations(keys: dict[str, Any], named: str, run: Path) -> None:
    configure(run, **keys)
    refused(ModelError, run, "adapter_config.json", named)


# What compiles or matches in any time or memory: nested counts, alternatives that mean the same, sets that are written
# out, groups within groups, names that refer back.
HOSTILE = [
    "(.|.)*[!?]", "([a-z.0-9_]+)+!", r"(?:.*.*.*.*.*.*.*.*.*.*)*!", r"((((((((.?){40}){40}){40}){40}){40})))!",
    r"\\{99999999}", r"(\\{9999}){9999}", r"[\\{]{4000000000}", r"(?:(?:(?:(?:.{0,65000}){0,65000}){0,65000}))!",
    r"(?i:" + "(?:[a-z\u0130\u017f]|.)" * 50 + ")*!", r"(.*)\1\1\1\1\1(.*)\2\2\2!", "(?=(.*))" * 60 + "!", "(" * 99 + ".*" + ")*" * 99 + "!",
    "(?P<a>.)*" + "(?(a).|..)*" * 40 + "!",
]  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE, ids=range(len(HOSTILE)))
def test_row_87_no_pattern_takes_long_or_much(pattern: str) -> None:
    """Seconds and a little memory at the most, all of it elsewhere; then it matches nothing or is refused."""
    names = [f"encoder.layer.{number}.attention.self.query" for number in range(200)]
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    with contextlib.suppress(PatternError):
        assert matching({"target_modules": pattern}, names) == {"target_modules": []}
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 1
    assert time.monotonic() - began < 100, "a second of computing, on a machine that may be busy"
    assert after.ru_maxrss - before.ru_maxrss < 50_000, "kilobytes"


def test_row_87_the_pattern_that_is_wrong_is_named() -> None:
    good, names = r"(?:.*\.)?(query|key)", ["layer.0.query", "layer.0.key", "layer.0.value"]
    assert matching({"good": good, "other": "layer.*"}, names) == {"good": names[:2], "other": names}
    for bad, reason in (("(.|.)*!", "too long"), ("(", "no regular expression"), ("a" * 3000, "longer than")):
        with pytest.raises(PatternError, match=reason) as caught:
            matching({"good": good, "bad": bad, "last": good}, [*names, "layer.0." + "x" * 40])
        assert caught.value.key == "bad"


def test_row_87_a_tokenizer_whose_pattern_never_ends_is_one_error(run: Path, tmp_path: Path) -> None:
    """Its library gives up by itself, but by a panic, which is no Exception."""
    path = tmp_path / "base" / "tokenizer.json"
    split = {"type": "Split", "pattern": {"Regex": "(a|aa)+!"}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": split}))
    predictor = load_predictor(str(run))
    assert predictor.predict(["great"])
    with pytest.raises(ModelError, match="tokenizer can't take a text"):
        predictor.predict(["a" * 80])


def test_row_52_harmless_patterns_still_mean_what_peft_means(run: Path, models: Models) -> None:
    """The adapter that names its layers by a pattern gives the same answers as the one that lists them."""
    before = load_predictor(str(run)).predict(["great film", "a dull plot"])
    path = run / "adapter" / "adapter_config.json"
    listed = json.loads(path.read_text())["target_modules"]
    configure(
        run, target_modules=rf".*\.({'|'.join(map(re.escape, listed))})", rank_pattern={r"layer\.[01]{1,2}\..*": 4}
    )
    assert load_predictor(str(run)).predict(["great film", "a dull plot"]) == before


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"labels": "ab"}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"max_length": -1}, "max_length"),
        ({"temperature": 0}, "temperature"),
        ({"task": "no-such-task"}, "task"),
        ({"base_model": []}, "base_model"),
        ({"base_model": None}, "base_model"),
        ({"base_model": 7}, "base_model"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"thresholds": 1}, "thresholds"),
    ],
)
def test_row_52_impossible_facts_beside_an_adapter(keys: dict[str, Any], named: str, run: Path) -> None:
    path = run / "adapter" / "featherweight.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    refused(ModelError, run / "adapter", "featherweight.json", named)


# Row 56: links and pipes in a folder.


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer.json", "extra"])
def test_row_56_a_link_that_leads_out_is_refused(name: str, run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "adapter_evil"  # whose name begins like the folder's
    outside.mkdir()
    path = run / "adapter" / name
    if path.exists():
        shutil.move(path, outside / name)
    else:
        (outside / name).write_text("x")
    path.symlink_to(outside / name)
    refused(ModelError, run, name, "leads out")
    refused(ModelError, run / "adapter", name, "leads out")


def test_row_56_a_pipe_in_a_folder_does_not_hang(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "base" / "generation_config.json")
    refused(ModelError, run, "generation_config.json", "neither a file nor a folder")


def test_row_56_links_within_a_hub_cache_are_followed(tmp_path: Path, models: Models) -> None:
    home = tmp_path / "models--a--b"
    shutil.copytree(models("bert"), home / "blobs")
    (home / "snapshots" / "abc").mkdir(parents=True)
    for path in (home / "blobs").iterdir():
        (home / "snapshots" / "abc" / path.name).symlink_to(path)
    assert sources.find(str(home / "snapshots" / "abc")).fingerprint == sources.find(str(models("bert"))).fingerprint


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
    refused(ModelError, models("bert"), "has no head")


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere/at/all", "model.gguf", "package:not-installed/x", "package:peft/../x"]
)
def test_what_is_not_there_is_exit_2(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(name)):
        sources.find(name)
