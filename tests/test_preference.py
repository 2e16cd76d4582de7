"""Answers that are compared: what training lowers is what TRL lowers, what it is held to, and what is told of pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stock
import tiny
import torch
from tasks_data import SAMPLES
from test_causal_lm import END, TEMPLATE, continuer, scored, tokenizer
from test_contracts import Killed
from test_trainer_equivalence import SETTINGS, train_ours

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.pair_losses import PairLoss
from featherweight.answers.preference import LENGTHS, LOGPS, REWARDS, Preference, of_both, preferred
from featherweight.engine.running.evaluate import answers
from featherweight.engine.training.train import Trainer
from featherweight.errors import ConfigError, DataError
from featherweight.evidence.data.preferences import Preferences
from featherweight.inference.predictor import load_predictor
from featherweight.records.answers import Answers
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue, Turn
from featherweight.records.questions import Question
from featherweight.records.rows import Encoding
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks.preference import PreferenceLearning
from featherweight.tasks.reading import pairs
from featherweight.workflow import referring

Models = Callable[[str], Path]

(SAMPLE,) = (one for one in SAMPLES if one.task == "preference")
PAIRS = 48  # as many as make whole steps: TRL's mean is over micro-batches, and ours over pairs


def as_messages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
    return [{key: [{"role": role, "content": row[key].strip()}] for key, role in names} for row in rows]


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # TRL's own
class TestTrl:
    """Step by step as ``DPOTrainer`` and ``ORPOTrainer``, on the same rows."""

    trl = pytest.importorskip("trl", reason="TRL is not installed")

    def encoding(self, rows: list[dict[str, Any]], made: Any, folder: Path) -> Encoding:
        path = tiny.save_jsonl(folder / "rows.jsonl", rows)
        section = data.found(recipes.load_data_section({"train_file": str(path)}, "preference"))
        (split,) = data.load(section).values()
        task = PreferenceLearning.of_split(split, section)
        return task.encode(task.read(split, section), made, Cutting(24))

    def ours(self, kind: str, loss: PairLoss, encoding: Encoding, folder: Path) -> tuple[list[float], Any]:
        task, model = PreferenceLearning(Preference(loss=loss)), continuer(kind)
        execution = scored(model)
        if task.refers:  # to the adapter as it is now, of which TRL makes a copy
            found = answers(model, task.answer, encoding, np.arange(PAIRS), execution=execution)
            encoding = replace(encoding, reference=task.reference(found))
        return train_ours(model, encoding, folder, execution, task=task), model

    def theirs(
        self, trainer: Any, config: Any, kind: str, rows: list[dict[str, Any]], made: Any, folder: Path, **changes: Any
    ) -> tuple[list[float], Any]:
        from datasets import Dataset

        settings = {**SETTINGS, "warmup_steps": SETTINGS["warmup_ratio"], "max_length": 24, **changes}
        settings.pop("warmup_ratio")
        arguments = config(
            output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
            gradient_checkpointing=False, **settings,
        )  # fmt: skip
        found: list[float] = []

        class Recording(trainer):  # type: ignore[misc]
            def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
                loss = super().training_step(*given, **more)
                if len(found) == self.state.global_step:
                    found.append(0.0)
                found[-1] += float(loss)
                return loss

        model = continuer(kind)
        Recording(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=made).train()
        return found, model

    def dpo(self, kind: str, rows: list[dict[str, Any]], made: Any, folder: Path, **changes: Any) -> Any:
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        return self.theirs(DPOTrainer, DPOConfig, kind, rows, made, folder, **changes)

    def require_same(self, ours: tuple[list[float], Any], theirs: tuple[list[float], Any]) -> None:
        (found, model), (expected, other) = ours, theirs
        assert len(found) == len(expected) == 8
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
        trained = dict(other.named_parameters())
        for name, value in model.named_parameters():
            torch.testing.assert_close(value, trained[name], atol=1e-5, rtol=1e-4, msg=name)

    @pytest.mark.parametrize(
        ("kind", "chat", "loss"),
        [
            ("llama", False, PairLoss()),
            ("gpt2", True, PairLoss(beta=0.5)),
            ("gpt2", False, PairLoss("hinge")),
            ("llama", True, PairLoss("ipo", 0.3)),
            ("llama", False, PairLoss("robust", 0.2, 0.1)),
        ],
        ids=lambda one: one.loss_type if isinstance(one, PairLoss) else None,
    )
    def test_same_losses_and_adapter(self, kind: str, chat: bool, loss: PairLoss, tmp_path: Path) -> None:
        made = tokenizer(TEMPLATE if chat else None)
        rows = as_messages(SAMPLE.rows(PAIRS)) if chat else SAMPLE.rows(PAIRS)
        asked = {"loss_type": [loss.loss_type], "beta": loss.beta, "label_smoothing": loss.label_smoothing}
        ours = self.ours(kind, loss, self.encoding(rows, made, tmp_path), tmp_path / "ours")
        self.require_same(ours, self.dpo(kind, rows, made, tmp_path / "theirs", **asked))

    def test_one_other_setting_is_seen(self, tmp_path: Path) -> None:
        """Negative control: TRL is told of another beta."""
        made, rows = tokenizer(), SAMPLE.rows(PAIRS)
        ours = self.ours("llama", PairLoss(), self.encoding(rows, made, tmp_path), tmp_path / "ours")
        theirs = self.dpo("llama", rows, made, tmp_path / "theirs", beta=0.11)
        assert np.abs(np.asarray(ours[0]) / theirs[0] - 1).max() > 1e-3

    def test_orpo(self, tmp_path: Path) -> None:
        """On prompts of one token and chosen answers of one length: TRL's NLL is of the prompts too, and a mean over a
        micro-batch's tokens, where the paper's, and ours, is a mean over pairs."""
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        made = tokenizer()
        rows = [
            {"prompt": row["prompt"].split()[0], "chosen": " ".join(["", *row["chosen"].split()[:3]]),
             "rejected": row["rejected"]}
            for row in SAMPLE.rows(PAIRS)
        ]  # fmt: skip
        ours = self.ours("llama", PairLoss("orpo", 0.3), self.encoding(rows, made, tmp_path), tmp_path / "ours")
        self.require_same(
            ours, self.theirs(ORPOTrainer, ORPOConfig, "llama", rows, made, tmp_path / "theirs", beta=0.3)
        )


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASKED, BETTER, WORSE = said("user", "a film"), said("assistant", "great"), said("assistant", "dull")
AS_TURNS = Dialogue((Turn("user", "a film"),), (Turn("assistant", "great"),), (Turn("assistant", "dull"),))


class TestReading:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"prompt": "a film", "chosen": " great", "rejected": " dull"}, Dialogue("a film", " great", " dull")),
            ({"prompt": "a film", "chosen": [BETTER], "rejected": [WORSE]}, AS_TURNS),
            ({"prompt": [ASKED], "chosen": [BETTER], "rejected": [WORSE]}, AS_TURNS),
            ({"prompt": [ASKED], "chosen": "great", "rejected": "dull"}, AS_TURNS),
            # As in UltraFeedback, whose answers hold the prompt too; and as in HH-RLHF, which has no prompt.
            ({"prompt": "a film", "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]}, AS_TURNS),
            ({"chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]}, AS_TURNS),
            ({"chosen": "a film: great cast", "rejected": "a film: dull"}, Dialogue("a film:", " great cast", " dull")),
        ],
    )
    def test_forms_of_a_pair(self, given: dict[str, Any], expected: Dialogue) -> None:
        assert pairs.of_given(given, chat=None) == expected
        if "prompt" not in given:
            extract_prompt = pytest.importorskip("trl.data_utils").extract_prompt
            theirs = extract_prompt(given)
            assert pairs.of_given({key: theirs[key] for key in ("prompt", "chosen", "rejected")}, None) == expected

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"prompt": "a", "chosen": "b"}, "'prompt', 'chosen' and 'rejected' were expected"),
            ({"prompt": "a", "chosen": "b", "rejected": [WORSE]}, "one answer is a text and the other a list"),
            ({"prompt": "a", "chosen": "", "rejected": "b"}, "'chosen' or 'rejected' is empty"),
            ({"prompt": "a", "completion": "b"}, "a prompt was expected, or two answers to compare"),
        ],
    )
    def test_what_is_no_pair_is_refused(self, given: dict[str, Any], problem: str) -> None:
        with pytest.raises(DataError, match=problem):
            pairs.of_given(given, chat=None)

    def test_both_answers_are_compared_from_the_same_token_on(self) -> None:
        """Where one of them swallows the end of the prompt, that end is compared in the other too, as TRL has it."""
        made = tokenizer("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}{% if add_generation_prompt %}a{% endif %}")  # fmt: skip
        row = Dialogue((Turn("user", "film"),), (Turn("assistant", "a great"),), (Turn("assistant", "dull"),))
        (found,) = pairs.encode([Question("", dialogue=row)], made, Cutting(64))
        compared = [
            made.convert_ids_to_tokens([one.ids[place + 1] for place in one.reads or ()]) for one in found.windows()
        ]
        assert compared == [["a", "great"], ["dull"]]

    @pytest.mark.parametrize(
        ("asked", "problem"),
        [
            ({"loss_type": "dpo"}, r"training\.loss_type: input should be 'sigmoid', 'hinge'"),
            ({"beta": 0}, r"training\.beta: input should be greater than 0"),
            ({"label_smoothing": 0.1}, "'label_smoothing' is for loss_type = 'robust'"),
            ({"loss": "focal"}, "'loss' is called 'loss_type' for pairs of answers"),
        ],
    )
    def test_keys_of_training(self, asked: dict[str, Any], problem: str) -> None:
        content = {"task": "preference", "model": {"name": "m"}, "data": {"name": "d"}, "training": asked}
        with pytest.raises(ConfigError, match=problem):
            recipes.parse(content)
        with pytest.raises(ConfigError, match=r"training\."):
            recipes.parse({**content, "task": "causal-lm", "training": {"beta": 0.1}})


def answered(rewards: Any, logps: Any = None) -> Answers:
    """Of pairs, each answer one token long."""
    rewards = np.asarray(rewards, dtype=np.float64)
    known = rewards if logps is None else np.asarray(logps, dtype=np.float64)
    return Answers({REWARDS: rewards, LOGPS: known, LENGTHS: np.ones(rewards.shape, dtype=np.int64)})


class TestEvidence:
    def test_equal_rewards_are_told_by_likelihood_and_what_is_equal_then_is_wrong(self) -> None:
        rewards = [[1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
        logps = [[-9, -1], [-1, -9], [-1, -2], [-2, -1], [-1, -1]]
        assert preferred(answered(rewards, logps)).tolist() == [True, False, True, False, False]

    def test_better_than_a_bad_model_is_not_enough(self) -> None:
        """An untuned model that is right of one pair in ten, and one that tosses a coin."""
        kind, truth = Preference(), of_both([("a", "b")] * 200)
        coin, bad, good = (
            answered([[one < share, 0.5] for one in np.linspace(0, 1, 200)]) for share in (0.5, 0.1, 0.8)
        )
        groups = [str(row % 100) for row in range(200)]
        for drawn in (None, groups):
            assert kind.confirm("better", (bad, coin), truth, drawn, 0) == "no-difference"
            assert kind.confirm("better", (bad, good), truth, drawn, 0) == "better"
            assert kind.confirm("worse", (coin, bad), truth, drawn, 0) == "worse"

    def test_a_model_that_knows_nothing_but_length_is_named(self) -> None:
        kind = Preference()
        truth = of_both([("long answer", "no") if row % 2 else ("no", "long answer") for row in range(40)])
        longer = answered([[row % 2, 0.5] for row in range(40)])
        (line,) = kind.cautions("validation", longer, truth)
        assert "prefers the longer answer in 100.0% of the validation pairs" in line
        assert kind.cautions("validation", answered([[row % 3, 0.5] for row in range(40)]), truth) == []

    def test_data_that_teach_length_and_contradict_themselves_are_named(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"film {row}", "chosen": "great cast", "rejected": "dull"} for row in range(30)]
        rows += [{"prompt": "film 3", "chosen": "Dull!", "rejected": "great  cast"}]
        path = tiny.save_jsonl(tmp_path / "rows.jsonl", rows)
        section = recipes.load_data_section({"train_file": str(path)}, "preference")
        found = workflow.inspect_data(section, task="preference")
        assert any(
            "In 96.8% of the train pairs the chosen answer is the longer one" in one for one in found["warnings"]
        )
        assert found["preferences"]["contradicted"] == 2
        assert Preferences().warnings({"preferences": {"lengths": {"train": {"pairs": 30, "longer": 0.5, "shorter": 0.5}}, "contradicted": 0}}) == []  # fmt: skip


@pytest.fixture(scope="module")
def tuned(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose adapter rewrites the base model's weights, on rows of which some are left out."""
    folder = tmp_path_factory.mktemp("preference")
    rows = SAMPLE.rows(92)
    rows += [{"prompt": f"film {one}", "chosen": " great", "rejected": " great"} for one in "abcd"]
    rows += [{"prompt": "film " * 30 + one, "chosen": " great", "rejected": " dull"} for one in "abc"]
    content = content_of(models, folder, rows, method={"name": "lora", "r": 8, "init_lora_weights": "pissa"})
    workflow.run(recipes.parse(content), folder / "run", progress=False)
    return folder / "run"


def content_of(models: Models, folder: Path, rows: list[dict[str, Any]], **sections: dict[str, Any]) -> dict[str, Any]:
    train = tiny.save_jsonl(folder / "rows.jsonl", rows)
    training = {"learning_rate": 1e-2, "num_train_epochs": 5, "beta": 0.2}
    return tiny.recipe(models("llama-lm"), train, training=training, **sections) | {"task": "preference"}


def stock_logps(model: Any, made: Any, row: dict[str, Any]) -> list[float]:
    """transformers' own, of both answers and the end of text behind them."""
    found = []
    for side in ("chosen", "rejected"):
        prompt = len(made(row["prompt"])["input_ids"])
        ids = torch.tensor([made(row["prompt"] + row[side] + END)["input_ids"]])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0, :-1].double().log_softmax(dim=1)
        found.append(float(logs.gather(1, ids[0, 1:, None])[prompt - 1 :].sum()))
    return found


class TestRun:
    def test_what_is_left_out_is_counted(self, tuned: Path) -> None:
        metrics = RunDirectory(tuned).read_metrics()
        assert sum(metrics["rows"].values()) == 92
        assert sum(metrics["dropped_empty_rows"].values()) == 7
        found = workflow.evaluate(str(tuned))
        assert (found["own_held_out_rows"], found["changed_since_run"]) == (True, [])
        assert found["eval_rewards/margins"] == pytest.approx(metrics["tuned"]["eval_rewards/margins"], abs=1e-5)

    def test_it_learns_the_better_answer_and_is_held_to_the_untuned_model(self, tuned: Path) -> None:
        metrics = RunDirectory(tuned).read_metrics()
        base, after = metrics["base"], metrics["tuned"]
        assert base["eval_loss"] == pytest.approx(np.log(2), abs=1e-6)
        assert base["eval_rewards/margins"] == 0
        assert base["eval_rewards/accuracies"] == base["eval_logps/accuracies"]
        assert after["eval_rewards/accuracies"] > max(base["eval_rewards/accuracies"], 0.8)
        assert metrics["comparison"]["test"] == "mcnemar-exact"
        assert metrics["rungs"]["longer-answer"]["verdict"] == "better"
        for side in ("chosen", "rejected"):
            moved = after[f"eval_logps/{side}"] - base[f"eval_logps/{side}"]
            assert after[f"eval_rewards/{side}"] == pytest.approx(0.2 * moved, abs=1e-5)

    def test_the_reference_is_the_untuned_model_and_not_the_adapter_turned_off(
        self, tuned: Path, models: Models
    ) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        rows = SAMPLE.rows(92)
        kept = RunDirectory(tuned).read_predictions("tuned", "validation")
        (path,) = (tuned / "reference").glob("validation-*.npy")
        reference = np.load(path).reshape(-1, 2)
        base = AutoModelForCausalLM.from_pretrained(models("llama-lm")).eval()
        asked = [rows[number] for number in kept.ids[:6]]
        expected = np.asarray([stock_logps(base, tokenizer(), row) for row in asked])
        np.testing.assert_allclose(reference[:6], expected, atol=1e-4)
        adapted, made = stock.by_card(tuned / "adapter")
        now = np.asarray([stock_logps(adapted, made, row) for row in asked])
        np.testing.assert_allclose(kept.answers[REWARDS][:6], 0.2 * (now - expected), atol=1e-4)
        assert isinstance(adapted, PeftModel)

    def test_pairs_are_compared_and_prompts_are_answered(self, tuned: Path, tmp_path: Path) -> None:
        kept = RunDirectory(tuned).read_predictions("tuned", "validation")
        rows = [SAMPLE.rows(92)[number] for number in kept.ids]
        predictor = load_predictor(tuned, generation={"max_new_tokens": 3})
        told = predictor.predict(rows)
        assert [one["preferred"] == "chosen" for one in told] == preferred(kept.answers).tolist()
        turned = [{"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
        assert [one["preferred"] for one in predictor.predict(turned)] == [
            {"chosen": "rejected", "rejected": "chosen"}[one["preferred"]] for one in told
        ]
        (written, compared) = predictor.predict([rows[0]["prompt"], rows[0]])
        assert set(written) == {"text", "tokens", "finish_reason"}
        assert compared == told[0]
        with pytest.raises(DataError, match="a prompt was expected, or two answers"):
            predictor.predict([{"prompt": "a", "completion": "b"}])

    def test_a_merged_model_wants_the_one_that_it_was_made_from(
        self, tuned: Path, models: Models, tmp_path: Path
    ) -> None:
        row = SAMPLE.rows(1)[0]
        workflow.export(tuned, "merged", tmp_path / "merged")
        (expected,), (found,) = (load_predictor(one).predict([row]) for one in (tuned, tmp_path / "merged"))
        assert found["rewards"]["chosen"] == pytest.approx(expected["rewards"]["chosen"], abs=1e-4)
        facts = tmp_path / "merged" / "featherweight.json"
        known = json.loads(facts.read_text())
        known["base_model"]["name"] = str(tmp_path / "gone")
        facts.write_text(json.dumps(known))
        alone = load_predictor(tmp_path / "merged", generation={"max_new_tokens": 2})
        assert alone.predict([row["prompt"]])[0]["tokens"] <= 2
        with pytest.raises(ConfigError, match="answers are compared by how much likelier tuning made them"):
            alone.predict([row])

    def test_a_model_that_was_not_tuned_is_its_own_reference(self, tuned: Path, models: Models) -> None:
        section = recipes.load(tuned / "recipe.toml").data
        found = workflow.evaluate(str(models("llama-lm")), section, task="preference")
        assert found["eval_rewards/chosen"] == found["eval_rewards/rejected"] == 0
        assert found["eval_rewards/accuracies"] == found["eval_logps/accuracies"] > 0

    def test_a_resumed_run_computes_no_reference_that_it_has(
        self, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content, run = content_of(models, tmp_path, SAMPLE.rows(48)), tmp_path / "run"

        def killed(self: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Trainer, "_train_step", killed)
            workflow.run(recipes.parse(content), run, progress=False)
        (train,), (validation,) = ((run / "reference").glob(f"{one}-*.npy") for one in ("train", "validation"))
        before = np.load(train)
        np.save(train, before + 1)  # whatever is there is taken, where it can be read
        validation.write_bytes(validation.read_bytes()[:-1])
        computed: list[str] = []
        original = referring.reference

        def compute(prepared: Any, split: str, *more: Any) -> Any:
            computed.append(split)
            return original(prepared, split, *more)

        monkeypatch.setattr(referring, "reference", compute)
        workflow.run(recipes.parse(content), run, resume=True, progress=False)
        assert computed == ["validation"]
        assert (np.load(train) == before + 1).all()

    def test_training_that_goes_on_from_an_adapter_is_told_to_merge_it(
        self, tuned: Path, models: Models, tmp_path: Path
    ) -> None:
        content = content_of(models, tmp_path, SAMPLE.rows(24))
        content |= {"model": {**content["model"], "adapter": str(tuned)}, "method": {"name": "lora"}}
        with pytest.raises(ConfigError, match=r"export --format merged"):
            workflow.run(recipes.parse(content), tmp_path / "run", progress=False)
