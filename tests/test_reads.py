"""Rows, reads and items: heads that answer for tokens, rows of two texts, losses that are about more than rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stock import require_same_gradients
from test_packed import LONGEST, PACKED, WORDS, make_model, with_adapter
from test_trainer_equivalence import largest_difference, train_ours, trained

from featherweight.answers.label import Label
from featherweight.engine.running import choosing
from featherweight.engine.running.evaluate import _broken
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.many_adapters import AdapterWeights, MultiLora, Update
from featherweight.engine.running.packed import Packed
from featherweight.engine.running.padded import Padded
from featherweight.engine.running.passes import Kept
from featherweight.errors import ModelError
from featherweight.records.outputs import Outputs
from featherweight.records.rows import Column, Encoding, Ragged

TAGS = 3
READERS = ["bert", "roberta", "distilbert", "electra", "gpt2", "llama", "mistral", "gpt_neox", "modernbert"]
LENGTHS = [3, 17, 1, 9, 17, LONGEST, 2, 9, 9, 1]

Rows = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6)


class TaggingTokens:
    """A task whose loss is about the tokens that are read."""

    answer = Label(["a", "b"])  # for the event's name of it; nothing here is measured

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.values.float(), targets, reduction="sum")

    def answers(self, outputs: Outputs) -> Mapping[str, Column]:
        return {"tags": Ragged(outputs.values.argmax(-1).numpy(), outputs.ends.numpy())}


def token_reader(kind: str, **changes: Any) -> Any:
    """A tiny random model whose head answers for each token, without dropout."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    torch.manual_seed(3)
    common = {"vocab_size": WORDS, "pad_token_id": 0, "num_labels": TAGS, "initializer_range": 0.3}
    special = dict.fromkeys(["bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"])
    config = AutoConfig.for_model(kind, **{**common, **special, **PACKED[kind], **changes})
    model = AutoModelForTokenClassification.from_config(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def to_read(lengths: list[int], reads: list[list[int]] | None = None, seed: int = 0) -> Encoding:
    """Random texts, read at some random places each, with a random target for each read."""
    draw = np.random.default_rng(seed)
    tokens = Ragged.of([draw.integers(2, WORDS, length).tolist() for length in lengths], np.int32)
    if reads is None:
        reads = [sorted(draw.choice(length, (length + 1) // 2, replace=False).tolist()) for length in lengths]
    places = Ragged.of(reads)
    return Encoding(tokens, Ragged(draw.integers(0, TAGS, len(places.values)), places.offsets), reads=places)


def alone(model: Any, encoding: Encoding, rows: np.ndarray) -> torch.Tensor:
    """What the stock model says of each text by itself, at its reads."""
    found = []
    for row in rows:
        given = {"input_ids": torch.from_numpy(encoding.tokens.row(row).astype(np.int64)).unsqueeze(0)}
        if encoding.kinds is not None:
            given["token_type_ids"] = torch.from_numpy(encoding.kinds.row(row)).unsqueeze(0)
        logits = model(**given).logits[0]
        found.append(logits.unsqueeze(0) if encoding.reads is None else logits[encoding.reads.row(row)])
    return torch.cat(found)


class TestRagged:
    @given(rows=Rows, data=st.data())
    def test_selects_joins_and_counts_as_lists_do(self, rows: list[list[int]], data: st.DataObject) -> None:
        ragged = Ragged.of(rows)
        chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([]))
        some = ragged[np.asarray(chosen, dtype=np.int64)]
        assert [some.row(index).tolist() for index in range(len(some))] == [rows[index] for index in chosen]
        assert some.lengths.tolist() == [len(rows[index]) for index in chosen]
        joined = Ragged.joined([ragged, some])
        assert len(joined) == len(rows) + len(chosen)
        assert joined.values.tolist() == [*ragged.values.tolist(), *some.values.tolist()]
        assert joined.offsets.tolist() == np.cumsum([0, *ragged.lengths, *some.lengths]).tolist()

    def test_what_is_selected_of_a_file_is_in_memory(self, tmp_path: Path) -> None:
        values = np.memmap(tmp_path / "values", dtype=np.int32, mode="w+", shape=(6,))
        values[:] = np.arange(6)
        found = Ragged(values, np.asarray([0, 1, 4, 6]))[np.asarray([2, 0])]
        assert found.values.tolist() == [4, 5, 0]
        assert not isinstance(found.values, np.memmap)

    def test_items_are_rows_or_what_the_targets_are_of(self) -> None:
        encoding = to_read([3, 4, 5], [[0], [], [0, 2, 4]])
        assert encoding.items(np.asarray([0, 2])) == 4
        assert Encoding.unlabelled(encoding.tokens).items(np.asarray([0, 2])) == 2

    def test_outputs_are_put_in_another_order_by_the_row(self) -> None:
        values = torch.arange(12.0).view(6, 2)
        outputs = Outputs.joined([Outputs(values[:3], torch.tensor([0, 2, 2, 3])), Outputs.one_each(values[3:])])
        found = outputs[np.asarray([4, 1, 0])]
        assert len(outputs) == 6
        assert found.values[:, 0].tolist() == [8.0, 0.0, 2.0]
        assert found.ends.tolist() == [0, 1, 1, 3]


class TestReads:
    """A head that answers for tokens is run on those that are asked for, and on no others."""

    @pytest.mark.parametrize("kind", READERS)
    def test_packed_is_padded_is_stock(self, kind: str) -> None:
        encoding = to_read(LENGTHS)
        rows = np.random.default_rng(1).permutation(len(encoding))
        ours, padded, stock = (with_adapter(token_reader(kind)) for _ in range(3))
        pad = ours.config.pad_token_id
        execution = Execution(ours.get_base_model(), pad, reads_tokens=True)
        execution.adopt(ours)
        assert isinstance(execution.forward, Packed), execution.describe()
        found = execution.outputs(ours, encoding, rows)
        assert encoding.reads is not None
        assert found.ends.diff().tolist() == encoding.reads.lengths[rows].tolist()
        exact = alone(copy.deepcopy(stock).double(), encoding, rows).detach().float()
        torch.testing.assert_close(found.values, exact, atol=1e-5, rtol=1e-5)
        theirs = Padded(pad, torch.device("cpu"), "")(padded, encoding, rows)
        torch.testing.assert_close(theirs.values, exact, atol=2e-5, rtol=1e-5)
        assert theirs.ends.tolist() == found.ends.tolist()
        weights = torch.linspace(-1, 1, exact.numel()).view_as(exact)
        for values in (found.values, theirs.values, alone(stock, encoding, rows)):
            (values * weights).sum().backward()
        require_same_gradients(ours, stock)
        require_same_gradients(padded, stock)
        with execution.answering(ours):
            torch.testing.assert_close(execution.outputs(ours, encoding, rows).values, exact, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    def test_the_head_costs_what_is_read(self, kind: str) -> None:
        model = token_reader(kind)
        execution = Execution(model, 0, reads_tokens=True)
        seen: list[torch.Size] = []
        model.classifier.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape))
        encoding = to_read([9, 30, 4], [[8], [], [0, 1, 3]])
        assert execution.outputs(model, encoding, np.arange(3)).values.shape == (4, TAGS)
        assert seen == [(4, 1, 32)]

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    @pytest.mark.parametrize(
        "reads", [[[], []], [[2], []], [[2, 0, 2], [1]]], ids=["nothing", "one-text", "twice-and-in-any-order"]
    )
    def test_reads_at_the_edges(self, kind: str, reads: list[list[int]]) -> None:
        model = token_reader(kind)
        execution = Execution(model, 0, reads_tokens=True)
        encoding, rows = to_read([3, 2], reads), np.asarray([1, 0])
        expected = alone(token_reader(kind), encoding, rows).detach()
        torch.testing.assert_close(execution.outputs(model, encoding, rows).values, expected, atol=1e-5, rtol=1e-5)
        with execution.answering(model):
            torch.testing.assert_close(execution.outputs(model, encoding, rows).values, expected, atol=1e-5, rtol=1e-5)

    def test_an_architecture_that_is_not_packed_is_read_padded(self) -> None:
        from transformers import DebertaV2Config, DebertaV2ForTokenClassification

        torch.manual_seed(0)
        config = DebertaV2Config(
            vocab_size=WORDS, pad_token_id=0, num_labels=TAGS, hidden_size=32, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=64, initializer_range=0.3,
        )  # fmt: skip
        model = DebertaV2ForTokenClassification(config).eval()
        execution = Execution(model, 0, reads_tokens=True)
        assert isinstance(execution.forward, Padded)
        encoding, rows = to_read(LENGTHS), np.arange(len(LENGTHS))[::-1]
        expected = alone(model, encoding, rows)
        torch.testing.assert_close(execution.outputs(model, encoding, rows).values, expected, atol=1e-5, rtol=1e-5)

    def test_a_model_that_would_differ_is_padded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The negative control: it is the reads that are tried."""
        original = Packed._reads

        def one_off(self: Any, encoding: Any, rows: Any, texts: Any) -> Ragged:
            found = original(self, encoding, rows, texts)
            return Ragged(np.maximum(found.values - 1, 0), found.offsets) if self.plan.reads == "given" else found

        monkeypatch.setattr(Packed, "_reads", one_off)
        assert "each other" in Execution(token_reader("bert"), 0, reads_tokens=True).describe()["reason"]
        assert Execution(make_model("bert"), 0).describe()["batches"] == "packed"

    def test_from_the_cached_trunk(self) -> None:
        model = token_reader("bert")
        execution, encoding, rows = Execution(model, 0, reads_tokens=True), to_read(LENGTHS), np.arange(len(LENGTHS))
        before = execution.outputs(model, encoding, rows).values.detach()
        model.requires_grad_(False)
        model.bert.encoder.layer[1].requires_grad_(True)
        facts = execution.cache_trunk(model, {"train": encoding}, "reads", "fp32", lambda event: None, lambda: False)
        assert facts["frozen_blocks"] == 1
        model.bert.encoder.layer[0].output.dense.weight.data.zero_()  # it is not run any more
        torch.testing.assert_close(execution.outputs(model, encoding, rows).values, before, atol=1e-5, rtol=1e-5)

    def test_a_head_that_answers_once_a_text_is_refused(self) -> None:
        with pytest.raises(ModelError, match="does not read every token"):
            Execution(make_model("bert"), 0, reads_tokens=True)

    def test_rows_that_are_read_otherwise_than_was_tried_are_refused(self) -> None:
        model = token_reader("bert")
        encoding = to_read([3])
        with pytest.raises(ValueError, match="not tried"):
            Execution(model, 0, reads_tokens=True).outputs(model, Encoding.unlabelled(encoding.tokens), [0])
        model = make_model("bert")
        with pytest.raises(ValueError, match="not tried"):
            Execution(model, 0).outputs(model, encoding, [0])


def of_two_texts(lengths: list[int]) -> Encoding:
    """Random rows, each but the shortest of two texts."""
    draw = np.random.default_rng(0)
    tokens = Ragged.of([draw.integers(2, WORDS, length).tolist() for length in lengths], np.int32)
    ends = [int(draw.integers(1, length + 1)) for length in lengths]
    kinds = [[0] * end + [1] * (length - end) for end, length in zip(ends, lengths, strict=True)]
    return Encoding.unlabelled(tokens, kinds=Ragged.of(kinds))


class TestKinds:
    """A model that is told which text a token is of is told so, packed and padded."""

    @pytest.mark.parametrize("kind", ["bert", "electra", "albert", "deberta-v2"])
    def test_packed_is_padded_is_stock(self, kind: str) -> None:
        more = {"type_vocab_size": 2}
        ours, padded, stock = (with_adapter(make_model(kind, **more)) for _ in range(3))
        encoding, rows = of_two_texts(LENGTHS), np.random.default_rng(1).permutation(len(LENGTHS))
        execution = Execution(ours.get_base_model(), 0)
        assert isinstance(execution.forward, Padded if kind == "deberta-v2" else Packed)
        found = execution.outputs(ours, encoding, rows).values
        exact = alone(copy.deepcopy(stock).double(), encoding, rows).detach().float()
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
        told = Padded(0, torch.device("cpu"), "", takes_kinds=True)(padded, encoding, rows).values
        torch.testing.assert_close(told, exact, atol=2e-5, rtol=1e-5)
        for values in (found, told, alone(stock, encoding, rows)):
            (values * torch.linspace(-1, 1, exact.numel()).view_as(exact)).sum().backward()
        require_same_gradients(ours, stock)
        require_same_gradients(padded, stock)
        untold = execution.outputs(ours, Encoding.unlabelled(encoding.tokens), rows).values
        assert float((untold - exact).detach().abs().max()) > 0.01, "negative control: the second text's type matters"

    def test_with_filler_behind_them(self) -> None:
        lengths = [int(length) for length in np.random.default_rng(6).integers(1, LONGEST, 17)]
        assert Packed.filler(sum(lengths)) > 0
        ours, stock = make_model("bert"), make_model("bert")
        encoding, rows = of_two_texts(lengths), np.arange(17)
        found = Execution(ours, 0).outputs(ours, encoding, rows).values
        torch.testing.assert_close(found, alone(stock, encoding, rows), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["roberta", "distilbert", "llama"])
    def test_absent_where_a_model_does_not_take_them(self, kind: str) -> None:
        """RoBERTa has the argument and one type alone, the others no such argument."""
        more = {"type_vocab_size": 1} if kind == "roberta" else {}
        model = make_model(kind, **more)
        given: list[bool] = []
        model.register_forward_pre_hook(
            lambda module, arguments, options: given.append("token_type_ids" in options), with_kwargs=True
        )
        execution = Execution(model, model.config.pad_token_id)
        encoding, rows = of_two_texts(LENGTHS), np.arange(len(LENGTHS))
        found, plain = (
            execution.outputs(model, one, rows).values for one in (encoding, Encoding.unlabelled(encoding.tokens))
        )
        assert torch.equal(found, plain)
        assert not any(given)

    def test_a_model_that_has_the_argument_and_fails_at_it_is_not_told(self) -> None:
        model = make_model("bert")

        def fail(module: Any, arguments: Any, options: dict[str, Any]) -> None:
            if options.get("token_type_ids") is not None:
                raise IndexError("there is no such type")

        model.register_forward_pre_hook(fail, with_kwargs=True)
        execution = Execution(model, 0)
        assert execution.describe()["batches"] == "packed"
        assert execution.outputs(model, of_two_texts([3, 9]), np.arange(2)).values.isfinite().all()

    def test_a_model_that_would_differ_is_padded(self) -> None:
        """The negative control: packing that holds for rows of one text alone is found out."""
        model = make_model("bert")

        def forget(module: Any, arguments: Any, options: dict[str, Any]) -> Any:
            if options.get("position_ids") is not None and options.get("token_type_ids") is not None:
                options["token_type_ids"] = torch.zeros_like(options["token_type_ids"])
            return arguments, options

        model.bert.embeddings.register_forward_pre_hook(forget, with_kwargs=True)
        assert Execution(model, 0).describe()["batches"] == "padded"


class TestItems:
    """A step's loss is the mean over all its items, however its rows are cut into micro-batches."""

    LENGTHS = (9, 1, 1, 1, 12, 1, 1, 2, 7, 1, 1, 1)

    def run(self, folder: Path, rows: int, accumulated: int) -> tuple[list[float], Any]:
        encoding = to_read([*self.LENGTHS], [list(range(length)) for length in self.LENGTHS])
        model = with_adapter(token_reader("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
        losses = train_ours(
            model, encoding, folder, Execution(model.get_base_model(), 0, reads_tokens=True),
            task=TaggingTokens(), per_device_train_batch_size=rows, gradient_accumulation_steps=accumulated,
            num_train_epochs=4,
        )  # fmt: skip
        return losses, model

    def test_the_first_loss_is_the_mean_over_the_tokens(self, tmp_path: Path) -> None:
        losses, _ = self.run(tmp_path, 4, 3)
        encoding = to_read([*self.LENGTHS], [list(range(length)) for length in self.LENGTHS])
        stock = with_adapter(token_reader("bert"))
        logits = alone(stock, encoding, np.arange(len(encoding))).detach()
        assert isinstance(encoding.targets, Ragged)
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(encoding.targets.values))
        assert losses[0] == pytest.approx(float(expected), abs=1e-5)

    def test_micro_batches_of_unlike_content_are_one_batch(self, tmp_path: Path) -> None:
        (losses, accumulated), (at_once, whole) = self.run(tmp_path / "a", 2, 6), self.run(tmp_path / "b", 12, 1)
        np.testing.assert_allclose(losses, at_once, atol=1e-4)
        assert largest_difference(trained(accumulated), trained(whole)) < 1e-4
        assert largest_difference(trained(whole), trained(with_adapter(token_reader("bert")))) > 1e-3


class TestKept:
    def test_answers_stand_in_the_order_of_the_rows(self) -> None:
        kept = Kept(4)
        values = torch.tensor([[0.0, 1.0], [5.0, 1.0], [0.0, 2.0]])
        for rows, ends in (([3, 0], [0, 1, 3]), ([2, 1], [0, 0, 3])):
            outputs = Outputs(values, torch.tensor(ends))
            number = {"number": np.asarray(rows, dtype=np.float32)[:, None]}
            kept.add(np.asarray(rows), {**TaggingTokens().answers(outputs), **number})
        found = kept.answers()
        assert isinstance(found["tags"], Ragged)
        assert [found["tags"].row(row).tolist() for row in range(4)] == [[0, 1], [1, 0, 1], [], [1]]
        assert isinstance(found["number"], np.ndarray)
        assert found["number"].dtype == np.float32
        assert found["number"][:, 0].tolist() == [0, 1, 2, 3]

    def test_rows_with_an_output_that_is_no_number_are_counted_once(self) -> None:
        values = torch.zeros(5, 2)
        values[1, 0], values[2, 1], values[4, 0] = float("nan"), float("inf"), float("-inf")
        assert _broken(Outputs(values, torch.tensor([0, 1, 3, 3, 5]))) == 2
        assert _broken(Outputs(torch.zeros(5, 2), torch.tensor([0, 1, 3, 3, 5]))) == 0


class TestManyAdapters:
    """Each layer gives each text its own adapter's update, whether it sees tokens or what is read of them."""

    LAYERS = (
        "bert.encoder.layer.0.output.dense",  # every token
        "bert.encoder.layer.1.attention.self.value",  # every token, though few attend
        "bert.encoder.layer.1.attention.output.dense",  # what is read, in the last block
        "bert.encoder.layer.1.output.dense",
        "bert.pooler.dense",  # what is read, behind the blocks
    )

    @pytest.mark.parametrize("path", LAYERS)
    @pytest.mark.parametrize("lengths", [[1] * 16 + [2], [3, 9, 1, 9, 4]], ids=["as-many-tokens-as-reads", "few"])
    def test_wherever_a_layer_stands(self, path: str, lengths: list[int]) -> None:
        shared = MultiLora(make_model("bert"), 0)
        layer = shared.model.get_submodule(path)
        torch.manual_seed(1)
        for name in "ab":
            update = Update(torch.randn(4, layer.in_features), torch.randn(layer.out_features, 4), 0.3)
            shared.add(name, AdapterWeights({path: update}, {}))
        encoding = to_read(lengths)
        encoding = Encoding.unlabelled(encoding.tokens)
        asked = ["ab"[index % 2] for index in range(len(lengths))]
        one_by_one = torch.cat(
            [
                shared.outputs(Encoding.unlabelled(encoding.tokens[np.asarray([row])]), [name]).values
                for row, name in enumerate(asked)
            ]
        )
        torch.testing.assert_close(shared.outputs(encoding, asked).values, one_by_one, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(shared.outputs(encoding, asked[1:] + asked[:1]).values, one_by_one, atol=1e-2)

    def test_a_layer_that_sees_more_than_texts(self) -> None:
        """DeBERTa runs its relative positions through the layer that makes keys of tokens."""
        path = "deberta.encoder.layer.0.attention.self.key_proj"
        relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
        shared = MultiLora(make_model("deberta-v2", **relative, position_buckets=8, max_relative_positions=-1), 0)
        torch.manual_seed(1)
        for name in "ab":
            shared.add(name, AdapterWeights({path: Update(torch.randn(4, 32), torch.randn(32, 4), 0.3)}, {}))
        encoding, asked = Encoding.unlabelled(to_read([3, 9, 5, 9]).tokens), ["a", "b", "b", "b"]
        together = shared.outputs(encoding, asked).values
        for row, name in enumerate(asked):
            one = shared.outputs(Encoding.unlabelled(encoding.tokens[np.asarray([row])]), [name]).values
            torch.testing.assert_close(together[[row]], one, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(shared.outputs(encoding, asked[::-1]).values, together, atol=1e-2)

    def test_a_layer_that_stands_elsewhere_than_thought_is_found_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The negative control: as many tokens as reads, or not, is no matter."""
        from featherweight.engine.running import many_adapters

        monkeypatch.setattr(many_adapters, "reads_texts", lambda model, path: True)
        shared = MultiLora(make_model("bert"), 0)
        update = Update(torch.randn(4, 32), torch.randn(64, 4), 0.3)
        shared.add("a", AdapterWeights({"bert.encoder.layer.0.intermediate.dense": update}, {}))
        with pytest.raises(RuntimeError, match="a layer sees"):
            shared.outputs(Encoding.unlabelled(to_read([3, 9]).tokens), ["a", "b"])


def test_trial_texts_try_what_is_asked() -> None:
    """Reads that skip and end before the text does, and both kinds of token, so that a wrong place would show."""
    model = token_reader("bert")
    read = choosing.trial_texts(model, reads_tokens=True)
    assert read.reads is not None
    assert [read.reads.row(index).tolist() for index in (0, 1, 2)] == [[0, 2, 4], [0, 2, 4, 6, 8], [0]]
    assert choosing.trial_texts(model).reads is None
    kinds = choosing.with_kinds(read).kinds
    assert kinds is not None
    assert kinds.row(0).tolist() == [0, 0, 0, 1, 1]
