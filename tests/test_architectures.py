"""Architectures and tokenizers of every make: the whole tool works on them, or says in one line why not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT

from featherweight.engine.running.execution import Execution
from featherweight.engine.running.padded import Padded
from featherweight.errors import ConfigError, ModelError
from featherweight.export import Subject
from featherweight.export.onnx import write_graph
from featherweight.methods.peft.targets import linear_targets
from featherweight.recipe import ModelSection, load_data_section
from featherweight.records.cutting import Cutting
from featherweight.records.questions import Question
from featherweight.records.rows import Encoding, Ragged
from featherweight.sources import data
from featherweight.sources import models as sources
from featherweight.sources.trial_texts import Frame
from featherweight.tasks import heads
from featherweight.tasks.reading import lengths, tokens
from featherweight.tasks.sequence_classification import SequenceClassification

sys.path.insert(0, str(ROOT / "tools"))
import architectures
import tiny_models

TASK = SequenceClassification(["neg", "pos"])
Load = Callable[..., tuple[Any, Any, list[str]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A tiny model of a type with a head for two labels, its tokenizer and the head's modules."""

    def get(kind: str, **changes: Any) -> tuple[Any, Any, list[str]]:
        folder = tiny_models.save(kind, tmp_path / kind)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return heads.load(TASK.head(), sources.find(str(folder)), ModelSection(name=str(folder)))

    return get


@pytest.fixture
def journey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    return architectures.journey


# Kinds of tokenizers and models, each with one that has nothing else unusual.
END_OF_TEXT = [
    "t5",
    pytest.param("bart", marks=pytest.mark.slow),
    pytest.param("bigbird_pegasus", marks=pytest.mark.slow),
]
ALL_THE_WAY = [
    "roberta",  # positions behind the pad token's
    pytest.param("gemma3", marks=pytest.mark.slow),  # one configuration within another
]
IN_PYTHON = ["esm", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("byt5", "canine"))]


@pytest.mark.parametrize("kind", END_OF_TEXT)
def test_row_82_an_encoder_decoder_goes_all_the_way(kind: str, journey: Callable[[str], dict[str, Any]]) -> None:
    found = journey(kind)
    assert {step: found.get(step) for step in architectures.STEPS} == dict.fromkeys(architectures.STEPS, "ok"), found
    assert "decoder" in found["reason"]


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_row_82_a_text_may_spell_the_token_that_ends_it(kind: str, load: Load) -> None:
    """These models find a text's end by counting, and stop where the texts of a batch have unequal counts."""
    model, tokenizer, _ = load(kind)
    execution = Execution(model, tokenizer.pad_token_id, frame=Frame.of(tokenizer))
    texts = ["a b", f"a {tokenizer.eos_token} b", "b", f"{tokenizer.eos_token} {tokenizer.eos_token} a", "a b a"]
    rows = [one.ids for one in tokens.encode(list(map(Question, texts)), tokenizer, Cutting(16))]
    assert len({row.count(tokenizer.eos_token_id) for row in rows}) == 3, "the texts are as they are meant"
    encoding = Encoding.unlabelled(Ragged.of(rows, np.int32))
    with torch.no_grad():
        together = execution.outputs(model, encoding, np.arange(len(rows))).values
        alone = torch.cat([execution.outputs(model, encoding, np.asarray([row])).values for row in range(len(rows))])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ALL_THE_WAY)
def test_row_84_architectures_that_work(kind: str, journey: Callable[[str], dict[str, Any]]) -> None:
    found = journey(kind)
    assert {step: found.get(step) for step in architectures.STEPS} == dict.fromkeys(architectures.STEPS, "ok"), found


@pytest.mark.slow
def test_row_84_a_router_that_is_made_from_a_linear_layer(journey: Callable[[str], dict[str, Any]]) -> None:
    found = journey("phimoe")
    assert found["onnx"].startswith("refused: --format: no ONNX of this model: phimoe can't be traced: ")
    assert {found.get(step) for step in architectures.STEPS if step != "onnx"} == {"ok"}, found


@pytest.mark.parametrize("kind", IN_PYTHON)
def test_row_84_a_tokenizer_in_python_works_but_for_onnx(kind: str, journey: Callable[[str], dict[str, Any]]) -> None:
    found = journey(kind)
    assert found["onnx"].startswith("refused: --format: no ONNX of this model: its ")
    assert {found.get(step) for step in architectures.STEPS if step != "onnx"} == {"ok"}, found


def test_row_84_what_a_slow_tokenizer_cuts_is_counted(load: Load, tmp_path: Path) -> None:
    _, tokenizer, _ = load("esm")
    rows = [{"text": text, "label": label} for text in ("great film", "great " * 10) for label in ("neg", "pos")]
    path = str(tiny.save_csv(tmp_path / "train.csv", rows))
    section = load_data_section({"train_file": path, "validation_file": path})
    examples = SequenceClassification.prepare(data.load(section), section, 0)[1]["train"]
    encoding = TASK.encode(examples, tokenizer, Cutting(6))
    assert encoding.lengths.tolist() == [4, 4, 6, 6]
    assert (encoding.cut, encoding.lost) == (2, 12)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("layoutlmv3", "its tokenizer takes no text alone: You must provide corresponding bounding boxes"),
        ("roc_bert", "its tokenizer gives the model input_pronunciation_ids, input_shape_ids too"),
        ("markuplm", "its tokenizer gives the model xpath_subs_seq, xpath_tags_seq too"),
    ],
)
def test_row_84_a_tokenizer_that_wants_more_than_text_is_refused(kind: str, says: str, load: Load) -> None:
    with pytest.raises(ModelError) as error:
        load(kind)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_row_84_a_model_that_reads_no_text_is_refused(load: Load) -> None:
    model, tokenizer, _ = load("xmod", default_language=None)
    with pytest.raises(ModelError, match="xmod: the model can't read a text: Input language unknown"):
        lengths.usable(tokenizer, model, None)
    with pytest.raises(ModelError, match="xmod: the model can't read a text"):
        Execution(model, tokenizer.pad_token_id, frame=Frame.of(tokenizer))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("perceiver", "perceiver has its head within the model that it stands on"),
        ("squeezebert", "method.name: lora updates linear layers, and squeezebert's blocks have none"),
        ("ibert", "method.name: lora updates linear layers, and ibert's blocks have none"),
        ("reformer", "method: reformer's own code passes no gradient to what is tuned"),
    ],
)
def test_row_84_the_true_reason_before_the_first_step(
    kind: str, says: str, journey: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featherweight.engine.training.train.Trainer.fit", lambda *_: pytest.fail("it was trained"))
    assert says in journey(kind)["run"]


@pytest.mark.parametrize("kind", ["squeezebert", "ibert"])
def test_row_84_models_without_linear_layers_take_a_linear_probe(
    kind: str, journey: Callable[..., dict[str, Any]]
) -> None:
    found = journey(kind, {"name": "linear-probe"})
    assert {found.get(step) for step in ("run", "predict", "evaluate", "serve", "peft")} == {"ok"}, found


@pytest.mark.parametrize("kind", ["glm", "funnel", "jetmoe", "mra", pytest.param("longformer", marks=pytest.mark.slow)])
def test_row_84_what_onnx_can_not_hold_is_refused_before_the_work(kind: str, load: Load, tmp_path: Path) -> None:
    model, tokenizer, _ = load(kind)
    subject = Subject(model, tokenizer, tmp_path, {"max_length": 64})
    with pytest.raises(ConfigError, match=f"--format: no ONNX of this model: {kind} .*; export merged instead"):
        write_graph(subject, tmp_path / "model.onnx")


def test_row_84_labels_that_are_numbered_from_1(tmp_path: Path) -> None:
    folder = tiny.save_model(tmp_path, "bert", head=["neg", "pos"])
    expected = heads.load(TASK.head(), sources.find(str(folder)), ModelSection(name=str(folder)))[0].classifier.weight
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"1": "neg", "2": "pos"}, "label2id": {"neg": 1, "pos": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    model, _, _ = heads.load(TASK.head(), sources.find(str(folder)), ModelSection(name=str(folder)))
    assert torch.equal(model.classifier.weight, expected)
    assert model.config.id2label == {0: "neg", 1: "pos"}


def test_row_84_a_tokenizer_without_any_special_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    folder = tiny.save_model(tmp_path, "gpt2")
    backend = Tokenizer(kinds.WordLevel(tiny.vocabulary(), unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    model, tokenizer, _ = heads.load(TASK.head(), sources.find(str(folder)), ModelSection(name=str(folder)))
    assert tokenizer.pad_token_id == model.config.pad_token_id is not None


@pytest.mark.parametrize(("kind", "made"), [("phimoe", "Linear"), ("falcon", "FalconLinear")])
def test_row_84_targets_are_layers_that_compute_what_a_linear_one_does(kind: str, made: str, load: Load) -> None:
    model, _, _ = load(kind)  # Phi-MoE's router and Falcon's layers are both made from torch's
    targets = linear_targets(model)
    matched = [name for name, _ in model.named_modules() if any(f".{name}".endswith(f".{one}") for one in targets)]
    assert matched
    assert {type(model.get_submodule(name)).__name__ for name in matched} == {made}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("gpt_oss", "its attention is more than the usual one (s_aux)"),
        ("deberta", "its attention can't be exchanged"),
        ("t5", "its decoder reads every text anew"),
        ("minimax", "texts that share a row would change each other's answers"),
        ("axk2", "its own code relies on one text a row"),
    ],
)
def test_row_85_why_a_model_is_padded_in_words_of_its_user(kind: str, says: str, load: Load) -> None:
    model, tokenizer, _ = load(kind)
    before = model.config._attn_implementation
    described = Execution(model, tokenizer.pad_token_id, frame=Frame.of(tokenizer)).describe()
    assert described["batches"] == "padded"
    assert says in described["reason"]
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", ["gte", "nomic_bert", "minicpm3", "mistral4"])
def test_row_85_popular_models_are_packed(kind: str, load: Load) -> None:
    model, tokenizer, _ = load(kind)
    execution = Execution(model, tokenizer.pad_token_id, frame=Frame.of(tokenizer))
    assert execution.describe()["batches"] == "packed"
    assert not isinstance(execution.forward, Padded)


def test_row_85_a_model_whose_head_is_not_beside_its_trunk_is_padded(load: Load) -> None:
    model, tokenizer, _ = load("bert")
    model.base_model_prefix = "nothing"
    described = Execution(model, tokenizer.pad_token_id, frame=Frame.of(tokenizer)).describe()
    assert "its head is part of the model that it stands on" in described["reason"]


class TestLength:
    @pytest.mark.parametrize(("kind", "holds"), [("roberta", 64), ("bert", 66), ("xlnet", 512), ("t5", 512)])
    def test_row_81_is_what_the_model_can_read(self, kind: str, holds: int, load: Load) -> None:
        model, tokenizer, _ = load(kind)
        found, reason = lengths.usable(tokenizer, model, None)
        assert found == holds
        assert reason is not None
        text = torch.tensor([tokenizer("great " * 600, truncation=True, max_length=found)["input_ids"]])
        assert text.shape == (1, holds)
        with torch.no_grad():
            model(input_ids=text)

    def test_row_81_more_than_that_is_refused_with_the_number(self, load: Load) -> None:
        model, tokenizer, _ = load("roberta")
        assert lengths.usable(tokenizer, model, 64) == (64, None)
        with pytest.raises(ConfigError, match=r"data\.max_length: 65 is more than the 64 tokens"):
            lengths.usable(tokenizer, model, 65)

    @pytest.mark.parametrize("claim", [-1, 0])
    def test_row_81_values_below_1_are_no_limit(self, claim: int, load: Load) -> None:
        model, tokenizer, _ = load("gpt2")
        tokenizer.model_max_length = claim
        assert lengths.usable(tokenizer, model, None)[0] == 66

    def test_row_81_a_claim_that_is_too_high_is_found_out(self, load: Load) -> None:
        model, tokenizer, _ = load("bert")
        model.config.max_position_embeddings = 5000
        assert lengths.usable(tokenizer, model, None)[0] == 66
        assert lengths.usable(tokenizer, model, None, tried=True)[0] == 512  # negative control


def test_row_82_trial_texts_are_framed_as_the_tokenizer_frames_them(load: Load) -> None:
    model, tokenizer, _ = load("bart")
    frame = Frame.of(tokenizer)
    assert (frame.before, frame.after) == ((), (tokenizer.eos_token_id,))
    texts = frame.texts(model, [5, 1, 9])
    assert texts.lengths.tolist() == [5, 1, 9]
    for index in range(3):
        assert (texts.tokens.row(index) == tokenizer.eos_token_id).tolist() == [False] * (texts.lengths[index] - 1) + [
            True
        ]
        assert not {*texts.tokens.row(index)[:-1].tolist()} & {*tokenizer.all_special_ids}


def test_row_84_rows_are_as_wide_as_a_model_needs_them(load: Load) -> None:
    model, tokenizer, _ = load("canine")  # reads four characters at a time
    execution = Execution(model, tokenizer.pad_token_id, frame=Frame.of(tokenizer))
    assert execution.forward.step == 4
    texts = Frame.of(tokenizer).texts(model, [3, 3])
    assert execution.outputs(model, texts, np.arange(2)).values.isfinite().all()


def test_row_84_the_table_has_every_architecture_and_none_that_fails() -> None:
    found = architectures.read()
    assert sorted(found) == architectures.types()
    failed = {kind: one for kind, one in found.items() if any(str(end).startswith("fails") for end in one.values())}
    assert failed == {}
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    assert "Traceback" not in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == sorted(found)
    assert all(row.replace("\\|", "").count("|") == 7 for row in rows)


def test_row_84_the_table_would_say_what_fails() -> None:
    """Negative control."""
    found: dict[str, Any] = {}
    with architectures.noted(found, "run"):
        raise IndexError("index out of range\nsecond line")
    assert found["run"] == "fails: IndexError: index out of range"
    with architectures.noted(found, "onnx"):
        raise ConfigError("one line")
    assert found["onnx"] == "refused: one line"
