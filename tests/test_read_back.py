"""Before the first step, what would be published is written, read back and compared: not after the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from featherweight import load_predictor, workflow
from featherweight import recipe as recipes
from featherweight.errors import ConfigError, ModelError
from featherweight.methods.peft import adapters
from featherweight.runs.directory import RunDirectory
from featherweight.workflow import gate

Models = Callable[[str], Path]

_MLA = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_group": 1,
    "topk_group": 1,
}  # fmt: skip
MIXTURES: dict[str, dict[str, Any]] = {
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA,
    "hunyuan_v1_moe": {
        "num_experts": 4, "moe_topk": 2, "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "qwen3_next": {
        "num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 16, "head_dim": 8,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    },
}  # fmt: skip


def mixture(folder: Path, kind: str) -> Path:
    """A tiny mixture of experts, one of which every token sees."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tiny.vocabulary()), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=64, moe_intermediate_size=16, max_position_embeddings=64,
        initializer_range=0.3, pad_token_id=0, **MIXTURES[kind],
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    tiny.tokenizer("llama").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MIXTURES)
def test_row_83_mixtures_with_shared_experts_are_published(kind: str, train_csv: Path, tmp_path: Path) -> None:
    """Their experts are one tensor, whose rank is doubled: it is no module's name that the pattern matches."""
    content = tiny.recipe(mixture(tmp_path / kind, kind), train_csv, training={"max_steps": 3})
    metrics = workflow.run(recipes.parse(content), tmp_path / "run").metrics
    assert metrics["reliability"]["gate"]["largest_difference"] < 1e-5
    assert "PEFT adapts the experts' down_proj and gate_up_proj" in (tmp_path / "run" / "recipe.toml").read_text()
    (answer,) = load_predictor(tmp_path / "run").predict("a great film")
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / adapters.WEIGHTS
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


def _configuration(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / adapters.CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def _without(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_tensors(lambda found: found.__setitem__(min(found), found[min(found)] + 1)), "comes back other than"),
        (_tensors(_without("layer.1.output.dense.lora_B")), "is missing in the file"),
        (_tensors(_without("classifier")), "lacks the head 'classifier'"),
        (_configuration(lora_alpha=16), "comes back other than"),
        (_configuration(r=8), "r is 8, but the matrices in the file have rank 4"),
        (_configuration(target_modules=["query"]), "does not fit this base model"),
    ],
)
def test_row_83_what_could_not_be_read_back_is_not_trained(
    damage: Callable[[Path], None], message: str, models: Models, train_csv: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    original = adapters.save

    def save(model: Any, folder: Path, *arguments: Any) -> None:
        original(model, folder, *arguments)
        damage(folder)

    steps: list[dict[str, Any]] = []
    keep = RunDirectory.append_history
    monkeypatch.setattr(adapters, "save", save)
    monkeypatch.setattr(RunDirectory, "append_history", lambda self, event: (steps.append(event), keep(self, event))[1])
    with pytest.raises(ModelError, match=message) as refused:
        workflow.run(recipes.parse(tiny.recipe(models("bert"), train_csv)), tmp_path / "run")
    assert str(refused.value).startswith(
        "method: what would be published could not be read back, so nothing is trained"
    )
    assert "\n" not in str(refused.value)
    assert not [event for event in steps if event["event"] == "step"]
    assert not list((tmp_path / "run").glob("*")), "the next try finds the folder free"


@pytest.mark.parametrize("method", ["lora", "linear-probe", "full"])
def test_row_83_the_trial_changes_nothing_and_leaves_nothing(
    method: str, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny.recipe(models("bert"), train_csv, method={"name": method}, training={"max_steps": 3})
    tried: list[str] = []
    original = gate.require_readable

    def require_readable(folder: Path, *arguments: Any) -> None:
        tried.extend(sorted(path.name for path in folder.iterdir()))
        original(folder, *arguments)

    monkeypatch.setattr(gate, "require_readable", require_readable)
    workflow.run(recipes.parse(content), tmp_path / "tried")
    monkeypatch.setattr(gate, "require_readable", lambda *arguments: None)
    workflow.run(recipes.parse(content), tmp_path / "untried")
    published = "model" if method == "full" else "adapter"
    names = sorted(path.name for path in (tmp_path / "tried" / published).iterdir())
    assert [*names] == sorted([*tried, "README.md"]), "all that is published but the card"
    weights = next(name for name in names if name.endswith(".safetensors"))
    one, other = ((tmp_path / name / published / weights).read_bytes() for name in ("tried", "untried"))
    assert one == other
    assert not [path for path in (tmp_path / "tried").iterdir() if path.name.startswith(".")]


def test_row_83_a_resumed_run_is_not_tried_again(
    models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherweight.engine.training.train import Trainer
    from featherweight.errors import Interrupted

    content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 3})
    original = Trainer._train_step

    def stopping(self: Trainer) -> None:
        original(self)
        self._save()
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopping)
        with pytest.raises(Interrupted):
            workflow.run(recipes.parse(content), tmp_path / "run")
    monkeypatch.setattr(gate, "require_readable", lambda *arguments: pytest.fail("tried again"))
    workflow.run(recipes.parse(content), tmp_path / "run", resume=True)


BEGINNINGS = ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "eva"]


@pytest.mark.parametrize(
    ("kind", "initial"),
    [
        *(("bert", initial) for initial in BEGINNINGS),
        *(pytest.param("gpt2", initial, marks=pytest.mark.slow) for initial in BEGINNINGS if initial != "olora"),
    ],
)
def test_row_83_what_begins_at_the_base_models_weights_is_published_as_an_update_of_them(
    initial: str, kind: str, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    """Stock PEFT puts it on the base model as it is, and finds no initialisation to repeat."""
    from peft import AutoPeftModelForSequenceClassification

    method = {"r": 4, "lora_alpha": 8, "init_lora_weights": initial}
    content = tiny.recipe(models(kind), train_csv, method=method, training={"learning_rate": 1e-2, "max_steps": 6})
    workflow.run(recipes.parse(content), tmp_path / "run")
    adapter = tmp_path / "run" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if initial != "eva":
        assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)
    stock = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=2).eval()
    asked = [row["text"] for row in tiny.rows(12, seed=5)]
    predictor = load_predictor(str(tmp_path / "run"))
    found = predictor.answers(asked)["probabilities"]
    with torch.no_grad():
        for text, expected in zip(asked, found, strict=True):
            logits = stock(**predictor.backend.loaded.tokenizer([text], return_tensors="pt")).logits[0]
            np.testing.assert_allclose(logits.softmax(-1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"init_lora_weights": "loftq"}, "model.quantization"),
        ({"init_lora_weights": "corda", "corda_config": {"cache_file": "a"}}, "is a pickle"),
        ({"eva_config": {"rho": 1.0}}, "goes with init_lora_weights = 'eva'"),
        ({"layer_replication": [[0, 2]]}, "deeper model"),
        ({"alora_invocation_tokens": [1]}, "continue a text"),
    ],
)
def test_options_of_lora_that_a_run_can_not_follow_are_refused_in_the_recipe(
    method: dict[str, Any], said: str, train_csv: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        recipes.parse(tiny.recipe("m", train_csv, method=method))
