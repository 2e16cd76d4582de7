"""PEFT's tuners: each is tuned by as PEFT has it, from the recipe to what stock PEFT loads; or refused, with why."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import ROOT
from test_trainer_equivalence import TASK, largest_difference, make_encoding, train_ours, train_stock, trained

from featherweight import recipe as recipes
from featherweight.engine import Lowered
from featherweight.engine.fast import lora
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.packed import Packed
from featherweight.errors import ConfigError, ModelError
from featherweight.methods import Fit
from featherweight.methods.peft import options, strangers, tuners
from featherweight.methods.peft.tuner import name_of
from featherweight.registry import METHODS
from featherweight.registry.elsewhere import REFUSED_TUNERS
from featherweight.workflow.sampling import TrainSample

sys.path.insert(0, str(ROOT / "tools"))
import make_methods
import tuners as everywhere

BESIDE_LORA = sorted(name for name in METHODS if METHODS[name].__module__ == tuners.__name__)
# An architecture and a task for each, so that every pair is tried by some; all of them are in docs/methods.json.
PAIRS = [(one, task) for one in everywhere.ARCHITECTURES for task in everywhere.TASKS]
FAST = {"adalora", "ia3", "prompt-tuning"}


def classifier(kind: str = "bert", **more: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(11)
    return AutoModelForSequenceClassification.from_config(
        tiny.config(kind, num_labels=2, pad_token_id=0, **more)
    ).eval()


def tuned(name: str, kind: str = "bert", model: Any = None, **given: Any) -> Any:
    """A fresh model as a method makes it ready; or ``model``."""
    method = METHODS[name]
    model = classifier(kind) if model is None else model
    head = ["score" if kind in tiny.DECODERS else "classifier"]
    sample = TrainSample(make_encoding(), Lowered(TASK.answer, TASK.loss), Execution(classifier(kind), 0))
    options = method.Options(**{**everywhere.SMALL.get(name, {}), **given})
    return method(options).apply(model, Fit("SEQ_CLS", head, sample))


def run_as_tuned(name: str) -> tuple[Execution, Any]:
    """How a model is run, chosen before it is tuned, as a run has it."""
    base = classifier()
    execution = Execution(base, 0)
    assert isinstance(execution.forward, Packed)
    return execution, tuned(name, model=base).model


class TestNames:
    def test_options_are_those_of_the_peft_that_is_installed(self) -> None:
        made = make_methods.generated()
        assert Path(options.__file__).read_text(encoding="utf-8") == made, "run `make methods`"

    def test_every_tuner_of_peft_is_offered_or_refused(self) -> None:
        from peft import PeftType

        theirs = {name_of(one.value) for one in PeftType}
        assert theirs == {*BESIDE_LORA, "lora", *REFUSED_TUNERS}
        assert not {*METHODS} & {*REFUSED_TUNERS}

    @pytest.mark.parametrize("name", sorted(REFUSED_TUNERS))
    def test_a_refused_one_says_why_before_anything_is_read(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"known: .*lora") as caught:
            recipes.parse({"model": {"name": "nowhere"}, "data": {"name": "nowhere"}, "method": {"name": name}})
        assert REFUSED_TUNERS[name] in str(caught.value)

    @pytest.mark.parametrize(
        ("method", "said"),
        [
            ({"name": "prompt_tuning"}, "did you mean 'prompt-tuning'"),
            ({"name": "vera", "rr": 8}, "rr"),
            ({"name": "adalora", "init_r": 8, "target_r": 8}, "init_r"),
            ({"name": "adalora", "total_step": 10}, "number of steps that the run has"),
            ({"name": "adamss", "use_asa": True}, "use_asa"),
            ({"name": "oft", "coft": "yes"}, "coft"),
        ],
    )
    def test_what_can_not_be_is_seen_when_the_recipe_is_read(self, method: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            recipes.parse({"model": {"name": "nowhere"}, "data": {"name": "nowhere"}, "method": method})


class TestEverywhere:
    """The whole way, by ``tools/tuners.py``."""

    def test_the_results_are_of_every_method_and_none_failed(self) -> None:
        known = everywhere.read()
        assert set(known) == set(METHODS), "run python tools/tuners.py --missing"
        wanted = {f"{architecture} {task}" for architecture, task in PAIRS}
        for name, found in known.items():
            assert set(found) == wanted, name
            failed = [(pair, step) for pair, one in found.items() for step in one if "fails" in str(one[step])]
            assert not failed, name
            assert any(one["run"] == "ok" for one in found.values()), name
            packed = {one["batches"] for one in found.values() if one["run"] == "ok"}
            assert packed == {"packed" if METHODS[name].packs else "padded"}, name

    @pytest.mark.parametrize(
        ("name", "pair"),
        [
            pytest.param(name, PAIRS[index % len(PAIRS)], id=f"{name}", marks=[] if name in FAST else pytest.mark.slow)
            for index, name in enumerate(BESIDE_LORA)
        ],
    )
    def test_a_tuner_goes_all_the_way(
        self, name: str, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It trains, resumes to the same bytes, answers merged as it was measured, and so it does in stock PEFT."""
        monkeypatch.chdir(tmp_path)
        found, recorded = everywhere.journey(name, *pair), everywhere.read()[name][" ".join(pair)]
        if recorded["run"] == "ok":
            assert {step: found.get(step) for step in everywhere.STEPS} == dict.fromkeys(everywhere.STEPS, "ok"), found
        assert found == recorded

    def test_a_tuner_that_does_not_know_a_model_is_refused_before_its_weights_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from featherweight import workflow
        from featherweight.sources import models

        monkeypatch.setattr(models, "load_model", lambda *given, **more: pytest.fail("weights were read"))
        rows = tiny.save_jsonl(tmp_path / "rows.jsonl", tiny.rows(40))
        model = tiny.save_model(tmp_path / "gpt2", "gpt2")
        with pytest.raises(ConfigError, match=r"loha does not know gpt2's layers.*Conv1D"):
            workflow.run(recipes.parse(tiny.recipe(model, rows, method={"name": "loha"})), tmp_path / "run")


class TestProof:
    """Packed batches are held to padded ones on the model as it is tuned, and so is each exchanged module."""

    @pytest.mark.parametrize("name", ["lora", "vera", "oft", "ln-tuning"])
    def test_what_changes_each_token_alone_stays_packed(self, name: str) -> None:
        execution, model = run_as_tuned(name)
        before = trained(model)
        assert execution.adopt(model)
        assert isinstance(execution.forward, Packed)
        assert largest_difference(trained(model), before) == 0, "what was moved to be tried is put back"

    def test_what_looks_at_other_tokens_is_padded(self) -> None:
        """It begins at zero, where nobody could see it."""
        execution, model = run_as_tuned("vera")
        for module in model.modules():
            if hasattr(module, "vera_lambda_b"):
                inner, learned = module.forward, module.vera_lambda_b["default"]
                module.forward = lambda states, inner=inner, learned=learned: (
                    inner(states) + learned * states[:, :1, :1]
                )
        assert not execution.adopt(model)
        assert execution.describe()["batches"] == "padded"
        assert "as it is tuned" in execution.describe()["reason"]

    def test_a_faster_module_that_answers_otherwise_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = lora._LoRALinear.apply

        def wrong(states: Any, a: Any, b: Any, base: Any, scale: float, mask: Any) -> Any:
            return original(states, a, b, base, 1.01 * scale, mask)  # type: ignore[no-untyped-call]

        execution, model = run_as_tuned("lora")
        monkeypatch.setattr(lora._LoRALinear, "apply", wrong)
        with pytest.raises(ModelError, match="faster form"):
            execution.adopt(model)

    @pytest.mark.parametrize("name", ["adalora", "lora"])
    def test_only_plain_lora_is_fused(self, name: str) -> None:
        execution, model = run_as_tuned(name)
        execution.adopt(model)
        fused = [one for one in model.modules() if hasattr(one, "lora_A") and "forward" in vars(one)]
        assert bool(fused) == (name == "lora")


WHOLE_BATCHES: dict[str, Any] = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1}


class TestAdaLora:
    def test_steps_are_those_of_the_trainer_with_pefts_callback(self, tmp_path: Path) -> None:
        given = {"init_r": 6, "target_r": 3, "tinit": 1, "tfinal": 2}
        ours, stock, encoding = tuned("adalora", **given), tuned("adalora", **given).model, make_encoding()
        start = trained(ours.model)
        losses = train_ours(ours.model, encoding, tmp_path / "ours", keeper=ours.keeper, **WHOLE_BATCHES)
        stock.peft_config["default"].total_step = len(losses)
        theirs = train_stock(
            stock, encoding, tmp_path / "stock", after_step=stock.base_model.update_and_allocate, **WHOLE_BATCHES
        )
        assert losses == pytest.approx(theirs, abs=1e-5)
        patterns = [one.peft_config["default"].rank_pattern for one in (ours.model, stock)]
        assert patterns[0] == patterns[1]
        assert any(not kept for ranks in patterns[0].values() for kept in ranks), "ranks were taken away"
        assert largest_difference(trained(ours.model), trained(stock)) < 1e-5
        assert start.keys() == trained(ours.model).keys()

    def test_without_its_allocation_it_is_another_training(self, tmp_path: Path) -> None:
        """Negative control."""
        given = {"init_r": 6, "target_r": 3, "tinit": 1, "tfinal": 2}
        ours, other, encoding = tuned("adalora", **given), tuned("adalora", **given), make_encoding()
        losses = train_ours(ours.model, encoding, tmp_path / "ours", keeper=ours.keeper, **WHOLE_BATCHES)
        without = train_ours(other.model, encoding, tmp_path / "other", **WHOLE_BATCHES)
        assert losses != pytest.approx(without, abs=1e-3)

    def test_too_few_steps_are_an_error_with_the_key(self) -> None:
        adapted = tuned("adalora", tinit=3, tfinal=3)
        with pytest.raises(ConfigError, match=r"method\.tinit.*6|tfinal"):
            adapted.keeper.begin(6)


class TestStrangers:
    """Configurations of other tuners, from files that anybody may have written."""

    def check(self, tmp_path: Path, name: str, **changes: Any) -> None:
        from safetensors import safe_open

        from featherweight.methods.peft import adapters
        from featherweight.sources.tensors import read_header

        adapters.save(tuned(name).model, tmp_path, "base", None)
        path = tmp_path / "adapter_config.json"
        config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
        with safe_open(tmp_path / "adapter_model.safetensors", framework="pt"):
            strangers.check(config, path, read_header(tmp_path / "adapter_model.safetensors"))

    @pytest.mark.parametrize("name", [*BESIDE_LORA, "lora"])
    def test_what_we_save_is_taken(self, name: str, tmp_path: Path) -> None:
        self.check(tmp_path, name)

    @pytest.mark.parametrize(
        ("name", "changes", "said"),
        [
            ("prompt-tuning", {"num_virtual_tokens": 60_000}, "no tensor in the file"),
            ("prompt-tuning", {"tokenizer_kwargs": {"a": 1}}, "may not ask for"),
            ("vera", {"r": 60_000}, "no tensor in the file"),
            ("fourierft", {"n_frequency": 65_000}, "no tensor in the file"),
            ("adalora", {"rank_pattern": {"a": [1, 2]}}, "which ranks are kept"),
            ("oft", {"oft_block_size": -1}, "whole number from 0"),
            ("vblora", {"num_vectors": 1 << 40}, "whole number from 1"),
        ],
    )
    def test_sizes_that_are_not_in_the_file_are_refused(
        self, name: str, changes: dict[str, Any], said: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError, match=said):
            self.check(tmp_path, name, **changes)


class TestBeginnings:
    """LoRA's initial values that are made from rows of train."""

    def test_evas_are_directions_of_what_each_layer_reads(self) -> None:
        model = tuned("lora", init_lora_weights="eva", r=4).model
        sample = TrainSample(make_encoding(), Lowered(TASK.answer, TASK.loss), Execution(classifier(), 0))
        read: list[torch.Tensor] = []
        base = classifier()
        base.bert.encoder.layer[0].attention.self.query.register_forward_pre_hook(
            lambda module, given: read.append(given[0][0])
        )
        with torch.no_grad():
            sample.read(base)
        a = model.get_base_model().bert.encoder.layer[0].attention.self.query.lora_A["default"].weight.detach()
        torch.testing.assert_close(a @ a.T, torch.eye(len(a)), atol=1e-4, rtol=0)
        states = torch.cat(read)
        centred = states - states.mean(0)
        expected = torch.linalg.svd(centred, full_matrices=False)[2][: len(a)]
        assert float((a @ expected.T).square().sum()) > 0.9 * len(a), "the same subspace, found row by row"
        random = torch.nn.init.orthogonal_(torch.empty_like(a))
        assert float((random @ expected.T).square().sum()) < 0.5 * len(a), "negative control"

    @pytest.mark.parametrize("initial", ["corda", "lora_ga", "pissa", "olora"])
    def test_the_model_begins_as_it_is(self, initial: str) -> None:
        """What is taken out of a weight is what its update begins with."""
        base, model = classifier(), tuned("lora", init_lora_weights=initial, r=4).model.eval()
        ids = torch.arange(6, 16)[None]
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-5, rtol=1e-4)
            taken = [
                float((one.get_base_layer().weight - dict(base.named_modules())[name].weight).abs().max())
                for name, one in model.get_base_model().named_modules()
                if hasattr(one, "lora_A")
            ]
        assert max(taken) > 1e-6


class TestTrunk:
    def test_what_layers_share_has_no_frozen_trunk_below(self) -> None:
        from featherweight.engine.running.packed import block_list
        from featherweight.engine.running.trunk import _lowest_trained

        adapted = tuned("lora", layers_to_transform=[1])
        adapted.model.register_parameter("shared", torch.nn.Parameter(torch.zeros(3)))
        trunk = adapted.model.get_base_model().bert
        with pytest.raises(ConfigError, match="trains, so there is no frozen trunk"):
            _lowest_trained(adapted.model, trunk, block_list(trunk))
        top = tuned("lora", layers_to_transform=[1])
        trunk = top.model.get_base_model().bert
        assert _lowest_trained(top.model, trunk, block_list(trunk)) == 1


class TestGoingOn:
    def test_what_peft_can_not_train_further_is_refused(self, tmp_path: Path) -> None:
        from featherweight import workflow

        model = tiny.save_model(tmp_path / "bert", "bert")
        rows = tiny.save_jsonl(tmp_path / "rows.jsonl", tiny.rows(40))
        content = tiny.recipe(model, rows, method={"name": "prompt-tuning"}, training={"max_steps": 2})
        workflow.run(recipes.parse(content), tmp_path / "first", progress=False)
        content["model"]["adapter"] = str(tmp_path / "first")
        with pytest.raises(ConfigError, match=r"model\.adapter: PEFT loads what prompt-tuning learned"):
            workflow.run(recipes.parse(content), tmp_path / "second", progress=False)


class TestMerging:
    @pytest.mark.parametrize("name", ["ln-tuning", "lora", "ia3"])
    def test_what_is_merged_is_saved_as_it_answers(self, name: str, tmp_path: Path) -> None:
        """PEFT leaves LN tuning's head in a wrapper, whose weights nobody finds again."""
        from transformers import AutoModelForSequenceClassification

        from featherweight.export.merged import merge

        model = tuned(name).model.eval()
        with torch.no_grad():
            for value in model.parameters():
                value.add_(0.1 * torch.randn_like(value) if value.requires_grad else 0)
            ids = torch.arange(6, 16)[None]
            expected = model(input_ids=ids).logits
            merge(model).save_pretrained(tmp_path)
            back = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
            torch.testing.assert_close(back(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("name", ["prompt-tuning", "beft", "osf"])
    def test_what_can_not_be_merged_says_so(self, name: str) -> None:
        from featherweight.errors import UnprovenError
        from featherweight.export.merged import merge

        with pytest.raises(UnprovenError, match=f"{name} learns has no place"):
            merge(copy.deepcopy(tuned(name).model))
