"""Texts that are answered by a decoder: what it learns, that it is what transformers' Seq2SeqTrainer learns, and what it
writes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving
import stock
import tiny
import torch
from tasks_data import SAMPLES
from test_contracts import bytes_of, killed_and_resumed
from test_trainer_equivalence import SETTINGS, train_ours

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers.text import Text
from featherweight.answers.text import said as said_by
from featherweight.engine.running import scoring
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.padded import Padded
from featherweight.errors import ConfigError, DataError, ModelError
from featherweight.evidence.baselines.texts import lead
from featherweight.inference.predictor import load_predictor
from featherweight.records.cutting import Cutting
from featherweight.records.dialogues import Dialogue
from featherweight.records.questions import Question
from featherweight.records.rows import Encoding, Ragged
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks.reading import continuing, replying
from featherweight.tasks.seq2seq_lm import Seq2SeqLM

Models = Callable[[str], Path]

KINDS = ["t5", "bart", "marian"]
TARGETS = {"t5": ["q", "v", "wo"], "bart": ["q_proj", "fc2"], "marian": ["v_proj", "fc1"]}
(SAMPLE,) = (one for one in SAMPLES if one.task == "seq2seq-lm")
ROWS = 43  # no multiple of the batch


def adapted(kind: str) -> Any:
    """A tiny model that replies, with LoRA that changes its answers already; Marian's adds to its logits."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(11)
    model = tiny.replying(kind)
    if kind == "marian":
        model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(5))
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=8, target_modules=TARGETS[kind], init_lora_weights=False
    )
    return get_peft_model(model, config)


def scored(model: Any) -> Execution:
    execution = Execution(model.get_base_model(), 0, reads_tokens=True)
    execution.score_next_tokens(model.get_base_model())
    execution.adopt(model)
    return execution


def encoded(kind: str, folder: Path, cutting: Cutting | None = None) -> Encoding:
    path = tiny.save_jsonl(folder / "rows.jsonl", SAMPLE.rows(ROWS))
    section = data.found(recipes.load_data_section({"train_file": str(path)}, "seq2seq-lm"))
    (split,) = data.load(section).values()
    task = Seq2SeqLM.of_split(split, section)
    return task.encode(task.read(split, section), tiny.tokenizer(kind), cutting or Cutting(24, max_target_length=12))


def labels_of(encoding: Encoding, row: int) -> dict[str, torch.Tensor]:
    assert encoding.replies is not None
    sides = {"input_ids": encoding.tokens, "labels": encoding.replies}
    return {name: torch.from_numpy(side.row(row).astype(np.int64))[None] for name, side in sides.items()}


def stock_loss(model: Any, encoding: Encoding) -> torch.Tensor:
    """transformers' own, text by text, summed over the tokens of the replies."""
    given = [labels_of(encoding, row) for row in range(len(encoding))]
    return sum((model(**one).loss * one["labels"].shape[1] for one in given), torch.zeros(()))


def our_loss(execution: Execution, model: Any, encoding: Encoding) -> torch.Tensor:
    rows = np.random.default_rng(5).permutation(len(encoding))
    return Seq2SeqLM(Text(False)).loss(execution.outputs(model, encoding, rows), torch.empty(0))


class TestScoring:
    @pytest.mark.parametrize("kind", KINDS)
    def test_loss_and_gradients_are_stock(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few tokens' logits at a time, and texts of unlike length beside each other."""
        monkeypatch.setattr(scoring, "_MOST_BYTES", 3 * 4 * len(tiny.vocabulary()))
        ours, theirs = adapted(kind), adapted(kind)
        execution, encoding = scored(ours), encoded(kind, tmp_path)
        assert isinstance(execution.forward, Padded)
        assert execution.describe()["batch_dependence"] is None
        assert execution._scoring is not None
        assert execution._scoring.fused
        found, expected = our_loss(execution, ours, encoding), stock_loss(theirs, encoding)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        found.backward()
        expected.backward()
        stock.require_same_gradients(ours, theirs)
        with execution.answering(ours):
            assert float(our_loss(execution, ours, encoding)) == pytest.approx(float(expected.detach()), rel=1e-5)

    def test_every_parameter_may_train(self, tmp_path: Path) -> None:
        """T5's one matrix is the embeddings of both sides and the last layer."""
        torch.manual_seed(3)
        ours = tiny.replying("t5")
        theirs = copy.deepcopy(ours)
        execution, encoding = Execution(ours, 0, reads_tokens=True), encoded("t5", tmp_path)
        execution.score_next_tokens(ours)
        our_loss(execution, ours, encoding).backward()
        stock_loss(theirs, encoding).backward()
        stock.require_same_gradients(ours, theirs)

    def test_what_a_model_adds_to_its_logits_counts(self, tmp_path: Path) -> None:
        """Negative control: Marian's have a bias behind the last layer."""
        model, encoding = adapted("marian"), encoded("marian", tmp_path)
        execution = scored(model)
        with torch.no_grad():
            expected = float(our_loss(execution, model, encoding))
            model.get_base_model().final_logits_bias.zero_()
            assert abs(float(our_loss(execution, model, encoding)) / expected - 1) > 1e-3


class TestTrainer:
    """Step by step as ``Seq2SeqTrainer``, with the loss that makes accumulation the mean over a step's tokens."""

    def losses(self, model: Any, encoding: Encoding, folder: Path, **changes: Any) -> list[float]:
        import transformers

        settings = {**SETTINGS, "warmup_steps": SETTINGS["warmup_ratio"], **changes}
        settings.pop("warmup_ratio")
        arguments = transformers.Seq2SeqTrainingArguments(
            output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **settings
        )
        found: list[float] = []

        class Recording(transformers.Seq2SeqTrainer):
            def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
                loss = super().training_step(*given, **more)
                if len(found) == self.state.global_step:
                    found.append(0.0)
                found[-1] += float(loss)
                return loss

        def loss_of_step(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any) -> torch.Tensor:
            flat = outputs.logits.flatten(0, 1), labels.flatten()
            return torch.nn.functional.cross_entropy(*flat, reduction="sum") / num_items_in_batch

        made = tiny.tokenizer("t5")  # pads alike for all
        rows = [{key: one[0].tolist() for key, one in labels_of(encoding, row).items()} for row in range(ROWS)]
        collator = transformers.DataCollatorForSeq2Seq(made, model=model.get_base_model())
        Recording(model, arguments, train_dataset=rows, data_collator=collator, compute_loss_func=loss_of_step).train()
        return found

    @pytest.mark.parametrize("kind", KINDS)
    def test_same_losses_and_adapter(self, kind: str, tmp_path: Path) -> None:
        ours, theirs, encoding = adapted(kind), adapted(kind), encoded(kind, tmp_path)
        found = train_ours(ours, encoding, tmp_path / "ours", scored(ours), task=Seq2SeqLM(Text(False)))
        expected = self.losses(theirs, encoding, tmp_path / "theirs")
        assert len(found) == len(expected) > 5
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        trained = dict(theirs.named_parameters())
        for name, value in ours.named_parameters():
            torch.testing.assert_close(value, trained[name], atol=1e-5, rtol=1e-4, msg=name)

    def test_one_other_setting_is_seen(self, tmp_path: Path) -> None:
        """Negative control."""
        ours, theirs, encoding = adapted("t5"), adapted("t5"), encoded("t5", tmp_path)
        found = train_ours(ours, encoding, tmp_path / "ours", scored(ours), task=Seq2SeqLM(Text(False)))
        expected = self.losses(theirs, encoding, tmp_path / "theirs", learning_rate=2.2e-3)
        assert np.abs(np.asarray(found) / expected - 1).max() > 1e-4


def tokens(source: str, target: str, kind: str = "t5", prefix: str = "", most: int = 12) -> tuple[list[str], list[str]]:
    """What is read and what is learned."""
    made = tiny.tokenizer(kind)
    asked = Question("", dialogue=Dialogue(source, target))
    (row,) = replying.encode([asked], made, Cutting(12, max_target_length=most), prefix)
    assert row.reads is not None
    assert row.reply is not None
    reads = [row.reply[place] for place in row.reads]
    return made.convert_ids_to_tokens(list(row.ids)), made.convert_ids_to_tokens(reads)


END = "<|endoftext|>"


class TestWhatIsLearned:
    def test_the_reply_and_its_end_behind_the_text_with_its_prefix(self) -> None:
        assert tokens("the film", "great cast", prefix="a ") == (["a", "the", "film", END], ["great", "cast", END])
        assert tokens("film", "great", "bart")[1] == ["[CLS]", "great", "[SEP]"]

    def test_an_end_that_the_tokenizer_does_not_put_there(self) -> None:
        made = tiny.tokenizer("llama")
        made.pad_token = "[PAD]"
        asked = [Question("", dialogue=Dialogue("the film", text)) for text in ("great", f"great {END}")]
        found = replying.encode(asked, made, Cutting(12, max_target_length=9), "")
        assert [made.convert_ids_to_tokens(list(one.reply or ())) for one in found] == [["great", END]] * 2

    def test_a_text_that_is_cut_keeps_its_end_and_so_does_a_reply(self) -> None:
        read, learned = tokens("film " * 30, "great " * 30, most=3)
        assert (len(read), read[-1]) == (12, END)
        assert learned == ["great", "great", END]

    def test_a_reply_of_which_nothing_is_left_is_not_learned(self) -> None:
        assert tokens("film", " \t")[1] == []

    def test_an_empty_text_is_its_end_alone(self) -> None:
        assert tokens("", "great")[0] == [END]

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_decoder_reads_what_the_models_own_code_lets_it_read(self, kind: str, tmp_path: Path) -> None:
        """Both for models that say how replies are shifted, and for those that do it in ``forward`` alone."""
        from featherweight.engine.running import choosing

        model = tiny.replying(kind).eval()
        labels = torch.tensor([[7, 8, 9, 3], [7, 3, -100, -100]])
        own = model.prepare_decoder_input_ids_from_labels(labels)
        assert torch.equal(choosing.decoder_inputs(model)(labels), own)
        begin, pad = model.config.decoder_start_token_id, model.config.pad_token_id
        assert torch.equal(choosing._shifted(labels, begin, pad), own)


def examples(rows: list[dict[str, Any]], folder: Path, **keys: Any) -> Any:
    path = tiny.save_jsonl(folder / "rows.jsonl", rows)
    section = data.found(recipes.load_data_section({"train_file": str(path), **keys}, "seq2seq-lm"))
    (split,) = data.load(section).values()
    task = Seq2SeqLM.of_split(split, section)
    return task.read(split, section)


def said(found: Any) -> list[Dialogue]:
    return [one.dialogue for one in found.questions()]


class TestColumns:
    @pytest.mark.parametrize(
        ("text", "label"),
        [("document", "summary"), ("article", "highlights"), ("text", "summary"), ("source", "target")],
    )
    def test_usual_names_are_found(self, text: str, label: str, tmp_path: Path) -> None:
        assert said(examples([{text: "a film", label: "great"}] * 2, tmp_path)) == [Dialogue("a film", "great")] * 2

    def test_a_column_of_translations(self, tmp_path: Path) -> None:
        rows = [{"translation": {"en": "a film", "fr": "un film"}}, {"translation": {"en": "", "fr": "vide"}}]
        found = examples(rows, tmp_path, source_lang="fr_XX", target_lang="en")
        assert said(found) == [Dialogue("un film", "a film")]
        assert found.dropped == 1
        with pytest.raises(DataError, match=r"row 1: data\.source_lang: 'translation' holds 'en', 'fr'; set it"):
            examples(rows, tmp_path)
        with pytest.raises(DataError, match=r"row 1: data\.target_lang: .* there is no 'de'"):
            examples(rows, tmp_path, source_lang="en", target_lang="de")

    def test_rows_without_a_text_or_a_reply_are_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = [{"source": "a", "target": "b"}, {"source": " ", "target": "b"}, {"source": "a", "target": ""}]
        found = examples([*rows, {"source": "a", "target": None}], tmp_path)
        assert (len(found), found.dropped) == (1, 3)

    def test_lists_and_messages_are_refused_by_row(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"row 1: the text column 'source' holds a list"):
            examples([{"source": ["a"], "target": "b"}] * 2, tmp_path)
        with pytest.raises(DataError, match="not messages"):
            messages = Dialogue((continuing.Turn("user", "a"),))
            replying.encode([Question("", dialogue=messages)], tiny.tokenizer("t5"), Cutting(9), "")
        with pytest.raises(DataError, match="not an object with 'text'"):
            Seq2SeqLM(Text(False)).questions([{"text": "a"}])

    def test_names_of_the_scripts(self) -> None:
        given = {"train_file": "a.jsonl", "max_source_length": 20, "max_target_length": 7}
        section = recipes.load_data_section(given, "seq2seq-lm")
        assert section.cutting(section.max_length or 0) == Cutting(20, max_target_length=7)
        with pytest.raises(ConfigError, match="also takes by this name, once"):
            recipes.load_data_section({**given, "max_length": 9}, "seq2seq-lm")
        with pytest.raises(ConfigError, match="go together"):
            recipes.load_data_section({"train_file": "a.jsonl", "source_lang": "en"}, "seq2seq-lm")


def content_of(models: Models, folder: Path, model: str = "t5-lm", **sections: dict[str, Any]) -> dict[str, Any]:
    train = tiny.save_jsonl(folder / "rows.jsonl", SAMPLE.rows(96))
    training = {"learning_rate": 3e-2, "num_train_epochs": 6, **sections.pop("training", {})}
    method = {"name": "lora", "r": 16, "lora_alpha": 16, **sections.pop("method", {})}
    return tiny.recipe(models(model), train, training=training, method=method, **sections) | {"task": "seq2seq-lm"}


def run_of(models: Models, folder: Path, model: str = "t5-lm", **sections: dict[str, Any]) -> Path:
    workflow.run(recipes.parse(content_of(models, folder, model, **sections)), folder / "run", progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def run(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5, tuned with a prefix."""
    more: dict[str, Any] = {"evaluation": {"generate": True, "max_new_tokens": 7}}
    more |= {"data": {"source_prefix": "the ", "max_target_length": 9}}
    return run_of(models, tmp_path_factory.mktemp("t5"), **more)


def stock_replies(run: Path, texts: list[str], **how: Any) -> list[str]:
    model, made = stock.by_card(run / "adapter")
    inputs = made(texts, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        written = model.generate(**inputs, do_sample=False, **how)
    return made.batch_decode(written, skip_special_tokens=True)  # type: ignore[no-any-return]


class TestRuns:
    def test_from_training_to_a_reply(self, run: Path) -> None:
        """Stock libraries write the same with the adapter, greedily and weighing several texts."""
        metrics = RunDirectory(run).read_metrics()
        assert metrics["tuned"]["eval_nll"] < metrics["base"]["eval_nll"]
        assert metrics["comparison"]["verdict"] == "better"
        assert list(metrics["baselines"]) == ["unigram"]
        draw = random.Random(0)  # it answers rows like its own in few ways, and these in more
        words = [*tiny.GOOD, *tiny.BAD, *tiny.PLAIN]
        texts = [row["source"] for row in SAMPLE.rows(40)]
        texts += [" ".join(draw.choices(words, k=1 + count % 6)) for count in range(40)]
        for beams in (1, 3):
            how = {"max_new_tokens": 7, "num_beams": beams}
            found = load_predictor(run, generation=how).predict(texts)
            expected = stock_replies(run, [f"the {text}" for text in texts], **how)
            assert [one["text"] for one in found] == expected
            assert {one["finish_reason"] for one in found} <= {"stop", "length"}
        assert len(set(expected)) > 2  # there was something to compare

    def test_what_is_written_is_measured_beside_rivals(self, run: Path) -> None:
        metrics = RunDirectory(run).read_metrics()
        found = metrics["written"]
        assert set(found["models"]) == {"base", "tuned", "random-reply", "nearest-prompt", "lead"}
        assert found["comparison"]["metric"] == "rougeL"
        assert {"rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf", "exact_match"} == set(found["paired"])
        tuned, base = (found["models"][name] for name in ("tuned", "base"))
        assert tuned["eval_rougeL"] > base["eval_rougeL"]
        assert 1 < tuned["eval_gen_len"] <= 7
        kept = RunDirectory(run).read_predictions("lead-written", "validation")
        rows = SAMPLE.rows(96)
        assert [said_by(kept.answers["text"], row) for row in range(len(kept.ids))] == [
            rows[number]["source"] for number in kept.ids
        ]
        better = found["examples"]["fixed"]
        assert better and all(one["base"] != one["tuned"] for one in better)
        assert metrics["heeding"]["comparison"]["verdict"] == "better"  # replies behind their own text
        assert "forgetting" not in metrics

    def test_a_text_gets_the_same_alone_and_among_others(self, run: Path) -> None:
        predictor = load_predictor(run, generation={"max_new_tokens": 7})
        texts = [*(row["source"] for row in SAMPLE.rows(12)), "", "film " * 12]
        together = predictor.predict(texts)
        assert together == [predictor.predict(text)[0] for text in texts]
        parts: list[str] = []
        asked = predictor.task.questions(texts[:1])
        predictor.backend.answers(predictor.backend.tokenise(asked), predictor.options, parts.append)
        assert "".join(parts) == together[0]["text"]
        assert len(parts) > 1
        parts.clear()
        several = load_predictor(run, generation={"max_new_tokens": 7, "num_beams": 2})
        several.backend.answers(several.backend.tokenise(asked), several.options, parts.append)
        assert parts == [several.predict(texts[:1])[0]["text"]]

    def test_a_file_of_texts(self, run: Path, tmp_path: Path) -> None:
        source = tiny.save_jsonl(tmp_path / "in.jsonl", SAMPLE.rows(20))
        predictor = load_predictor(run, generation={"max_new_tokens": 7})
        assert predictor.predict_file(source, tmp_path / "out.jsonl") == 20
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["prediction"] for row in rows] == [
            one["text"] for one in predictor.predict([row["source"] for row in rows])
        ]

    @pytest.mark.slow
    def test_the_server_replies(self, run: Path) -> None:
        texts = [row["source"] for row in SAMPLE.rows(6)]
        expected = [one["text"] for one in load_predictor(run).predict(texts)]
        with serving.running(run) as server:
            found = server.predict(texts, "run").json["predictions"]
            assert [one["text"] for one in found] == expected
            asked = {"model": "run", "prompt": texts}
            answer = server.ask("POST", "/v1/completions", asked)
            assert [one["text"] for one in answer.json["choices"]] == expected
            talk = {"model": "run", "messages": [{"role": "user", "content": "a film"}]}
            refused = server.ask("POST", "/v1/chat/completions", talk)
            assert (refused.status, "see /v1/completions" in str(refused.json)) == (422, True)

    def test_it_is_no_partner_in_a_conversation(self, run: Path) -> None:
        from featherweight.workflow.chatting import talks

        with pytest.raises(ConfigError, match=r"chat: .* replies to each text by itself"):
            talks(str(run))

    def test_what_travels_with_the_adapter(self, run: Path) -> None:
        facts = json.loads((run / "adapter" / "featherweight.json").read_text())
        wanted = {"task": "seq2seq-lm", "source_prefix": "the ", "max_length": 16, "max_target_length": 9}
        assert {key: facts[key] for key in wanted} == wanted
        assert "the A text." in (run / "adapter" / "README.md").read_text()

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["bart-lm", "marian-lm"])
    def test_others_are_tuned_whole_and_come_back(self, model: str, models: Models, tmp_path: Path) -> None:
        """Marian's positions are computed, and no file has them; what is published is read back before it is."""
        content = content_of(models, tmp_path, model, training={"learning_rate": 2e-3, "num_train_epochs": 2})
        workflow.run(recipes.parse(content | {"method": {"name": "full"}}), tmp_path / "run", progress=False)
        metrics = RunDirectory(tmp_path / "run").read_metrics()
        assert metrics["tuned"]["eval_nll"] < metrics["base"]["eval_nll"]

    @pytest.mark.slow
    def test_a_killed_bart_resumes_to_the_same_bytes(
        self, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 4}
        content = content_of(models, tmp_path, "bart-lm", training=training)
        workflow.run(recipes.parse(content), tmp_path / "whole", progress=False)
        killed_and_resumed(content, tmp_path / "out", 6, monkeypatch)
        assert bytes_of(tmp_path / "whole" / "adapter") == bytes_of(tmp_path / "out" / "adapter")


class TestLead:
    def test_as_many_sentences_as_replies_have(self) -> None:
        texts = ["One. Two! Three? 4.5 is four", "no end", "一。 二。三"]
        assert lead(["A.", "A. B.", "A. B."], texts) == ["One. Two!", "no end", "一。 二。三"]
        assert lead(["A", "B. C."], texts[:2]) == ["One. Two!", "no end"]
        assert lead(["A"], texts[:1]) == ["One."]


def saved(folder: Path, model: Any, made: Any) -> Path:
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


class TestRefusals:
    """Each before training, with what to do."""

    def refused(self, models: Models, tmp_path: Path, message: str, model: Any = "t5-lm", **sections: Any) -> None:
        content = content_of(models, tmp_path, "t5-lm", **sections)
        content["model"] = {"name": str(models(model) if isinstance(model, str) else model)}
        with pytest.raises((ConfigError, DataError, ModelError), match=message):
            workflow.run(recipes.parse(content), tmp_path / "run", progress=False)
        assert not (tmp_path / "run" / "history.jsonl").exists()

    def test_t5_is_never_trained_in_fp16(self, models: Models, tmp_path: Path) -> None:
        message = r"training\.fp16: t5's feed-forward layers go beyond what fp16 can hold"
        self.refused(models, tmp_path, message, training={"fp16": True})

    def test_a_model_of_another_make(self, models: Models, tmp_path: Path) -> None:
        self.refused(models, tmp_path, "bert has no decoder that writes an answer", "bert")
        content = content_of(models, tmp_path, data={"text": "source", "label": "target"}) | {"task": "causal-lm"}
        with pytest.raises(ModelError, match="t5 does not continue texts"):
            workflow.run(recipes.parse(content), tmp_path / "causal", progress=False)

    def test_a_decoder_that_nobody_says_how_to_begin(self, models: Models, tmp_path: Path) -> None:
        model = tiny.replying("t5", decoder_start_token_id=None)
        folder = saved(tmp_path / "model", model, tiny.tokenizer("t5"))
        self.refused(models, tmp_path, "add decoder_start_token_id to its config.json", folder)

    def test_lengths_that_leave_nothing_or_do_not_fit(self, models: Models, tmp_path: Path) -> None:
        self.refused(models, tmp_path, r"data\.max_target_length: 1 leaves no token", data={"max_target_length": 1})
        message = r"data\.max_target_length: 99 is more than the 64 tokens"
        self.refused(models, tmp_path, message, "bart-lm", data={"max_target_length": 99})

    def test_what_peft_can_not_begin_at(self, models: Models, tmp_path: Path) -> None:
        method = {"init_lora_weights": "eva"}
        self.refused(models, tmp_path, r"method\.init_lora_weights: PEFT's eva takes every layer", method=method)

    def test_text_that_goes_on_is_not_its_business(self, models: Models, tmp_path: Path) -> None:
        file = tmp_path / "texts.txt"
        file.write_text("a film\n", encoding="utf-8")
        self.refused(models, tmp_path, r"evaluation\.forgetting_file", evaluation={"forgetting_file": str(file)})

    def test_a_model_that_has_to_write_more_than_it_learns_is_named(self) -> None:
        from transformers import GenerationConfig

        reads = Ragged.of([range(3), range(6)])
        encoding = Encoding(reads, reads, reads, replies=reads)
        assert replying.cautions(encoding, GenerationConfig(min_length=4)) == []
        (line,) = replying.cautions(encoding, GenerationConfig(min_length=6))
        assert line.startswith("The model's generation_config.json lets it write no fewer than 5 tokens, and 1 of 2")


def nllb(folder: Path) -> Path:
    """A tiny model of many languages, whose replies begin with theirs."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [f"▁{word}" for word in [*tiny.GOOD, *tiny.BAD, *tiny.PLAIN]]
    made = NllbTokenizer(vocab={one: place for place, one in enumerate([*special, *words])}, merges=[])
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
    drops = {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}  # else a step may be left without any layer
    torch.manual_seed(0)
    config = M2M100Config(vocab_size=len(made), init_std=0.15, decoder_start_token_id=2, **sizes, **heads, **drops)
    return saved(folder, M2M100ForConditionalGeneration(config), made)


class TestLanguages:
    def test_what_is_written_begins_with_its_language(self, models: Models, tmp_path: Path) -> None:
        """In the tuned model, in one that is loaded again, and in stock libraries by the card."""
        folder = nllb(tmp_path / "model")
        content = content_of(models, tmp_path, data={"source_lang": "eng_Latn", "target_lang": "fra_Latn"})
        content["model"] = {"name": str(folder)}
        workflow.run(recipes.parse(content), tmp_path / "run", progress=False)
        predictor = load_predictor(tmp_path / "run", generation={"max_new_tokens": 7})
        made = predictor.backend.loaded.tokenizer  # type: ignore[attr-defined]
        (row,) = predictor.backend.tokenise(predictor.task.questions([{"prompt": "film", "completion": "plot"}]))
        shown = made.convert_ids_to_tokens(list(row.ids)), made.convert_ids_to_tokens(list(row.reply or ()))
        assert (shown[0][0], shown[1][0], shown[1][-1]) == ("eng_Latn", "fra_Latn", "</s>")
        texts = [row["source"] for row in SAMPLE.rows(12)]
        assert [one["text"] for one in predictor.predict(texts)] == stock_replies(
            tmp_path / "run", texts, max_new_tokens=7
        )
        forced = predictor.backend.loaded.model.generation_config.forced_bos_token_id  # type: ignore[attr-defined]
        assert made.convert_ids_to_tokens(forced) == "fra_Latn"

    def test_languages_are_asked_for_and_known(self, models: Models, tmp_path: Path) -> None:
        folder, refused = nllb(tmp_path / "model"), TestRefusals().refused
        refused(models, tmp_path, r"data\.source_lang, data\.target_lang: .* knows several languages", folder)
        languages = {"source_lang": "eng_Latn", "target_lang": "elvish"}
        refused(models, tmp_path, r"data\.target_lang: .* has no language 'elvish'", folder, data=languages)
