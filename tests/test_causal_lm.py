"""Texts that go on: what is learned of them, that it is what TRL learns, and what is written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stock
import tiny
import torch
from conftest import ROOT
from tasks_data import SAMPLES
from test_contracts import killed_and_resumed
from test_trainer_equivalence import SETTINGS, train_ours

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.text import Text
from featherweight.engine.running import scoring
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.packed import Packed
from featherweight.errors import ConfigError, DataError
from featherweight.inference.predictor import load_predictor
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue, Learning, Turn
from featherweight.records.questions import Question
from featherweight.records.rows import Encoding, Ragged, next_tokens
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks.causal_lm import CausalLM
from featherweight.tasks.reading import continuing

Models = Callable[[str], Path]

STORIES = ROOT.parent / "shared" / "models" / "stories260K"
(SAMPLE,) = (one for one in SAMPLES if one.task == "causal-lm")
END = "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|endoftext|> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
TALK = [
    {"role": "user", "content": "the film"},
    {"role": "assistant", "content": "great cast"},
    {"role": "user", "content": "a plot"},
    {"role": "assistant", "content": "dull"},
]


def tokenizer(template: str | None = None) -> Any:
    found = tiny.tokenizer("llama")
    found.pad_token = "[PAD]"
    found.chat_template = template
    return found


def continuer(kind: str, targets: Sequence[str] | None = None, **changes: Any) -> Any:
    """A tiny model that continues texts, with LoRA that changes its answers already."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(tiny.config(kind, initializer_range=0.2, **changes))
    found = list(targets or {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "v_proj"]}[kind])
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=found, init_lora_weights=False,
        fan_in_fan_out=kind == "gpt2",
    )  # fmt: skip
    return get_peft_model(model, config)


def scored(model: Any) -> Execution:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    execution = Execution(base, 0, reads_tokens=True)
    execution.score_next_tokens(base)
    if base is not model:
        execution.adopt(model)
    return execution


def drawn(rows: int = 12, seed: int = 0) -> Encoding:
    """Texts of unlike length, of which the second half is learned; of one nothing is."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, 20, rows)
    tokens = Ragged.of([draw.integers(6, len(tiny.vocabulary()), length).tolist() for length in lengths], np.int32)
    reads = Ragged.of([[] if row == 3 else range(length // 2 - 1, length - 1) for row, length in enumerate(lengths)])
    return Encoding(tokens, next_tokens(tokens, reads), reads)


def stock_loss(model: Any, encoding: Encoding) -> torch.Tensor:
    """transformers' own, text by text, summed over the tokens that are learned."""
    total = torch.zeros(())
    assert encoding.reads is not None
    for row in range(len(encoding)):
        ids = torch.from_numpy(encoding.tokens.row(row).astype(np.int64))[None]
        learned = encoding.reads.row(row) + 1
        if len(learned):
            labels = torch.full_like(ids, -100)
            labels[0, learned] = ids[0, learned]
            total = total + model(input_ids=ids, labels=labels).loss * len(learned)
    return total


def our_loss(execution: Execution, model: Any, encoding: Encoding) -> torch.Tensor:
    rows = np.random.default_rng(5).permutation(len(encoding))
    return CausalLM(Text()).loss(execution.outputs(model, encoding, rows), torch.empty(0))


class TestScoring:
    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    @pytest.mark.parametrize("few", [False, True], ids=["at-once", "few-at-a-time"])
    def test_loss_and_gradients_are_stock(self, kind: str, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if few:
            monkeypatch.setattr(scoring, "_MOST_BYTES", 3 * 4 * len(tiny.vocabulary()))
        ours, theirs = continuer(kind), continuer(kind)
        execution, encoding = scored(ours), drawn()
        assert isinstance(execution.forward, Packed)
        assert execution._scoring is not None
        assert execution._scoring.fused
        found, expected = our_loss(execution, ours, encoding), stock_loss(theirs, encoding)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        found.backward()
        expected.backward()
        stock.require_same_gradients(ours, theirs)
        with execution.answering(ours):
            assert float(our_loss(execution, ours, encoding)) == pytest.approx(float(expected.detach()), rel=1e-5)

    def test_logits_are_never_held_for_all_tokens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        width = len(tiny.vocabulary())
        monkeypatch.setattr(scoring, "_MOST_BYTES", 2 * 4 * width)
        model = continuer("llama")
        execution, encoding = scored(model), drawn()
        seen: list[int] = []
        original = scoring.product

        def product(states: Any, weight: Any, bias: Any) -> Any:
            result = original(states, weight, bias)
            if result.shape[1] == width:
                seen.append(len(result))
            return result

        monkeypatch.setattr(scoring, "product", product)
        our_loss(execution, model, encoding).backward()
        assert seen
        assert max(seen) == 2
        assert sum(seen) == encoding.items(np.arange(len(encoding)))

    def test_a_model_that_caps_its_logits_is_run_as_it_is(self) -> None:
        """Gemma 2's code bends what the last layer gives."""
        from transformers import Gemma2Config, Gemma2ForCausalLM

        torch.manual_seed(0)
        model = Gemma2ForCausalLM(
            Gemma2Config(
                vocab_size=len(tiny.vocabulary()), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
                final_logit_softcapping=1.0, attn_logit_softcapping=None, initializer_range=0.3, pad_token_id=0,
                bos_token_id=None, eos_token_id=None,
            )
        ).eval()  # fmt: skip
        expected = float(stock_loss(model, drawn()).detach())
        execution = scored(model)
        assert execution._scoring is not None
        assert not execution._scoring.fused
        with torch.no_grad():
            assert float(our_loss(execution, model, drawn())) == pytest.approx(expected, rel=1e-5)
            execution._scoring.fused = True  # negative control
            assert float(our_loss(execution, model, drawn())) != pytest.approx(expected, rel=1e-2)

    @pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["lm_head"]], ids=["too", "alone"])
    def test_lora_of_the_last_layer(self, targets: list[str]) -> None:
        ours, theirs = continuer("llama", targets), continuer("llama", targets)
        execution, encoding = scored(ours), drawn()
        found, expected = our_loss(execution, ours, encoding), stock_loss(theirs, encoding)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        found.backward()
        expected.backward()
        for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)

    def test_every_parameter_may_train(self) -> None:
        from transformers import AutoModelForCausalLM

        torch.manual_seed(3)
        ours = AutoModelForCausalLM.from_config(tiny.config("gpt2"))  # the head shares the embeddings' weights
        theirs = copy.deepcopy(ours)
        execution, encoding = scored(ours), drawn()
        our_loss(execution, ours, encoding).backward()
        stock_loss(theirs, encoding).backward()
        stock.require_same_gradients(ours, theirs)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # TRL's own
class TestTrl:
    """Step by step as ``SFTTrainer``, on the same rows."""

    trl = pytest.importorskip("trl", reason="TRL is not installed")

    def rows(self, chat: bool) -> list[dict[str, Any]]:
        rows = SAMPLE.rows(43)
        if not chat:
            return rows
        names = (("prompt", "user"), ("completion", "assistant"))
        return [{key: [{"role": role, "content": row[key].strip()}] for key, role in names} for row in rows]

    def encoding(self, rows: list[dict[str, Any]], made: Any, folder: Path) -> Encoding:
        path = tiny.save_jsonl(folder / "rows.jsonl", rows)
        section = data.found(recipes.load_data_section({"train_file": str(path)}, "causal-lm"))
        (split,) = data.load(section).values()
        task = CausalLM.of_split(split, section)
        return task.encode(task.read(split, section), made, Cutting(24))

    def losses(self, model: Any, rows: list[dict[str, Any]], made: Any, folder: Path, **changes: Any) -> list[float]:
        from datasets import Dataset
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        settings = {**SETTINGS, "warmup_steps": SETTINGS["warmup_ratio"], "max_length": 24, **changes}
        settings.pop("warmup_ratio")
        arguments = SFTConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
            gradient_checkpointing=False, **settings,
        )  # fmt: skip
        found: list[float] = []

        class Recording(SFTTrainer):
            def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
                loss = super().training_step(*given, **more)
                if len(found) == self.state.global_step:
                    found.append(0.0)
                found[-1] += float(loss)
                return loss

        Recording(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=made).train()
        return found

    @pytest.mark.parametrize("chat", [False, True], ids=["texts", "messages"])
    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    def test_same_losses_and_adapter(self, kind: str, chat: bool, tmp_path: Path) -> None:
        made, rows = tokenizer(TEMPLATE if chat else None), self.rows(chat)
        ours, theirs = continuer(kind), continuer(kind)
        encoding = self.encoding(rows, made, tmp_path)
        found = train_ours(ours, encoding, tmp_path / "ours", scored(ours), task=CausalLM(Text()))
        expected = self.losses(theirs, rows, made, tmp_path / "theirs")
        assert len(found) == len(expected) > 5
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        trained = dict(theirs.named_parameters())
        for name, value in ours.named_parameters():
            torch.testing.assert_close(value, trained[name], atol=1e-5, rtol=1e-4, msg=name)

    def test_one_other_setting_is_seen(self, tmp_path: Path) -> None:
        """Negative control: TRL learns the prompts, too."""
        made, rows = tokenizer(), self.rows(False)
        ours, theirs = continuer("llama"), continuer("llama")
        found = train_ours(
            ours, self.encoding(rows, made, tmp_path), tmp_path / "ours", scored(ours), task=CausalLM(Text())
        )
        expected = self.losses(theirs, rows, made, tmp_path / "theirs", completion_only_loss=False)
        assert np.abs(np.asarray(found) / expected - 1).max() > 1e-3


def learned(dialogue: Dialogue, made: Any, learning: Learning | None = None, length: int = 64) -> list[str]:
    (row,) = continuing.encode([Question("", dialogue=dialogue)], made, Cutting(length), learning or Learning())
    assert row.reads is not None
    return made.convert_ids_to_tokens([row.ids[place + 1] for place in row.reads])  # type: ignore[no-any-return]


def turns(messages: Sequence[dict[str, str]]) -> tuple[Turn, ...]:
    return tuple(Turn(one["role"], one["content"]) for one in messages)


class TestWhatIsLearned:
    def test_the_completion_and_its_end(self) -> None:
        row = Dialogue("the film", " great cast")
        assert learned(row, tokenizer()) == ["great", "cast", END]
        assert learned(row, tokenizer(), Learning(prompts=True)) == ["film", "great", "cast", END]
        assert learned(Dialogue("the", f" film{END}"), tokenizer()) == ["film", END]

    def test_a_text_alone_is_learned_whole_but_for_its_first_token(self) -> None:
        assert learned(Dialogue("", "the great film"), tokenizer()) == ["great", "film", END]

    def test_what_the_assistant_says(self) -> None:
        made = tokenizer(TEMPLATE)
        row = Dialogue((), turns(TALK))
        assert learned(row, made) == ["great", "cast", END, "dull", END]
        everything = made.convert_ids_to_tokens(made(made.apply_chat_template(TALK, tokenize=False))["input_ids"])
        assert learned(row, made, Learning(everybody=True)) == everything[1:]
        assert learned(Dialogue(turns(TALK[:3]), turns(TALK[3:])), made) == ["dull", END]

    def test_what_is_cut_off_is_not_learned(self) -> None:
        assert learned(Dialogue("the film", " great cast"), tokenizer(), length=3) == ["great"]
        assert learned(Dialogue("the film", " great cast"), tokenizer(), length=2) == []

    def test_a_prompt_that_is_too_long_loses_its_beginning(self) -> None:
        made = tokenizer()
        (row,) = continuing.encode([Question("", dialogue=Dialogue("a plot the film"))], made, Cutting(2), Learning())
        assert made.convert_ids_to_tokens(list(row.ids)) == ["the", "film"]
        assert (row.reads, row.lost) == (None, 2)

    def test_conversations_want_a_template(self) -> None:
        with pytest.raises(DataError, match=r"no chat template; set data\.chat_template"):
            learned(Dialogue((), turns(TALK)), tokenizer())

    def test_a_template_that_can_not_be_rendered_is_said(self) -> None:
        with pytest.raises(DataError, match="can't render a conversation: no system"):
            learned(Dialogue((), turns(TALK)), tokenizer("{{ raise_exception('no system') }}"))


def run_of(
    rows: list[dict[str, Any]], models: Models, folder: Path, model: str = "llama-lm", **sections: dict[str, Any]
) -> Path:
    train = tiny.save_jsonl(folder / "rows.jsonl", rows)
    training = {"learning_rate": 1e-2, "num_train_epochs": 2, **sections.pop("training", {})}
    content = tiny.recipe(models(model), train, training=training, **sections) | {"task": "causal-lm"}
    workflow.run(recipes.parse(content), folder / "run", progress=False)
    return folder / "run"


FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "messages": lambda row: {
        "messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    },
    "conversations": lambda row: {
        "conversations": [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": row["completion"]}]
    },
    "prompt and completion": lambda row: {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
    },
    "instruction": lambda row: {"instruction": row["prompt"], "input": "", "output": row["completion"]},
}


class TestCautions:
    """What is likely wrong is said before training."""

    def cautions(self, rows: list[Dialogue], made: Any) -> list[str]:
        tokens = continuing.encode([Question("", dialogue=one) for one in rows], made, Cutting(32), Learning())
        ids, reads = Ragged.of([one.ids for one in tokens]), Ragged.of([one.reads or () for one in tokens])
        return continuing.cautions(Encoding(ids, next_tokens(ids, reads), reads), made)

    def test_a_template_that_ends_no_turn(self) -> None:
        rows = [Dialogue((), turns(TALK))] * 4
        assert self.cautions(rows, tokenizer(TEMPLATE)) == []
        (line,) = self.cautions(rows, tokenizer(TEMPLATE.replace("<|endoftext|>", "")))
        assert line.startswith("4 of the first 4 train rows end with no token that ends a text or a turn")

    def test_a_text_that_begins_twice(self) -> None:
        made = tokenizer()
        made.bos_token = "[CLS]"
        row = [made.bos_token_id, made.bos_token_id, *made("the film")["input_ids"], made.eos_token_id]
        ids, reads = Ragged.of([row]), Ragged.of([[2, 3]])
        (line,) = continuing.cautions(Encoding(ids, next_tokens(ids, reads), reads), made)
        assert line.startswith("1 of the first 1 train rows begin with '[CLS]' twice")

    def test_a_row_as_the_model_sees_it(self) -> None:
        made = tokenizer()
        tokens = continuing.encode(
            [Question("", dialogue=Dialogue("the film", " great"))], made, Cutting(9), Learning()
        )
        ids, reads = Ragged.of([tokens[0].ids]), Ragged.of([tokens[0].reads or ()])
        shown = continuing.as_seen(Encoding(ids, next_tokens(ids, reads), reads), made)
        assert shown.replace("great <", "great<") == "the film⟦great<|endoftext|>⟧"


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_is_the_same_conversation(self, form: str, tmp_path: Path) -> None:
        rows = SAMPLE.rows(6)
        path = tiny.save_jsonl(tmp_path / "rows.jsonl", [FORMS[form](row) for row in rows])
        section = data.found(recipes.load_data_section({"train_file": str(path)}, "causal-lm"))
        (split,) = data.load(section).values()
        task = CausalLM.of_split(split, section)
        assert task.answer.facts() == {"chat": True}
        found = [one.dialogue for one in task.read(split, section).questions()]
        spoken = [[(turn.role, turn.content) for turn in one.turns] for one in found if one is not None]
        assert spoken == [[("user", row["prompt"]), ("assistant", row["completion"])] for row in rows]
        assert [list(one.replies()) for one in found if one is not None] == [[1]] * 6

    def test_alpacas_input_stands_behind_its_instruction(self, tmp_path: Path) -> None:
        rows = [{"instruction": "Sum up.", "input": "a plot", "output": "dull"}] * 2
        path = tiny.save_jsonl(tmp_path / "rows.jsonl", rows)
        section = data.found(recipes.load_data_section({"train_file": str(path)}, "causal-lm"))
        (split,) = data.load(section).values()
        (first, _) = CausalLM.of_split(split, section).read(split, section).questions()
        assert first.text == "Sum up.\n\na plot"

    def test_a_text_may_begin_with_a_bracket(self, tmp_path: Path) -> None:
        rows = [{"prompt": "[1, 2]", "completion": '["a"]'}, {"prompt": "[]", "completion": "[x"}]
        path = tiny.save_jsonl(tmp_path / "rows.jsonl", rows)
        section = data.found(recipes.load_data_section({"train_file": str(path)}, "causal-lm"))
        (split,) = data.load(section).values()
        found = CausalLM.of_split(split, section).read(split, section).questions()
        assert [one.dialogue for one in found] == [Dialogue(row["prompt"], row["completion"]) for row in rows]

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ({"messages": [{"role": "user"}]}, "row 2: a message has 'role' and 'content'"),
            ({"messages": [{"role": "user", "content": 3}]}, "row 2: a message's 'role' and 'content' are texts"),
        ],
    )
    def test_what_is_no_message_is_named_by_its_row(self, row: dict[str, Any], problem: str, tmp_path: Path) -> None:
        path = tiny.save_jsonl(tmp_path / "rows.jsonl", [FORMS["messages"](SAMPLE.rows(1)[0]), row])
        section = data.found(recipes.load_data_section({"train_file": str(path)}, "causal-lm"))
        (split,) = data.load(section).values()
        with pytest.raises(DataError, match=problem):
            CausalLM.of_split(split, section)


class TestRuns:
    def test_messages_from_training_to_a_reply(self, models: Models, tmp_path: Path) -> None:
        """The recipe's template travels with the adapter, and stock libraries continue as we do."""
        rows = [FORMS["messages"](row) for row in SAMPLE.rows(96)]
        run = run_of(rows, models, tmp_path, data={"chat_template": TEMPLATE, "max_length": 32})
        metrics = RunDirectory(run).read_metrics()
        assert metrics["tuned"]["eval_nll"] < metrics["base"]["eval_nll"]
        assert metrics["tuned"]["eval_perplexity"] == pytest.approx(np.exp(metrics["tuned"]["eval_nll"]))
        assert metrics["comparison"]["verdict"] == "better"
        predictor = load_predictor(run, generation={"max_new_tokens": 6})
        talk = TALK[:3]
        asked = ["the film", talk, {"messages": talk}, {"prompt": "a plot"}, {"prompt": TALK}]
        found = predictor.predict(asked)
        assert found[1] == found[2] == found[4]
        model, made = stock.by_card(run / "adapter")
        for given, reply in zip([TALK[:1], talk], found, strict=False):
            ids = made.apply_chat_template(given, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            ids.pop("token_type_ids", None)
            with torch.no_grad():
                whole = model.generate(**ids, max_new_tokens=6, do_sample=False)
            written = whole[0, ids["input_ids"].shape[1] :].tolist()
            ends = continuing.ends(model.get_base_model(), made)
            stop = next((place for place, one in enumerate(written) if one in ends), len(written))
            assert reply["text"] == made.decode(written[:stop], skip_special_tokens=True)

    @pytest.mark.parametrize("model", ["llama-lm", "gpt2-lm"])
    def test_a_prompt_gets_the_same_alone_and_among_others(self, model: str, models: Models, tmp_path: Path) -> None:
        run = run_of(SAMPLE.rows(96), models, tmp_path, model)
        predictor = load_predictor(run, generation={"max_new_tokens": 12})
        prompts = [row["prompt"] for row in SAMPLE.rows(40)]
        together = predictor.predict(prompts)
        assert together == [predictor.predict(prompt)[0] for prompt in prompts]
        assert {one["finish_reason"] for one in together} <= {"stop", "length"}
        assert all(one["tokens"] <= 12 for one in together)
        whole = {"prompt": prompts[0], "completion": " the film"}
        assert [*predictor.predict([prompts[0], whole]), *predictor.predict([whole])][1:] == predictor.predict(
            [whole]
        ) * 2
        with pytest.raises(DataError, match="ask them apart"):
            predictor.answers([prompts[0], whole])
        most = load_predictor(run, generation={"max_new_tokens": 1000})  # of 64 positions
        long = " ".join(["film", "plot"] * 40)
        assert most.predict([long, "a plot"])[1] == most.predict(["a plot"])[0]

    def test_a_prompt_may_be_longer_than_rows_of_training(self, models: Models, tmp_path: Path) -> None:
        """Its model has 64 positions, of which a half at most is kept for what is written."""
        run = run_of(SAMPLE.rows(96), models, tmp_path, data={"max_length": 12})
        predictor = load_predictor(run, generation={"max_new_tokens": 40})
        long = " ".join(["film", "plot"] * 12)
        (row,) = predictor.backend.tokenise(predictor.task.questions([long]))
        assert (len(row.ids), row.lost) == (24, 0)
        (cut,) = predictor.backend.tokenise(predictor.task.questions([f"{long} {long}"]))
        assert (len(cut.ids), cut.lost) == (32, 16)
        (measured,) = predictor.backend.tokenise(predictor.task.questions([{"prompt": long, "completion": " film"}]))
        assert len(measured.ids) == 12
        assert predictor.predict([f"{long} {long}"])[0]["tokens"] <= 32

    def test_what_is_drawn_depends_on_the_seed(self, models: Models, tmp_path: Path) -> None:
        run = run_of(SAMPLE.rows(96), models, tmp_path)

        def written(seed: int, temperature: float = 5.0) -> Any:
            how = {"max_new_tokens": 10, "temperature": temperature, "seed": seed}
            return load_predictor(run, generation=how).predict(["the film"])

        assert written(1) == written(1)
        assert written(1) != written(2)
        assert written(1, 0.0) == written(2, 0.0)

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["ia3", "oft", "prompt-tuning", "vera"])
    def test_other_tuners_learn_too(self, method: str, models: Models, tmp_path: Path) -> None:
        """One that is merged, one that is not, one that puts tokens before every text, one that shares matrices."""
        run = run_of(SAMPLE.rows(96), models, tmp_path, method={"name": method})
        metrics = RunDirectory(run).read_metrics()
        assert metrics["tuned"]["eval_nll"] < metrics["base"]["eval_nll"]
        kept = RunDirectory(run).read_predictions("tuned", "validation")
        rows = [SAMPLE.rows(96)[number] for number in kept.ids]
        found = load_predictor(run, generation={"max_new_tokens": 3}).predict(rows)
        expected = list(kept.kind.reply(kept.answers, (), {}))
        assert [one["nll"] for one in found] == pytest.approx([one["nll"] for one in expected], abs=1e-4)

    def test_a_file_of_prompts(self, models: Models, tmp_path: Path) -> None:
        run = run_of(SAMPLE.rows(96), models, tmp_path)
        source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
        predictor = load_predictor(run, generation={"max_new_tokens": 4})
        assert predictor.predict_file(source, output) == 96
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["prompt"] for row in rows] == [row["prompt"] for row in SAMPLE.rows(96)]
        assert [row["prediction"] for row in rows[:5]] == [
            one["text"] for one in predictor.predict([row["prompt"] for row in rows[:5]])
        ]

    def test_rows_with_nothing_left_are_counted(self, models: Models, tmp_path: Path) -> None:
        rows = [*SAMPLE.rows(92), *({"prompt": "film " * 30 + str(one), "completion": " great"} for one in range(4))]
        run = run_of(rows, models, tmp_path, data={"max_length": 16, "validation_fraction": 0.5})
        metrics = RunDirectory(run).read_metrics()
        answers = RunDirectory(run).read_predictions("tuned", "validation").answers
        empty = int((answers["tokens"] == 0).sum())
        assert empty
        assert any(
            f"Of {empty} validation rows no token of the completion is left" in line
            for line in metrics["training_warnings"]
        )

    def test_a_model_without_a_head_is_refused(self, models: Models, tmp_path: Path) -> None:
        with pytest.raises(Exception, match="lacks the weights of 'lm_head'"):
            run_of(SAMPLE.rows(24), models, tmp_path, model="llama")

    def test_a_fresh_head_is_refused(self, models: Models, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"model\.head: a model that writes keeps its own head"):
            content = tiny.recipe(models("llama-lm"), tiny.save_jsonl(tmp_path / "rows.jsonl", SAMPLE.rows(24)))
            content |= {"task": "causal-lm", "model": {**content["model"], "head": "new"}}
            workflow.run(recipes.parse(content), tmp_path / "run", progress=False)

    def test_other_models_write_nothing(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "rows.jsonl", tiny.rows(48))
        workflow.run(recipes.parse(tiny.recipe(models("bert"), train)), tmp_path / "run", progress=False)
        with pytest.raises(ConfigError, match="--max-new-tokens"):
            load_predictor(tmp_path / "run", generation={"max_new_tokens": 4})


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the pretrained model is not at {STORIES}")
class TestStories:
    """A real pretrained Llama of 260,032 parameters."""

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Its stories, told of others than it knows."""
        return [
            {
                "prompt": f"Once upon a time, there was a little {animal} named {name}.",
                "completion": f" {name} the {animal} did not like to play. {name} liked to count to {number}.",
            }
            for number, (animal, name) in enumerate(
                ((animal, name) for animal in ("fox", "bear", "owl", "hen", "mole", "frog", "crab", "goat")
                 for name in ("Pip", "Zed", "Ivy", "Gus", "Ned", "Kit", "Ada", "Bo", "Lu", "Sky")), 1
            )
        ][:count]  # fmt: skip

    def test_it_tells_the_story_that_it_is_known_for(self) -> None:
        (found,) = load_predictor(STORIES, generation={"max_new_tokens": 30}).predict(["Once upon a time"])
        assert found["text"].split()[:8] == [",", "there", "was", "a", "little", "girl", "named", "Lily."][:8]

    def test_it_learns_another_end_and_is_shown_to(self, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "rows.jsonl", self.rows(80))
        training = {"learning_rate": 5e-3, "num_train_epochs": 6}
        content = tiny.recipe(STORIES, train, training=training, data={"max_length": 96}) | {"task": "causal-lm"}
        workflow.run(recipes.parse(content), tmp_path / "run", progress=False)
        metrics = RunDirectory(tmp_path / "run").read_metrics()
        assert metrics["tuned"]["eval_nll"] < metrics["base"]["eval_nll"] < metrics["baselines"]["unigram"]["eval_nll"]
        assert metrics["comparison"]["verdict"] == metrics["rungs"]["unigram"]["verdict"] == "better"
        prompt = "Once upon a time, there was a little fox named Gus."
        tuned, before = (load_predictor(one, generation={"max_new_tokens": 20}) for one in (tmp_path / "run", STORIES))
        assert "did not like to play" in tuned.predict([prompt])[0]["text"]
        assert "did not like to play" not in before.predict([prompt])[0]["text"]

    def test_it_keeps_the_contract_of_a_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed, it goes on to the same bytes; what is published is read by stock libraries, and measured again, as it
        was."""
        train = tiny.save_jsonl(tmp_path / "rows.jsonl", self.rows(60))
        training = {"learning_rate": 5e-3, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2}
        content = tiny.recipe(STORIES, train, training=training, data={"max_length": 96}) | {"task": "causal-lm"}
        content["training"] |= {"eval_strategy": "steps", "eval_steps": 2}
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        workflow.run(recipes.parse(content), whole, progress=False)
        killed_and_resumed(content, killed, 5, monkeypatch)
        one, other = ((run / "adapter" / "adapter_model.safetensors").read_bytes() for run in (whole, killed))
        assert one == other
        measured = RunDirectory(whole).read_metrics()["tuned"]["eval_nll"]
        assert workflow.evaluate(str(whole))["eval_nll"] == pytest.approx(measured, abs=1e-5)
        model, tokenizer = stock.by_card(whole / "adapter")
        (row,) = self.rows(1)
        ids = tokenizer(row["prompt"] + row["completion"], return_tensors="pt")["input_ids"]
        first = len(tokenizer(row["prompt"])["input_ids"])
        ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
        with torch.no_grad():
            logps = model(input_ids=ids).logits.log_softmax(-1)
        nll = -logps[0, first - 1 : -1].gather(1, ids[0, first:, None]).mean()
        asked = {"prompt": row["prompt"], "completion": row["completion"]}
        (found,) = load_predictor(whole).predict([asked])
        assert found["tokens"] == ids.shape[1] - first
        assert found["nll"] == pytest.approx(float(nll), abs=1e-4)
