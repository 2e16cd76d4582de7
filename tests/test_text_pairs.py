"""Pairs of texts: two columns in ``data.text``, from the file to the served answer."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving
import stock
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_run import RESUMED, files_of, stopped_and_resumed

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.running.execution import Execution
from featherweight.errors import ConfigError, DataError, ModelError
from featherweight.evidence.data import duplicates
from featherweight.inference.predictor import load_predictor
from featherweight.records.cutting import Cutting
from featherweight.records.questions import JOINT, Question
from featherweight.records.rows import Encoding
from featherweight.report.tables import predict_command
from featherweight.runs.directory import RunDirectory
from featherweight.sources import data
from featherweight.tasks.reading import tokens

Models = Callable[[str], Path]
Row = dict[str, Any]
COLUMNS = ["premise", "hypothesis"]
ASKED = [("great film", "awful story"), ("awful film", "great story"), ("the plot", "superb cast with music")]


def rows(count: int, seed: int = 0) -> list[Row]:
    """Pairs whose second text alone tells the label; the same few first texts come again and again."""
    draw = random.Random(seed)
    firsts = [" ".join(draw.choices(tiny.PLAIN + tiny.GOOD + tiny.BAD, k=4)) for _ in range(5)]
    return [
        {"premise": draw.choice(firsts), "hypothesis": one["text"], "label": one["label"]}
        for one in tiny.rows(count, seed=seed)
    ]


def tokenizer_of(kind: str) -> Any:
    """As the model's own class would be: BERT's says that its model is told of the texts."""
    made = tiny.tokenizer(kind)
    made.pad_token = made.pad_token or made.eos_token
    if kind == "bert":
        made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Tiny models whose tokenizers say whether the model is told of the texts."""

    def made(kind: str) -> Path:
        folder = tiny.save_model(tmp_path_factory.mktemp(kind), kind)
        names = ["input_ids", *(["token_type_ids"] if kind == "bert" else []), "attention_mask"]
        settings_ = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings_, "model_input_names": names}))
        return folder

    return cache(made)


def recipe_of(models: Models, train: Path, kind: str = "bert", **sections: Any) -> Row:
    return tiny.recipe(models(kind), train, **{"training": {"num_train_epochs": 2}, **sections})


def figures(content: Row, folder: Path) -> Row:
    workflow.run(recipes.parse(content), folder)
    return dict(RunDirectory(folder).read_metrics())


def asked(pair: tuple[str, str]) -> Row:
    return {"text": pair[0], "text_pair": pair[1]}


@pytest.fixture(scope="module")
def finished(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    train = tiny.save_jsonl(folder / "train.jsonl", rows(160))
    workflow.run(recipes.parse(recipe_of(models, train)), folder / "run")
    return folder / "run"


class TestTokens:
    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    @settings(max_examples=40, deadline=None)
    @given(lengths=st.tuples(st.integers(0, 14), st.integers(0, 14)), most=st.integers(4, 20))
    def test_they_are_those_of_transformers(self, side: str, kind: str, lengths: tuple[int, int], most: int) -> None:
        tokenizer = tokenizer_of(kind)
        tokenizer.truncation_side = side
        words = list(tiny.vocabulary())[6:]
        one, other = (" ".join(words[:length]) for length in lengths)
        expected = tokenizer(one, other, truncation="longest_first", max_length=most, return_token_type_ids=True)
        (found,) = tokens.encode([Question(one, pair=other)], tokenizer, Cutting(most))
        assert list(found.ids) == (expected["input_ids"] or [tokenizer.pad_token_id])
        assert list(found.kinds or ()) == ((expected["token_type_ids"] or [0]) if kind == "bert" else [])
        assert found.lost == len(tokenizer(one, other)["input_ids"]) - len(expected["input_ids"])

    def test_a_model_that_is_not_told_gets_no_kinds(self) -> None:
        tokenizer = tiny.tokenizer("bert")
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        (found,) = tokens.encode([Question("great", pair="film")], tokenizer, Cutting(16))
        assert found.kinds is None

    def test_a_tokenizer_in_python_is_refused(self) -> None:
        class Slow:
            is_fast = False

        with pytest.raises(ModelError, match="does not say which token is of which text of a pair"):
            tokens.encode([Question("a", pair="b")], Slow(), Cutting(16))


class TestReading:
    @pytest.mark.parametrize("names", [("premise", "hypothesis"), ("sentence1", "sentence2"), ("text", "text_pair")])
    def test_known_names_are_found(self, names: tuple[str, str], tmp_path: Path) -> None:
        content = [{**dict(zip(names, (one["premise"], one["hypothesis"]), strict=True)), "label": one["label"]}
                   for one in rows(60)]  # fmt: skip
        section = recipes.load_data_section({"train_file": str(tiny.save_jsonl(tmp_path / "t.jsonl", content))})
        assert data.found(section).texts == names

    def test_a_text_and_a_label_stay_what_they_were(self, tmp_path: Path) -> None:
        content = [{"text": "a", "label": "x", "premise": "b", "hypothesis": "c"}]
        section = recipes.load_data_section({"train_file": str(tiny.save_jsonl(tmp_path / "t.jsonl", content))})
        assert data.found(section).texts == ("text",)

    def test_a_label_that_is_named_leaves_the_texts_to_be_found(self, tmp_path: Path) -> None:
        content = [{"judgment": "x", "sentence_A": "b", "sentence_B": "c"}]
        path = tiny.save_jsonl(tmp_path / "t.jsonl", content)
        section = recipes.load_data_section({"train_file": str(path), "label": "judgment"})
        assert data.found(section).texts == ("sentence_A", "sentence_B")
        assert data.found(section).label == "judgment"

    @pytest.mark.parametrize("text", [[], ["a"], ["a", "b", "c"], ["a", ""], ["a", 3], {"a": 1}])
    def test_other_than_one_or_two_columns_are_refused(self, text: Any) -> None:
        with pytest.raises(ConfigError, match=r"data\.text: .*a list of two where each row is a pair"):
            recipes.load_data_section({"name": "d", "text": text})

    def test_one_column_twice_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="'text' names one column twice"):
            recipes.load_data_section({"name": "d", "text": ["a", "a"]})

    def test_a_missing_column_is_named(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(20))
        with pytest.raises(DataError, match=r"no column 'hypotesis' for data.text \(did you mean 'hypothesis'\?\)"):
            workflow.run(
                recipes.parse(recipe_of(models, train, data={"text": ["premise", "hypotesis"]})), tmp_path / "run"
            )

    def test_rows_that_lack_either_text_are_left_out_and_counted(self, models: Models, tmp_path: Path) -> None:
        odd = [*rows(60), {"premise": "", "hypothesis": "great", "label": "pos"}]
        odd += [{"premise": "great", "hypothesis": None, "label": "pos"}]
        train = tiny.save_jsonl(tmp_path / "t.jsonl", odd)
        found = figures(recipe_of(models, train, training={"max_steps": 2}), tmp_path / "run")
        assert found["dropped_empty_rows"]["train"] == 2


class TestIdentity:
    def test_the_same_first_text_is_no_twin(self, finished: Path) -> None:
        checks = json.loads((finished / "metrics.json").read_text())["data_checks"]
        firsts = {row["premise"] for row in rows(160)}
        assert len(firsts) == 5, "so as single texts nearly all are repeats"
        assert checks["splits"]["train"]["repeated_texts"] < 40

    def test_the_mark_between_two_texts_is_no_word_of_theirs(self) -> None:
        assert duplicates.fingerprints([f"a great film{JOINT}the plot", "a great film"]).words.tolist() == [5, 3]

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            (("a b", "c"), ("a", "b c"), False),
            (("a", "b"), ("b", "a"), False),
            (("A,  film", "c"), ("a film", "C!"), True),
        ],
    )
    def test_where_one_text_ends_counts(self, one: Any, other: Any, same: bool) -> None:
        forms = [duplicates.normal_form(JOINT.join(pair)) for pair in (one, other)]
        assert (forms[0] == forms[1]) == same

    def test_a_held_out_pair_that_stands_in_train_is_a_leak(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(80))
        files = {"train_file": str(train), "validation_file": str(tiny.save_jsonl(tmp_path / "v.jsonl", rows(80)[:20]))}
        with pytest.raises(DataError, match="20 of 20 validation rows stand in train"):
            workflow.run(recipes.parse(recipe_of(models, train, data=files)), tmp_path / "run")
        swapped = [{**row, "premise": row["hypothesis"], "hypothesis": row["premise"]} for row in rows(80)[:20]]
        tiny.save_jsonl(tmp_path / "v.jsonl", swapped)
        workflow.run(recipes.parse(recipe_of(models, train, data=files, training={"max_steps": 2})), tmp_path / "run")

    def test_two_pairings_of_one_file_share_no_tokens(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(60))
        losses = []
        for place, text in enumerate((COLUMNS, COLUMNS[::-1], "premise")):
            content = recipe_of(models, train, data={"text": text}, training={"max_steps": 2})
            losses.append(figures(content, tmp_path / str(place))["base"]["eval_loss"])
        assert len(set(losses)) == 3


class TestEngine:
    @pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
    def test_packed_padded_and_stock_are_one(self, kind: str) -> None:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(
            tiny.config(kind, num_labels=2, pad_token_id=0, initializer_range=0.3)
        ).eval()
        tokenizer = tokenizer_of(kind)
        model.config.pad_token_id = tokenizer.pad_token_id
        pairs = [(row["premise"], row["hypothesis"]) for row in rows(9)]
        encoding = Encoding.asked(
            tokens.encode([Question(one, pair=other) for one, other in pairs], tokenizer, Cutting(40))
        )
        everything = np.arange(len(pairs))
        execution = Execution(model, tokenizer.pad_token_id)
        assert execution.describe()["batches"] == "packed"
        with torch.no_grad():
            found = execution.outputs(model, encoding, everything).column(False)
            expected = []
            for one, other in pairs:
                given_ = tokenizer(one, other, return_tensors="pt", return_token_type_ids=kind == "bert")
                expected.append(model(**given_).logits[0])
            assert torch.allclose(torch.from_numpy(found), torch.stack(expected), atol=1e-5)
            if kind == "bert":
                untold = execution.outputs(model, Encoding.unlabelled(encoding.tokens), everything).column(False)
                assert np.abs(untold - found).max() > 1e-3, "negative control: the kinds matter"

    @pytest.mark.slow
    @pytest.mark.parametrize("step", [1, 7])
    def test_a_stopped_run_resumes_to_the_same_bytes(
        self, step: int, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(60))
        content = recipe_of(models, train, training=RESUMED, method={"lora_dropout": 0.2})
        workflow.run(recipes.parse(content), tmp_path / "whole")
        stopped_and_resumed(content, tmp_path / "stopped", step, monkeypatch)
        whole, stopped = (files_of(tmp_path / name / "adapter") for name in ("whole", "stopped"))
        assert whole["adapter_model.safetensors"] == stopped["adapter_model.safetensors"]


class TestAnswers:
    def test_the_second_text_is_learnt_from(self, models: Models, tmp_path: Path) -> None:
        train = tiny.save_jsonl(tmp_path / "t.jsonl", rows(480))  # with half of them, rounding tells how well it learns
        sections = {"training": {"num_train_epochs": 8, "learning_rate": 3e-3}, "method": {"name": "full"}}
        found = figures(recipe_of(models, train, **sections), tmp_path / "pair")
        alone = figures(recipe_of(models, train, **sections, data={"text": "premise"}), tmp_path / "alone")
        assert found["tuned"]["eval_accuracy"] > 0.9
        assert alone["tuned"]["eval_accuracy"] < 0.75, "negative control: the first text does not tell"

    def test_the_cards_lines_give_our_answers(self, finished: Path) -> None:
        model, tokenizer = stock.by_card(finished / "adapter")
        replies = load_predictor(finished).predict([asked(pair) for pair in ASKED])
        for (one, other), reply in zip(ASKED, replies, strict=True):
            with torch.no_grad():
                logits = model(**tokenizer(one, other, truncation=True, max_length=64, return_tensors="pt")).logits
            expected = logits.softmax(-1)[0].tolist()
            assert list(reply["probabilities"].values()) == pytest.approx(expected, abs=1e-5)

    def test_one_text_alone_and_other_shapes_are_refused(self, finished: Path) -> None:
        predictor = load_predictor(finished)
        with pytest.raises(
            DataError, match=r"a pair was expected, .* for the model was tuned on premise and hypothesis"
        ):
            predictor.predict(["great film"])
        with pytest.raises(DataError, match="a text was expected"):
            predictor.predict([{"text": "great", "text_pair": 3}])

    def test_a_model_of_single_texts_refuses_pairs(self, models: Models, train_csv: Path, tmp_path: Path) -> None:
        content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
        workflow.run(recipes.parse(content), tmp_path / "run")
        with pytest.raises(DataError, match="one text was expected and not a pair"):
            load_predictor(tmp_path / "run").predict([asked(ASKED[0])])
        source = tiny.save_csv(tmp_path / "in.csv", rows(3))
        with pytest.raises(DataError, match="one text was expected and not a pair"):
            load_predictor(tmp_path / "run").predict_file(source, tmp_path / "out.csv", column=COLUMNS)

    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
    def test_files_are_answered_by_the_same_columns(self, ending: str, finished: Path, tmp_path: Path) -> None:
        content = [{"premise": one, "hypothesis": other, "more": "kept"} for one, other in ASKED]
        source = tmp_path / f"in.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(content), source)
        else:
            (tiny.save_csv if ending == "csv" else tiny.save_jsonl)(source, content)
        predictor = load_predictor(finished)
        assert predictor.predict_file(source, tmp_path / "out.jsonl") == len(ASKED)
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        expected = [one["label"] for one in predictor.predict([asked(pair) for pair in ASKED])]
        assert [(one["prediction"], one["more"]) for one in found] == [(label, "kept") for label in expected]
        with pytest.raises(DataError, match="no column 'other'"):
            predictor.predict_file(source, tmp_path / "out.jsonl", column=["premise", "other"])
        with pytest.raises(DataError, match="a pair was expected"):
            predictor.predict_file(source, tmp_path / "other.jsonl", column="premise")
        assert not (tmp_path / "other.jsonl").exists()

    def test_the_command_takes_pairs(self, cli: Any, finished: Path) -> None:
        (one, other), *_ = ASKED
        ended = cli("predict", finished, "--text", one, "--text-pair", other)
        assert ended.returncode == 0, ended.stderr
        assert f"{one}{JOINT}{other}" in ended.stdout
        refused = cli("predict", finished, "--text", one)
        assert refused.returncode == 3
        assert "a pair was expected" in refused.stderr
        assert cli("predict", finished, "--text", one, "--text", one, "--text-pair", other).returncode == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["merged", "onnx", "onnx-int8"])
    def test_exports_answer_as_their_run(self, form: str, finished: Path, tmp_path: Path) -> None:
        workflow.export(finished, form, tmp_path / form, margin=0.5, min_agreement=0.5)
        exported = load_predictor(tmp_path / form)
        found, expected = (one.answers([asked(pair) for pair in ASKED]) for one in (exported, load_predictor(finished)))
        for name, values in expected.columns.items():
            assert np.abs(found.columns[name] - values).max() < (0.2 if form == "onnx-int8" else 1e-4)
        with pytest.raises(DataError, match="a pair was expected"):
            exported.predict(["great film"])
        if form == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(tmp_path / form / "model.onnx"))
            assert "token_type_ids" in [one.name for one in session.get_inputs()]

    @pytest.mark.slow
    def test_the_server_answers_pairs_beside_single_texts(
        self, finished: Path, models: Models, train_csv: Path, tmp_path: Path
    ) -> None:
        content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 4})
        workflow.run(recipes.parse(content), tmp_path / "single")
        expected = load_predictor(finished).predict([asked(pair) for pair in ASKED])
        with serving.running(finished, tmp_path / "single") as server:
            named = {one["name"]: one for one in server.ask("GET", "/v1/models").json["models"]}
            assert named["run"]["texts"] == COLUMNS
            assert named["run@base"]["texts"] == COLUMNS
            assert named["single"]["texts"] == ["text"]
            found = server.predict([asked(pair) for pair in ASKED], "run").json["predictions"]
            for one, other in zip(found, expected, strict=True):
                assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
            refused = server.predict(["great film"], "run")
            assert refused.status == 422
            assert "body.texts.0: a pair was expected" in refused.json["detail"]
            assert server.predict([asked(ASKED[0])], "single").status == 422
            assert server.predict(["great film"], "single").status == 200


class TestReport:
    def test_examples_show_both_texts(self, finished: Path) -> None:
        run = RunDirectory(finished)
        assert "⏎" in run.report.read_text(encoding="utf-8")
        command = predict_command(finished, json.loads(run.metrics.read_text()))
        parts = shlex.split(command)
        assert parts[:2] == ["featherweight", "predict"]
        assert "--text-pair" in parts
