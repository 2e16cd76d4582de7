"""Base models held in fewer bits: the mathematics of the very weights that are held, in half the memory or less."""

from __future__ import annotations

import copy
import gc
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stock
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_packed import make_encoding, make_model, padded_logits, with_adapter
from test_run import stopped_and_resumed
from test_tuners import classifier, tuned

import featherweight
from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine import shards
from featherweight.engine.fleet import Together
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.packed import Packed
from featherweight.errors import ConfigError, ModelError
from featherweight.inference import loading
from featherweight.methods import Fit
from featherweight.process.launch import Place
from featherweight.recipe import ModelSection
from featherweight.records.questions import Question
from featherweight.registry import METHODS
from featherweight.runs.directory import RunDirectory
from featherweight.serving.catalogue import Catalogue
from featherweight.sources import held
from featherweight.sources import models as sources
from featherweight.tasks import heads
from featherweight.tasks.sequence_classification import SequenceClassification

Models = Callable[[str], Path]

TASK = SequenceClassification(["neg", "pos"])
HOLDINGS: dict[str, dict[str, str]] = {
    "bf16": {"dtype": "bfloat16"},
    "nf4": {"quantization": "nf4"},
    "int8": {"quantization": "int8"},
    "nf4+bf16": {"dtype": "bfloat16", "quantization": "nf4"},
}
KINDS = ["bert", "gpt2", "llama"]


def load(folder: Path, **section: Any) -> Any:
    torch.manual_seed(3)
    model, _, _ = heads.load(TASK.head(), sources.find(str(folder)), ModelSection(name=str(folder), **section))
    return model


def in_bf16(folder: Path, where: Path) -> Path:
    """The same model as a file that stores bf16."""
    where.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (where / path.name).write_bytes(path.read_bytes())
            continue
        tensors = {key: value.bfloat16() for key, value in load_file(path).items()}
        save_file(tensors, where / path.name, metadata={"format": "pt"})
    return where


def run(content: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    return workflow.run(recipes.parse(content), folder, progress=False, **options).metrics


def content_of(model: Path, data: Path, holding: dict[str, str], **sections: Any) -> dict[str, Any]:
    return tiny.recipe(model, data, **sections) | {"model": {"name": str(model), **holding}}


class TestWeights:
    @pytest.mark.parametrize("kind", KINDS)
    def test_bf16_is_what_transformers_makes_of_the_file(self, kind: str, models: Models) -> None:
        from transformers import AutoModel

        model = load(models(kind), dtype="bfloat16")
        stock = AutoModel.from_pretrained(models(kind), dtype=torch.bfloat16).float().state_dict()
        found = {name.partition(".")[2]: value for name, value in held.release(model).state_dict().items()}
        assert all(torch.equal(found[name], value) for name, value in stock.items() if name in found)
        assert len(found.keys() & stock.keys()) > 10

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_that_stores_bf16_loses_nothing(self, kind: str, models: Models, tmp_path: Path) -> None:
        folder = in_bf16(models(kind), tmp_path / "bf16")
        whole, narrow = load(folder), load(folder, dtype="auto")
        assert held.is_held(narrow) and not held.is_held(whole)
        expected, found = whole.state_dict(), held.release(copy.deepcopy(narrow)).state_dict()
        assert expected.keys() == found.keys(), "the same names"
        assert all(torch.equal(found[name], value) for name, value in expected.items()), "the drawn head as well"
        ids = torch.tensor([[2, 7, 8, 9, 3]])
        torch.testing.assert_close(narrow(ids).logits, whole(ids).logits)
        assert not held.is_held(load(models(kind), dtype="auto")), "a file in fp32 stays in fp32"
        (path,) = folder.glob("*.safetensors")
        tensors = load_file(path)
        tensors[min(tensors)] = tensors[min(tensors)].float()
        save_file(tensors, path, metadata={"format": "pt"})
        assert not held.is_held(load(folder, dtype="auto")), "nor does one that has a tensor in fp32 lose it"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("quantization", ["nf4", "int8"])
    def test_a_quantised_layer_is_that_of_bitsandbytes(self, kind: str, quantization: str, models: Models) -> None:
        import bitsandbytes
        from transformers.pytorch_utils import Conv1D

        plain, model = load(models(kind)), load(models(kind), quantization=quantization)
        layers = {name: one for name, one in model.named_modules() if isinstance(one, held.Held)}
        assert len(layers) >= 8
        assert not any(isinstance(one, torch.nn.Embedding) for one in layers.values())
        for name, layer in layers.items():
            weight = plain.get_submodule(name).weight.data
            weight = weight.t().contiguous() if isinstance(layer, Conv1D) else weight
            if quantization == "nf4":
                theirs = bitsandbytes.nn.Params4bit(
                    weight, requires_grad=False, quant_type="nf4", compress_statistics=False
                ).to("cpu")
                expected = bitsandbytes.functional.dequantize_4bit(theirs.data, theirs.quant_state)
            else:
                own = bitsandbytes.nn.Int8Params(weight.half(), requires_grad=False, has_fp16_weights=False).to("cpu")
                expected = own.data.float() * own.SCB[:, None] / 127
            found = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("holding", HOLDINGS.values(), ids=HOLDINGS)
    def test_it_takes_the_memory_that_its_bits_are(self, holding: dict[str, str]) -> None:
        def size(model: Any) -> int:
            return sum(value.nbytes for value in model.state_dict().values())

        plain = make_model("bert", hidden_size=128, intermediate_size=512)
        model = copy.deepcopy(plain)
        held.hold(model, holding.get("dtype", "float32"), holding.get("quantization"), ["classifier"])
        share = size(model) / size(plain)
        assert share < {"bfloat16": 0.53, "nf4": 0.2, "int8": 0.3}[holding.get("quantization", "bfloat16")]
        assert all(value.dtype == torch.float32 for value in model.parameters()), "what is left is fp32"

    @pytest.mark.parametrize("holding", [{}, *HOLDINGS.values()], ids=["fp32", *HOLDINGS])
    def test_processes_that_share_it_out_keep_their_parts_of_it(
        self, holding: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Which together are all of it, in whatever it is held."""
        dtype, quantization = holding.get("dtype", "float32"), holding.get("quantization")
        plain = make_model("bert", hidden_size=128, intermediate_size=512)
        monkeypatch.setattr(shards, "_TOGETHER", 100_000)

        def parts(rank: int, size: int) -> tuple[Any, list[torch.Tensor]]:
            model, shares = copy.deepcopy(plain), shards.Shards(Together(Place(rank, size)), torch.device("cpu"))
            held.hold(model, dtype, quantization, ["classifier"], shares=shares)
            assert shares.kept_bytes == sum(map(len, shares._parts))
            return model, shares._parts

        (alone, of_all), *others = parts(0, 1), *(parts(rank, 3) for rank in range(3))
        assert len(of_all) > 2
        for whole, *cut in zip(of_all, *(found for _, found in others), strict=True):
            joined = torch.cat(cut)
            assert torch.equal(joined[: len(whole)], whole)
            assert not joined[len(whole) :].any()
            assert max(map(len, cut)) <= len(whole) / 3 + 64
        layers = [one for one in others[0][0].modules() if isinstance(one, held.Held)]
        assert len(layers) == 2 * 6 + 1 + 3, "blocks, pooler, embeddings"
        assert not any("weight" in one._buffers or "weight" in one._parameters for one in layers)
        shapes = [one.weight.shape for one in plain.modules() if type(one) in held._HELD]
        assert held.numel(alone) == sum(map(math.prod, shapes)) - plain.classifier.weight.numel()

    def test_a_weight_that_layers_share_is_held_once(self) -> None:
        model = make_model("bert")
        first, second = (layer.attention.self.query for layer in model.bert.encoder.layer[:2])
        second.weight = first.weight
        held.hold(model, "bfloat16", None, [])
        assert first._buffers["weight"] is second._buffers["weight"]
        assert first._buffers["weight"] is not model.bert.encoder.layer[0].attention.self.key._buffers["weight"]
        model = make_model("bert")
        one, other = model.bert.embeddings.word_embeddings, model.bert.embeddings.position_embeddings
        other.weight = one.weight
        held.hold(model, "float32", "nf4", [])
        assert one.weight is other.weight, "one that stays plain is one as well"

    @pytest.mark.parametrize("holding", [{"quantization": "nf4"}, {"dtype": "bfloat16"}], ids=["nf4", "bf16"])
    def test_the_file_does_not_stay_in_memory(self, holding: dict[str, str], tmp_path: Path) -> None:
        """Weights that are read are views of it, and one that is left keeps all of it."""
        folder = tiny.save_model(tmp_path / "model", "llama")
        path = str(next(folder.glob("*.safetensors")))

        def is_mapped() -> bool:
            return path in Path("/proc/self/maps").read_text(encoding="utf-8")

        if not Path("/proc/self/maps").is_file():
            pytest.skip("no /proc")
        model = load(folder)
        assert is_mapped(), "negative control"
        model = load(folder, **holding)
        gc.collect()
        assert not is_mapped()
        assert held.is_held(model)


class TestMathematics:
    @pytest.mark.parametrize("kind", [*KINDS, "distilbert", "modernbert", "qwen2"])
    @pytest.mark.parametrize("holding", HOLDINGS.values(), ids=HOLDINGS)
    def test_packed_logits_and_gradients_are_those_of_the_released_model(
        self, kind: str, holding: dict[str, str]
    ) -> None:
        model = make_model(kind)
        head = heads.modules(model)
        held.hold(model, holding.get("dtype", "float32"), holding.get("quantization"), head)
        plain = with_adapter(held.release(copy.deepcopy(model)))
        pad = model.config.pad_token_id
        execution = Execution(model, pad)
        assert isinstance(execution.forward, Packed), execution.describe()
        adapted = with_adapter(model)
        assert execution.adopt(adapted)
        encoding = make_encoding([3, 17, 1, 9, 17, 2, 9])
        expected = padded_logits(plain, encoding, pad)
        found = execution.outputs(adapted, encoding, np.arange(7)).values
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        for logits in (expected, found):
            (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
        stock.require_same_gradients(adapted, plain)

    def test_no_direction_keeps_what_it_unpacked(self) -> None:
        layer = torch.nn.Sequential(torch.nn.Linear(64, 48))
        layer.config = type("Config", (), {})()
        held.hold(layer, "bfloat16", None, [])
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
            layer(torch.randn(5, 64, requires_grad=True)).sum().backward()
        assert not [one for one in kept if one.numel() >= 64 * 48]

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    def test_under_autocast_it_is_multiplied_in_16_bits(self, kind: str) -> None:
        model = make_model(kind)
        held.hold(model, "bfloat16", None, heads.modules(model))
        plain = held.release(copy.deepcopy(model))
        layer = next(one for one in model.modules() if isinstance(one, held.HeldLinear | held.HeldConv1D))
        states = torch.randn(3, layer.shape[1], requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(states)
            logits, expected = (one(input_ids=torch.arange(6, 11)[None]).logits.float() for one in (model, plain))
        assert found.dtype == torch.bfloat16
        found.sum().backward()
        assert states.grad is not None
        assert states.grad.dtype == torch.float32
        torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.05)

    @pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    @pytest.mark.parametrize("name", sorted(METHODS))
    def test_every_method_computes_with_the_weights_that_are_held_or_is_refused(self, name: str, kind: str) -> None:
        """As on a plain model of the very same numbers; a tuner that wrote to them would be found here."""
        method = METHODS[name](METHODS[name].Options())
        base = classifier(kind)
        try:
            method.require_targets(base)
        except ConfigError:
            pytest.skip("refused for this model")
        if method.unheld:
            return
        for dtype, quantization in [("bfloat16", None), ("float32", "nf4")]:
            model = copy.deepcopy(base)
            held.hold(model, dtype, quantization, ["score" if kind in tiny.DECODERS else "classifier"])
            plain = held.release(copy.deepcopy(model))
            (expected, theirs), (found, ours) = (_moved(name, kind, one) for one in (plain, model))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
            assert ours.keys() == theirs.keys()
            for key, gradient in theirs.items():
                torch.testing.assert_close(
                    ours[key], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-6, rtol=1e-3
                )

    @pytest.mark.parametrize("begins", ["pissa", "olora", "corda", "lora_ga"])
    def test_what_writes_to_the_weights_is_refused(self, begins: str) -> None:
        options = METHODS["lora"].Options(init_lora_weights=begins)
        assert "changing the model's own weights" in METHODS["lora"](options).unheld
        if begins != "pissa":
            return
        apart = []  # why: on a plain model it begins where the model stands, on one that is held somewhere else
        for holds in (False, True):
            base = classifier("bert")
            held.hold(base, "bfloat16", None, ["classifier"])
            base = base if holds else held.release(base)
            ids = torch.tensor([[2, 7, 8, 9, 3]])
            before = base(ids).logits
            fit = Fit("SEQ_CLS", ["classifier"], None)  # type: ignore[arg-type]
            adapted = METHODS["lora"](options).apply(base, fit).model.eval()
            apart.append(float((adapted(ids).logits - before).detach().abs().max()))
        assert apart[0] < 1e-6
        assert apart[1] > 1e-4


def _moved(name: str, kind: str, model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and gradients of a model that is tuned by a method, away from where it begins."""
    torch.manual_seed(5)
    adapted = tuned(name, kind, model).model.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    ids, seen = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 11, 3, 0]]), torch.tensor([[1] * 5, [1] * 4 + [0]])
    logits = adapted(input_ids=ids, attention_mask=seen).logits
    logits.square().sum().backward()
    trained = {one: value.grad for one, value in adapted.named_parameters() if value.grad is not None}
    return logits.detach(), trained


class TestRuns:
    def test_what_is_stored_in_bf16_is_tuned_to_the_same_bytes(
        self, models: Models, train_csv: Path, tmp_path: Path
    ) -> None:
        folder = in_bf16(models("llama"), tmp_path / "bf16")
        for name, holding in (("whole", {}), ("narrow", {"dtype": "auto"})):
            run(content_of(folder, train_csv, holding), tmp_path / name)
        whole, narrow = (
            load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "narrow")
        )
        assert all(torch.equal(value, narrow[key]) for key, value in whole.items())
        resolved = recipes.load(tmp_path / "narrow" / "recipe.toml").model
        assert resolved.dtype == "bfloat16"
        assert "as " in (tmp_path / "narrow" / "recipe.toml").read_text(encoding="utf-8")
        metrics = [RunDirectory(tmp_path / name).read_metrics() for name in ("whole", "narrow")]
        assert metrics[0]["total_parameters"] == metrics[1]["total_parameters"]
        assert metrics[0]["tuned"]["eval_loss"] == pytest.approx(metrics[1]["tuned"]["eval_loss"], abs=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "name"), [("bert", "bf16"), ("gpt2", "nf4"), ("llama", "int8"), ("llama", "nf4+bf16")]
    )
    def test_a_run_resumes_to_the_same_bytes_and_answers_as_it_was_measured(
        self, kind: str, name: str, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = content_of(models(kind), train_csv, HOLDINGS[name], method={"lora_dropout": 0.2})
        run(content, tmp_path / "whole")
        stopped_and_resumed(content, tmp_path / "stopped", 5, monkeypatch)
        whole, stopped = (
            (tmp_path / one / "adapter" / "adapter_model.safetensors").read_bytes() for one in ("whole", "stopped")
        )
        assert whole == stopped
        texts = [row["text"] for row in tiny.rows(12, seed=4)]
        of_run, of_adapter = (
            [one["probabilities"]["pos"] for one in featherweight.load_predictor(str(where)).predict(texts)]
            for where in (tmp_path / "whole", tmp_path / "whole" / "adapter")
        )
        assert of_run == pytest.approx(of_adapter, abs=1e-6)
        workflow.export(tmp_path / "whole", "merged", tmp_path / "merged")
        merged = [
            one["probabilities"]["pos"] for one in featherweight.load_predictor(str(tmp_path / "merged")).predict(texts)
        ]
        assert merged == pytest.approx(of_run, abs=1e-5), "in fp32, of the weights that were held"

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "name", "tolerance"),
        [("llama", "bf16", 1e-5), ("bert", "nf4", 0.05), ("gpt2", "nf4", 0.05), ("gpt2", "int8", 0.05)],
    )
    def test_the_card_loads_it_by_stock_libraries(
        self, kind: str, name: str, tolerance: float, models: Models, train_csv: Path, tmp_path: Path
    ) -> None:
        run(content_of(models(kind), train_csv, HOLDINGS[name]), tmp_path / "run")
        model, tokenizer = stock.by_card(tmp_path / "run" / "adapter")
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False  # its product for such processors takes rows of 64 and more
        texts = [row["text"] for row in tiny.rows(12, seed=4)]
        theirs = stock.logits(model, tokenizer, texts, 16).softmax(1)[:, 1].tolist()
        ours = [
            one["probabilities"]["pos"] for one in featherweight.load_predictor(str(tmp_path / "run")).predict(texts)
        ]
        assert theirs == pytest.approx(ours, abs=tolerance)
        card = (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
        assert {"bf16": "its weights in bf16", "nf4": "NF4 (4 bits)", "int8": "int8"}[name] in card

    def test_another_holding_is_another_run(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        run(content_of(models("bert"), train_csv, {"dtype": "bfloat16"}), tmp_path / "run")
        (tmp_path / "run" / "metrics.json").unlink()
        with pytest.raises(ConfigError, match=r"model\.dtype"):
            run(content_of(models("bert"), train_csv, {}), tmp_path / "run", resume=True)

    def test_environment_and_facts_say_how(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        run(content_of(models("bert"), train_csv, HOLDINGS["nf4+bf16"], training={"max_steps": 2}), tmp_path / "run")
        environment = json.loads((tmp_path / "run" / "environment.json").read_text())
        facts = json.loads((tmp_path / "run" / "adapter" / "featherweight.json").read_text())
        assert environment["base_weights"] == HOLDINGS["nf4+bf16"]
        assert HOLDINGS["nf4+bf16"].items() <= facts["base_model"].items()
        assert environment["execution"]["batches"] == "packed"
        assert held.is_held(loading.load(str(tmp_path / "run" / "adapter")).model)

    def test_training_goes_on_from_an_adapter_on_the_base_as_it_was_held(
        self, models: Models, train_csv: Path, tmp_path: Path
    ) -> None:
        first = run(content_of(models("bert"), train_csv, HOLDINGS["nf4"]), tmp_path / "first")
        for name, more in (("second", {}), ("whole", {"quantization": None})):
            model = {"name": str(models("bert")), "adapter": str(tmp_path / "first"), **more}
            content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2}) | {"model": model}
            content.pop("method")
            found = run(content, tmp_path / name)
            same = found["base"]["eval_loss"] == pytest.approx(first["tuned"]["eval_loss"], abs=1e-6)
            assert same == (name == "second"), "measured as it was, unless the recipe says otherwise"

    @pytest.mark.slow
    def test_runs_on_a_base_that_is_held_alike_share_it(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        runs = {"one": {"quantization": "nf4"}, "two": {"quantization": "nf4"}, "whole": {}}
        catalogue = Catalogue()
        for seed, (name, holding) in enumerate(runs.items()):
            run(content_of(models("bert"), train_csv, holding, training={"seed": seed}), tmp_path / name)
            catalogue.load(name, str(tmp_path / name))
        one, two, whole = (catalogue.find(name).backend for name in runs)
        assert one is two
        assert one is not whole
        asked = [Question(row["text"]) for row in tiny.rows(12, seed=4)]
        for name in runs:
            served = catalogue.find(name)
            ready = served.backend.prepare(served.key, asked)
            found = served.backend.answer([served.key] * len(asked), ready)
            expected = featherweight.load_predictor(str(tmp_path / name)).predict([one.text for one in asked])
            for mine, other in zip(found, expected, strict=True):
                assert mine["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)

    @pytest.mark.slow
    def test_an_onnx_is_of_the_weights_that_were_held(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        run(content_of(models("gpt2"), train_csv, HOLDINGS["nf4"]), tmp_path / "run")
        evidence = workflow.export(tmp_path / "run", "onnx", tmp_path / "onnx")
        assert evidence["agreement"] == 1.0

    def test_facts_that_name_no_such_thing_are_refused(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        run(content_of(models("bert"), train_csv, HOLDINGS["nf4"], training={"max_steps": 2}), tmp_path / "run")
        path = tmp_path / "run" / "adapter" / "featherweight.json"
        facts = json.loads(path.read_text())
        facts["base_model"]["quantization"] = "nf3"
        path.write_text(json.dumps(facts))
        with pytest.raises(ModelError, match=r"featherweight\.json: base_model"):
            loading.load(str(tmp_path / "run" / "adapter"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "said"),
        [
            ({"name": "full"}, "not for full, which changes the model's own weights"),
            ({"name": "glora"}, "not for glora"),
            ({"name": "lora", "init_lora_weights": "pissa"}, "begins at pissa"),
        ],
    )
    @pytest.mark.parametrize("holding", [HOLDINGS["bf16"], HOLDINGS["nf4"]], ids=["bf16", "nf4"])
    def test_methods(
        self,
        method: dict[str, Any],
        said: str,
        holding: dict[str, str],
        models: Models,
        train_csv: Path,
        tmp_path: Path,
    ) -> None:
        content = content_of(models("bert"), train_csv, holding) | {"method": method}
        with pytest.raises(ConfigError, match=said) as caught:
            run(content, tmp_path / "run")
        assert str(caught.value).startswith(f"model.{next(iter(holding))}: ")
        content = content_of(models("bert"), train_csv, {}, training={"fsdp": True}) | {"method": method}
        with pytest.raises(ConfigError, match=said) as caught:
            run(content, tmp_path / "run")
        assert str(caught.value).startswith("training.fsdp: ")

    def test_auto_leaves_a_model_whole_that_is_tuned_whole(
        self, models: Models, train_csv: Path, tmp_path: Path
    ) -> None:
        folder = in_bf16(models("bert"), tmp_path / "bf16")
        content = content_of(folder, train_csv, {"dtype": "auto"}, training={"max_steps": 2}) | {
            "method": {"name": "full"}
        }
        run(content, tmp_path / "run")
        assert recipes.load(tmp_path / "run" / "recipe.toml").model.dtype == "float32"
        assert "full changes the model's own weights" in (tmp_path / "run" / "recipe.toml").read_text()

    def test_a_module_that_is_to_train_whole_is_not_held(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        content = content_of(models("bert"), train_csv, HOLDINGS["bf16"], method={"modules_to_save": ["pooler"]})
        content["model"] |= {"name": str(tiny.save_model(tmp_path / "whole", "bert", head=["neg", "pos"]))}
        with pytest.raises(ConfigError, match=r"method\.modules_to_save: .*pooler.* held in bf16"):
            run(content, tmp_path / "run")

    def test_without_bitsandbytes(
        self, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import importlib.util

        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else find(name, *more)
        )
        with pytest.raises(ConfigError, match=r"pip install 'featherweight\[quantization\]'"):
            run(
                content_of(tmp_path / "nowhere", train_csv, HOLDINGS["nf4"])
                | {"model": {"name": str(models("bert")), **HOLDINGS["nf4"]}},
                tmp_path / "run",
            )
