"""Packed is padded: logits, gradients and whole runs, for every architecture that is named here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from stock import require_same_gradients
from test_trainer_equivalence import largest_difference, train_ours, trained

from featherweight.engine.fast import kernels, linear
from featherweight.engine.fast.dropout import Mask, Masks, drop
from featherweight.engine.fast.exchanges import Activation, RmsNorm, activate
from featherweight.engine.fast.lora import _LoRALinear
from featherweight.engine.fast.products import PRODUCTS, works
from featherweight.engine.running import attention as packed_attention
from featherweight.engine.running.attention import Run
from featherweight.engine.running.choosing import Way
from featherweight.engine.running.execution import Execution
from featherweight.engine.running.many_adapters import AdapterWeights, MultiLora, Update
from featherweight.engine.running.packed import Packed, block_list
from featherweight.engine.running.padded import Padded
from featherweight.records.rows import Encoding, Ragged

WORDS = 60
LONGEST = 40
_BLOCKS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
_GROUPED = {**_BLOCKS, "num_key_value_heads": 2}
_HYBRID = ["sliding_attention", "full_attention"]

# Which side each architecture is on. Changing it is a decision: the test below fails until this table says so too.
PACKED: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": _BLOCKS,
    "opt": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
        "max_position_embeddings": 64, "word_embed_proj_dim": 32,
    },
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "mistral": {**_GROUPED, "sliding_window": 8},
    "gemma3_text": {**_GROUPED, "head_dim": 8, "sliding_window": 8, "layer_types": _HYBRID},
    "phi": _BLOCKS,
    "bert": _BLOCKS,
    "roberta": {**_BLOCKS, "max_position_embeddings": 66, "pad_token_id": 1},
    "xlm-roberta": {**_BLOCKS, "max_position_embeddings": 66, "pad_token_id": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
    "electra": {**_BLOCKS, "embedding_size": 32},
    "albert": {**_BLOCKS, "embedding_size": 32},
    "gte": _BLOCKS,
    "nomic_bert": {**_BLOCKS, "head_dim": 8},
    # Latent attention, whose values are narrower than its keys.
    "minicpm3": {
        **_BLOCKS, "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8, "v_head_dim": 4,
    },
    "modernbert": {**_BLOCKS, "local_attention": 8, "global_attn_every_n_layers": 2, "classifier_pooling": "cls"},
}  # fmt: skip
PADDED: dict[str, dict[str, Any]] = {
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": 8, "max_position_embeddings": 64, "intermediate_size": 64,
    },
    "gemma2": {**_GROUPED, "head_dim": 8},  # caps its scores
    "deberta-v2": _BLOCKS,  # attends to relative positions
    "mpnet": _BLOCKS,  # likewise
    "modernbert-mean": {**_BLOCKS, "local_attention": 8, "classifier_pooling": "mean"},  # its head reads every token
}  # fmt: skip


def make_model(kind: str, **changes: Any) -> Any:
    """A tiny random classifier whose attention matters: wide initial weights, so that a wrong token shows."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(3)
    common = {"vocab_size": WORDS, "pad_token_id": 0, "num_labels": 3, "initializer_range": 0.3}
    special = dict.fromkeys(["bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"])
    shape = {**PACKED, **PADDED}[kind]
    config = AutoConfig.for_model(kind.removesuffix("-mean"), **{**common, **special, **shape, **changes})
    return AutoModelForSequenceClassification.from_config(config).eval()


def make_encoding(lengths: list[int], seed: int = 0) -> Encoding:
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = draw.integers(2, WORDS, offsets[-1]).astype(np.int32)
    return Encoding(Ragged(tokens, offsets), draw.integers(0, 3, len(lengths)).astype(np.int64))


def padded_logits(model: Any, encoding: Encoding, pad: int) -> torch.Tensor:
    return Padded(pad, torch.device("cpu"), "")(model, encoding, np.arange(len(encoding))).values


def with_adapter(model: Any) -> Any:
    """LoRA on every linear layer with a B that is not zero, so that all gradients are there."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    from featherweight.methods.peft.targets import linear_targets

    config = LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=linear_targets(model), init_lora_weights=False,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )  # fmt: skip
    torch.manual_seed(5)
    return get_peft_model(model, config)


@contextmanager
def products_by(name: str) -> Iterator[None]:
    """Every product of a linear layer by this library, whatever is faster here."""
    if not works(name):
        pytest.skip(f"this build of PyTorch has no {name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "probe", lambda: SimpleNamespace(product=name))
        yield


@contextmanager
def without_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, products_by("PyTorch"):
        patch.setattr(kernels, "load", lambda: None)
        yield


@pytest.fixture(params=["compiled", "pytorch"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways in which attention, dropout and products are computed."""
    if request.param == "compiled":
        if kernels.load() is None:
            pytest.skip(kernels.status())
        with products_by("oneDNN"):
            yield "compiled"
    else:
        with without_kernels():
            yield "pytorch"


@pytest.mark.parametrize("kind", [*PACKED, *PADDED])
def test_each_architecture_is_on_its_side(kind: str) -> None:
    model = make_model(kind)
    before = model.config._attn_implementation
    execution = Execution(model, model.config.pad_token_id)
    described = execution.describe()
    assert described["batches"] == ("packed" if kind in PACKED else "padded"), described
    if kind in PADDED:
        assert model.config.model_type in described["reason"]
        assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", PACKED)
def test_logits_and_gradients_are_those_of_padded_batches(kind: str, path: str) -> None:
    encoding = make_encoding([3, 17, 1, 9, 17, LONGEST, 2, 9, 9, 1])
    rows = np.random.default_rng(1).permutation(len(encoding))
    packed, stock = with_adapter(make_model(kind)), with_adapter(make_model(kind))
    pad = stock.config.pad_token_id
    execution = Execution(packed.get_base_model(), pad)
    assert isinstance(execution.forward, Packed)
    ours, theirs = execution.outputs(packed, encoding, rows).values, padded_logits(stock, encoding, pad)[rows]
    # In fp32 stock is itself up to 0.9e-5 from this on some processors.
    exact = padded_logits(with_adapter(make_model(kind)).double(), encoding, pad)[rows].detach().float()
    torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-5)
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    require_same_gradients(packed, stock)
    with execution.answering(packed):
        torch.testing.assert_close(execution.outputs(packed, encoding, rows).values, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "mistral"])
def test_a_row_that_needs_filler_gives_the_same(kind: str, path: str) -> None:
    """A packed row of a size that oneDNN would compile for itself gets tokens that nobody reads."""
    lengths = [int(length) for length in np.random.default_rng(6).integers(1, LONGEST, 17)]
    assert Packed.filler(sum(lengths)) > 0
    packed, stock = with_adapter(make_model(kind)), with_adapter(make_model(kind))
    encoding = make_encoding(lengths)
    execution = Execution(packed.get_base_model(), 0)
    execution.adopt(packed)
    seen: list[int] = []
    block_list(packed.get_base_model())[0].register_forward_pre_hook(
        lambda module, given, options: seen.append((*given, *options.values())[0].shape[1]), with_kwargs=True
    )
    ours, theirs = execution.outputs(packed, encoding, np.arange(17)).values, padded_logits(stock, encoding, 0)
    assert seen == [sum(lengths) + Packed.filler(sum(lengths))]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    expected = dict(stock.named_parameters())
    for name, parameter in packed.named_parameters():
        if parameter.requires_grad:
            gradient = expected[name].grad
            assert float((parameter.grad - gradient).norm()) <= 1e-4 * float(gradient.norm()) + 1e-7, name


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_filler_fits_the_positions_that_a_model_has(kind: str) -> None:
    """Many short texts need more filler than the longest text that a model can hold."""
    lengths = [5] * 900
    model = make_model(kind)
    assert Packed.filler(sum(lengths)) > model.config.max_position_embeddings
    encoding = make_encoding(lengths)
    execution = Execution(model, model.config.pad_token_id)
    with execution.answering(model):
        ours, theirs = execution.outputs(model, encoding, np.arange(900)).values, padded_logits(model, encoding, 0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_filler_is_little_and_makes_few_sizes() -> None:
    sizes = [tokens + Packed.filler(tokens) for tokens in range(1, 8193)]
    assert all(size >= tokens and size <= tokens * 17 / 16 for tokens, size in enumerate(sizes, start=1))
    assert len({size for size in sizes if 256 < size <= 512}) <= 32


@pytest.mark.parametrize("kind", ["gpt2", "bert", "mistral"])
@pytest.mark.parametrize(
    "lengths",
    [[1], [1, 1, 1], [LONGEST], [LONGEST] * 3, [7] * 5, [20, 1]],
    ids=["one-token", "single-tokens", "one-long", "longest", "equal", "two"],
)
def test_batches_at_the_edges(kind: str, lengths: list[int], path: str) -> None:
    model = make_model(kind)
    encoding = make_encoding(lengths)
    expected = padded_logits(model, encoding, 0).detach()
    execution = Execution(model, 0)
    rows = np.arange(len(lengths))
    torch.testing.assert_close(execution.outputs(model, encoding, rows).values.detach(), expected, atol=1e-5, rtol=1e-5)
    twice = np.concatenate([rows, rows])
    torch.testing.assert_close(
        execution.outputs(model, encoding, twice).values.detach(), torch.cat([expected] * 2), atol=1e-5, rtol=1e-5
    )


_MODELS: dict[str, tuple[Any, Execution, Any]] = {}


@given(
    kind=st.sampled_from(["gpt2", "bert", "mistral", "modernbert"]),
    lengths=st.lists(st.integers(1, 48), min_size=1, max_size=12),
    seed=st.integers(0, 2**16),
)
@hypothesis_settings(max_examples=60)
def test_any_lengths_in_any_order(kind: str, lengths: list[int], seed: int) -> None:
    if kind not in _MODELS:
        model = make_model(kind)
        _MODELS[kind] = (model, Execution(model, 0), make_model(kind))
    model, execution, stock = _MODELS[kind]
    encoding = make_encoding(lengths, seed)
    with torch.no_grad():
        packed = execution.outputs(model, encoding, np.arange(len(lengths))).values
        torch.testing.assert_close(packed, padded_logits(stock, encoding, 0), atol=2e-5, rtol=1e-5)


def test_a_text_that_ends_in_the_pad_token_is_read_where_transformers_reads_it() -> None:
    """GPT-2's pad token is its end-of-text token, which a text may hold itself."""
    encoding = make_encoding([6, 4, 3])
    encoding.tokens.values[[4, 5, 8]] = 0  # the first text ends in two, the second has one inside
    encoding.tokens.values[10:13] = 0  # the third is nothing else
    model = make_model("gpt2")
    expected = padded_logits(model, encoding, 0)
    torch.testing.assert_close(
        Execution(model, 0).outputs(model, encoding, range(3)).values, expected, atol=1e-5, rtol=1e-5
    )


def test_the_token_that_the_head_reads_is_found_where_others_answer_nearly_alike() -> None:
    model = make_model("bert")
    with torch.no_grad():
        model.classifier.weight.mul_(1e-6)
    forward = Execution(model, 0).forward
    assert isinstance(forward, Packed)
    assert forward.plan.reads == "first"


def test_a_model_that_would_differ_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: attention that leaks between texts is found out, and the log says so."""
    whole = packed_attention.attention

    def leaking(module: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        return whole(module, query, key, value.roll(1, dims=2), *rest, **options)

    packed_attention.AttentionInterface.register(packed_attention.NAME, leaking)
    try:
        described = Execution(make_model("bert"), 0).describe()
    finally:
        packed_attention.AttentionInterface.register(packed_attention.NAME, whole)
    assert described["batches"] == "padded"
    assert "each other" in described["reason"]


def test_outside_a_packed_row_the_model_is_the_stock_model() -> None:
    model, stock = make_model("llama"), make_model("llama")
    encoding = make_encoding([5, 9, 2])
    with without_kernels():
        Execution(model, 0)
        assert torch.equal(padded_logits(model, encoding, 0), padded_logits(stock, encoding, 0))
    compiled = make_model("llama")
    Execution(compiled, 0)  # its norms, activations and products are other code: the same but for rounding
    torch.testing.assert_close(
        padded_logits(compiled, encoding, 0), padded_logits(stock, encoding, 0), atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_a_whole_run_gives_the_same_adapter(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(4)
    encoding = make_encoding([int(length) for length in draw.integers(1, 20, 43)])
    zero = ["attention_dropout", "hidden_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop"]
    zero += ["attention_probs_dropout_prob", "hidden_dropout_prob"]
    dry = dict.fromkeys(zero, 0.0)
    packed, padded = with_adapter(make_model(kind, **dry)), with_adapter(make_model(kind, **dry))
    train_ours(packed, encoding, tmp_path / "packed")
    monkeypatch.setattr(
        "featherweight.engine.running.execution.choose",
        lambda model, pad, masks, frame, reads_tokens: Way(one := Padded(pad, torch.device("cpu"), "test"), one, ""),
    )
    train_ours(padded, encoding, tmp_path / "padded")
    assert largest_difference(trained(packed), trained(padded)) < 1e-4
    assert largest_difference(trained(packed), trained(with_adapter(make_model(kind, **dry)))) > 1e-3


def train_top(kind: str, encoding: Encoding, folder: Path, cached: str) -> dict[str, torch.Tensor]:
    """A run with LoRA in the last block alone."""
    from peft import LoraConfig, get_peft_model

    targets = {"gpt2": ["c_attn", "c_proj"], "bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}[kind]
    model = make_model(kind)
    torch.manual_seed(5)
    config = LoraConfig(
        task_type="SEQ_CLS", r=4, target_modules=targets, init_lora_weights=False, layers_to_transform=[1],
        fan_in_fan_out=kind == "gpt2",
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    for module in adapted.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    adapted.config.attention_probs_dropout_prob = 0.0
    execution = Execution(model, 0)
    if cached != "off":
        facts = execution.cache_trunk(adapted, {"train": encoding}, kind, cached, lambda event: None, lambda: False)
        assert facts["frozen_blocks"] == 1
    train_ours(adapted, encoding, folder, execution=execution)
    return trained(adapted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_the_cached_trunk_gives_the_same_adapter(kind: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    encoding = make_encoding([int(length) for length in draw.integers(1, 20, 43)])
    plain, kept = (train_top(kind, encoding, tmp_path / cached, cached) for cached in ("off", "fp32"))
    assert largest_difference(plain, kept) < 1e-5


def test_without_a_frozen_trunk_the_cache_is_refused() -> None:
    from featherweight.errors import ConfigError

    model = make_model("bert")
    execution = Execution(model, 0)
    adapted = with_adapter(model)
    with pytest.raises(ConfigError, match="layers_to_transform"):
        execution.cache_trunk(adapted, {"train": make_encoding([3])}, "", "fp32", lambda event: None, lambda: False)


class TestProducts:
    """A linear layer by either library is PyTorch's own, whatever the strides."""

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("rows", [1, 5, 64, 301])
    def test_of_any_strides(self, name: str, rows: int) -> None:
        with products_by(name):
            generator = torch.Generator().manual_seed(rows)
            states, weight = torch.randn(rows, 96, generator=generator), torch.randn(96, 160, generator=generator)
            bias = torch.randn(160, generator=generator)
            exact = states.double() @ weight.double()
            tolerance = {"atol": 1e-4, "rtol": 1e-5}
            for x in (states, states.t().contiguous().t(), states.repeat(1, 2)[:, :96]):
                for w in (weight, weight.t().contiguous().t(), weight.repeat(1, 2)[:, :160]):
                    torch.testing.assert_close(linear.product(x, w), exact.float(), **tolerance)
                    torch.testing.assert_close(linear.product(x, w, bias), exact.float() + bias, **tolerance)

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("trains", [True, False])
    @pytest.mark.parametrize("transposed", [True, False], ids=["Conv1D", "Linear"])
    def test_gradients_are_pytorchs(self, name: str, trains: bool, transposed: bool) -> None:
        from transformers.pytorch_utils import Conv1D

        torch.manual_seed(0)
        stock = (Conv1D(48, 64) if transposed else torch.nn.Linear(64, 48)).requires_grad_(trains)
        ours = copy.deepcopy(stock)
        linear.speed_up(ours)
        ours = copy.deepcopy(ours)  # a copy must use its own weights
        with torch.no_grad():
            stock.bias += 1
            ours.bias += 1
        results = []
        for module in (stock, ours):
            states = torch.randn(3, 7, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
            with products_by(name):
                out = module(states)
                (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
            results.append((out, states.grad, module.weight.grad, module.bias.grad))
        for theirs, mine in zip(*results, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)

    def test_lower_precision_stays_pytorchs(self) -> None:
        """The negative control of "exact": under autocast and in bf16 nothing is exchanged."""
        module, states = torch.nn.Linear(64, 48), torch.randn(5, 64)
        linear.speed_up(module)
        with products_by("oneDNN"), pytest.MonkeyPatch.context() as patch:
            patch.setitem(PRODUCTS, "oneDNN", lambda *arguments: pytest.fail("was used"))
            with torch.autocast("cpu", torch.bfloat16):
                assert module(states).dtype == torch.bfloat16
            assert module.to(torch.bfloat16)(states.bfloat16()).dtype == torch.bfloat16
            with pytest.raises(pytest.fail.Exception, match="was used"):
                module.float()(states)

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("kind", ["gpt2", "bert"])
    def test_kept_weights_answer_as_the_layers_do(self, name: str, kind: str) -> None:
        model = make_model(kind)
        execution = Execution(model, 0)
        model = with_adapter(model)
        execution.adopt(model)
        encoding, rows = make_encoding([3, 20, 1, 9]), np.arange(4)
        with products_by(name), torch.no_grad():
            before = execution.outputs(model.eval(), encoding, rows).values
            with execution.answering(model):
                torch.testing.assert_close(
                    execution.outputs(model, encoding, rows).values, before, atol=1e-5, rtol=1e-5
                )
                for parameter in model.parameters():
                    parameter.mul_(1.5)
                # The negative control: what is kept does not follow the weights ...
                unmoved = execution.outputs(model, encoding, rows).values
            changed = execution.outputs(model, encoding, rows).values  # ... and afterwards it is forgotten.
            assert not torch.allclose(changed, unmoved, atol=1e-3)
            with execution.answering(model):
                torch.testing.assert_close(
                    execution.outputs(model, encoding, rows).values, changed, atol=1e-4, rtol=1e-4
                )


@pytest.mark.parametrize(
    "lengths",
    [[1] * 16 + [2], [1] * 15 + [2, 2], [3] * 9, np.random.default_rng(6).integers(1, 20, 108).tolist()],
    ids=["as-many-rows-as-reads", "nearly", "few", "many"],
)
@pytest.mark.parametrize("kind", ["bert", "gpt2", "deberta-v2"])
def test_each_text_of_a_mixed_batch_gets_its_own_adapter(kind: str, lengths: list[int]) -> None:
    """Whatever is put behind the texts and what is read of them, to make rows come in few sizes."""
    layer, head, width = {
        "bert": ("bert.encoder.layer.1.intermediate.dense", "classifier", 64),
        "gpt2": ("transformer.h.1.mlp.c_fc", "score", 128),
        "deberta-v2": ("deberta.encoder.layer.1.intermediate.dense", "classifier", 64),
    }[kind]
    shared = MultiLora(make_model(kind), 0)
    torch.manual_seed(1)
    for name in "ab":
        update = Update(torch.randn(4, 32), torch.randn(width, 4), 0.3)
        shared.add(name, AdapterWeights({layer: update}, {head: torch.nn.Linear(32, 3)}))
    encoding = make_encoding(lengths)
    asked = ["ab"[index % 2] for index in range(len(lengths))]
    alone = [
        shared.outputs(Encoding.unlabelled(encoding.tokens[np.asarray([row])]), [asked[row]]).values
        for row in range(len(lengths))
    ]
    torch.testing.assert_close(shared.outputs(encoding, asked).values, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(shared.outputs(encoding, asked[1:] + asked[:1]).values, torch.cat(alone), atol=1e-2)


@pytest.mark.parametrize("kind", [*PACKED, *PADDED])
def test_a_model_that_only_answers_gives_its_own_weights_up(kind: str) -> None:
    model = make_model(kind)
    execution = Execution(model, model.config.pad_token_id)
    encoding, rows = make_encoding([3, 20, 1, 9]), np.arange(4)
    with torch.no_grad():
        before = execution.outputs(model, encoding, rows).values
        execution.answer_for_good(model)
        torch.testing.assert_close(execution.outputs(model, encoding, rows).values, before, atol=1e-5, rtol=1e-5)
    kept = [module for module in model.modules() if getattr(module, "kept_product", None) is not None]
    assert kept
    assert all(bool(module.weight.isnan().all()) for module in kept)


@pytest.mark.parametrize("how", ["numbers", "shape"])
def test_weights_that_something_else_reads_stay(how: str) -> None:
    """The negative control: a model that uses a layer's weight beside the layer."""
    model = make_model("bert")
    dense = model.bert.encoder.layer[0].output.dense

    def more(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        return output + (dense.weight.sum() if how == "numbers" else dense.weight.view(-1)[0])

    model.bert.embeddings.register_forward_hook(more)
    execution = Execution(model, 0)
    encoding, rows = make_encoding([3, 20, 1, 9]), np.arange(4)
    with torch.no_grad():
        before = execution.outputs(model, encoding, rows).values
        execution.answer_for_good(model)
        assert bool(dense.weight.isfinite().all())
        torch.testing.assert_close(execution.outputs(model, encoding, rows).values, before, atol=1e-5, rtol=1e-5)

    def test_a_library_that_this_machine_lacks_is_not_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from featherweight.engine.fast import machine_speed

        def missing(*arguments: Any) -> torch.Tensor:
            raise NotImplementedError("no kernel for this device")

        def wrong(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            return torch.zeros(len(states), weight.shape[1])

        for broken in (missing, wrong):
            monkeypatch.setitem(PRODUCTS, "oneDNN", broken)
            found = machine_speed._measure()
            assert found.product == "PyTorch"
            assert "oneDNN" not in found.product_reason

    def test_a_default_is_left_only_for_what_is_clearly_faster(self) -> None:
        from featherweight.engine.fast.machine_speed import _choose

        assert _choose({"PyTorch": 100.0, "oneDNN": 110.0}, "PyTorch") == "PyTorch"
        assert _choose({"PyTorch": 100.0, "oneDNN": 210.0}, "PyTorch") == "oneDNN"
        assert _choose({"PyTorch": 100.0}, "PyTorch") == "PyTorch"


class TestDropout:
    """Ours is statistically PyTorch's: rate, scale, independence; and it is a function of seed and step."""

    @pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
    def test_rate_and_scale(self, rate: float, path: str) -> None:
        from scipy.stats import binomtest

        ones = torch.ones(1000, 500)
        dropped = drop(ones, rate, Masks(0))
        kept = int((dropped != 0).sum())
        assert binomtest(kept, ones.numel(), 1 - rate).pvalue > 1e-4
        assert dropped[dropped != 0].unique().tolist() == pytest.approx([1 / (1 - rate)], rel=1e-6)

    def test_neighbours_and_draws_are_independent(self) -> None:
        from scipy.stats import chi2_contingency

        masks = Masks(1)
        first, second = (masks.draw(0.3).numbers(2**18) < 0.3 * 2**32 for _ in range(2))
        pairs = [(first[:-distance], first[distance:]) for distance in (1, 2, 3, 4, 8, 16, 64, 768)]
        for one, other in [*pairs, (first, second)]:
            table = np.histogram2d(one, other, bins=2)[0]
            assert chi2_contingency(table, correction=False).pvalue > 1e-4

    def test_keys_that_are_close_give_unlike_masks(self) -> None:
        """The weak spot of a hash: keys that differ in one bit, or by one, in either half; real ones differ in many."""
        first, second = 12345, 67890
        numbers = Mask(first, second, 0.5).numbers(2**18) < 2**31
        near = [(first + 1, second), (first, second + 1)]
        near += [(first ^ 2**bit, second) for bit in range(18, 32)]  # lower bits visit the same elements elsewhere
        near += [(first, second ^ 2**bit) for bit in range(32)]
        for key in near:
            other = Mask(*key, 0.5).numbers(2**18) < 2**31
            assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.03, key

    def test_every_bit_is_fair_and_numbers_are_uniform(self) -> None:
        from scipy.stats import binomtest, chisquare

        numbers = Masks(2).draw(0.1).numbers(2**20)
        assert chisquare(np.bincount(numbers >> 24, minlength=256)).pvalue > 1e-4
        for bit in range(32):
            assert binomtest(int((numbers >> bit & 1).sum()), len(numbers)).pvalue > 1e-5

    def test_blocks_change_nothing(self) -> None:
        mask = Masks(3).draw(0.1)
        whole = mask.numbers(200_000)
        assert (whole[150_001:150_900] == mask.numbers(899, start=150_001)).all()
        assert (Mask(2**32 - 3, 9, 0.1).numbers(8)[3:] == Mask(0, 9, 0.1).numbers(5)).all()  # indices wrap around

    def test_gradients_take_the_same_mask(self, path: str) -> None:
        states = torch.randn(50, 40, requires_grad=True)
        dropped = drop(states, 0.3, Masks(0))
        dropped.sum().backward()
        assert states.grad is not None
        torch.testing.assert_close(dropped, states * states.grad)

    def test_seed_and_step_decide(self) -> None:
        def stream(seed: int, step: int) -> bytes:
            masks = Masks(seed)
            masks.draw(0.1)
            masks.start(step)
            return masks.draw(0.1).numbers(1000).tobytes()

        assert stream(1, 5) == stream(1, 5)
        assert len({stream(1, 5), stream(1, 6), stream(2, 5)}) == 3


def both_ways(work: Callable[[], list[torch.Tensor]], tolerance: float = 1e-5) -> None:
    """What the kernels give is what PyTorch's operations give."""
    if kernels.load() is None:
        pytest.skip(kernels.status())
    compiled = work()
    with without_kernels():
        for one, other in zip(compiled, work(), strict=True):
            largest = float(other.abs().max())
            torch.testing.assert_close(one, other, atol=tolerance * max(largest, 1.0), rtol=tolerance)


class TestKernels:
    """Every compiled kernel against PyTorch's operations, at widths that are and are not a vector's."""

    @pytest.mark.parametrize("size", [8, 13, 32])
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("window", [None, 3])
    @pytest.mark.parametrize("read", [None, [0, 34, 50, 52, 55, 56]], ids=["all", "one-of-each"])
    def test_attention(self, size: int, causal: bool, window: int | None, read: list[int] | None) -> None:
        """Where one token of each text is read, the compiled kernel leaves the others out; PyTorch's path does not."""
        runs = [Run(1, 33), Run(2, 9), Run(1, 4), Run(3, 1)]
        generator = torch.Generator().manual_seed(0)
        heads = {"query": 4, "key": 2, "value": 2}
        states = [torch.randn(1, number, 58, size, generator=generator) for number in heads.values()]

        def attend() -> list[torch.Tensor]:
            inputs = [part.clone().requires_grad_() for part in states]
            layer = torch.nn.Module()
            reads = None if read is None else torch.tensor(read)
            with packed_attention.packed(runs, Masks(7), reads, frozenset([layer])):
                result, _ = packed_attention.attention(
                    layer, *inputs, None, dropout=0.4, is_causal=causal, sliding_window=window
                )
            result = result if read is None else result[:, read]
            result.square().sum().backward()
            return [result.detach(), *(part.grad for part in inputs if part.grad is not None)]

        both_ways(attend)

    @pytest.mark.parametrize("width", [8, 40, 13, 517])
    @pytest.mark.parametrize("r", [1, 8, 11])
    @pytest.mark.parametrize("rate", [0.0, 0.3])
    @pytest.mark.parametrize("with_states", [True, False])
    def test_lora(self, width: int, r: int, rate: float, with_states: bool) -> None:
        generator = torch.Generator().manual_seed(1)
        x, a, b, w = (
            torch.randn(*shape, generator=generator) for shape in ((19, width), (r, width), (6, r), (width, 6))
        )
        mask = Masks(5).draw(rate) if rate else None
        base = torch.nn.Linear(width, 6, bias=False).requires_grad_(False)
        base.weight.data = w.t()
        linear.speed_up(base)

        def work() -> list[torch.Tensor]:
            states, one, other = (part.clone().requires_grad_() for part in (x, a, b))
            states.requires_grad_(with_states)
            result = _LoRALinear.apply(states, one, other, base, 0.5, mask)  # type: ignore[no-untyped-call]
            result.square().sum().backward()
            return [result.detach(), *(part.grad for part in (states, one, other) if part.grad is not None)]

        both_ways(work)

    @pytest.mark.parametrize("kind", kernels.ACTIVATIONS)
    @pytest.mark.parametrize("gated", [False, True])
    def test_activations(self, kind: str, gated: bool) -> None:
        x = torch.cat([torch.linspace(-30, 30, 5003), torch.tensor([-1e4, -100.0, -0.0, 0.0, 100.0, 1e4])])
        gate = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) if gated else None

        def work() -> list[torch.Tensor]:
            inputs = [part.clone().requires_grad_() for part in (x, gate) if part is not None]
            result = activate(kind, inputs[0], inputs[1] if gated else None)
            result.backward(torch.cos(x))
            return [result.detach(), *(part.grad for part in inputs if part.grad is not None)]

        both_ways(work)

    def test_a_number_that_is_none_stays_none(self) -> None:
        for kind in kernels.ACTIVATIONS:
            assert activate(kind, torch.tensor([float("nan")] * 20), None).isnan().all(), kind

    @pytest.mark.parametrize("width", [8, 13, 576])
    def test_rms_norm(self, width: int) -> None:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(2, 5, width, generator=generator)
        norm = RmsNorm(torch.nn.Parameter(torch.rand(width, generator=generator), requires_grad=False), 1e-5)

        def work() -> list[torch.Tensor]:
            states = x.clone().requires_grad_()
            result = norm(states)
            result.square().sum().backward()
            return [result.detach(), *([] if states.grad is None else [states.grad])]

        both_ways(work)

    @pytest.mark.parametrize(("kind", "expected"), [("gpt2", "gelu_tanh"), ("bert", "gelu"), ("llama", "silu")])
    def test_models_get_them(self, kind: str, expected: str) -> None:
        if kernels.load() is None:
            pytest.skip(kernels.status())
        model = make_model(kind)
        Execution(model, 0)
        kinds = {module.kind for module in model.modules() if isinstance(module, Activation)}
        gated = [module for module in model.modules() if "forward" in vars(module) and hasattr(module, "gate_proj")]
        assert kinds == {expected}
        assert len(gated) == (2 if kind == "llama" else 0)

    def test_an_activation_that_is_none_of_them_stays(self) -> None:
        model = make_model("bert", hidden_act="quick_gelu")
        Execution(model, 0)
        assert not any(isinstance(module, Activation) for module in model.modules())


@pytest.mark.slow
def test_dropout_in_training_is_pytorchs_statistically(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and spread of a model's training logits over many masks, ours against the stock modules."""
    from transformers import AutoModelForSequenceClassification

    changes = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
    ours, stock = with_adapter(make_model("bert", **changes)), with_adapter(make_model("bert", **changes))
    assert isinstance(ours.get_base_model(), type(AutoModelForSequenceClassification.from_config(ours.config)))
    encoding = make_encoding([7, 4, 7])
    execution = Execution(ours.get_base_model(), 0)
    ours.train()
    stock.train()
    draws = 600
    with torch.no_grad():
        mine = torch.stack([execution.outputs(ours, encoding, range(3)).values for _ in range(draws)])
        torch.manual_seed(0)
        theirs = torch.stack([padded_logits(stock, encoding, 0) for _ in range(draws)])
    error = (mine.var(0) / draws + theirs.var(0) / draws).sqrt()
    assert float(((mine.mean(0) - theirs.mean(0)) / error).abs().max()) < 4.5
    ratio = mine.std(0) / theirs.std(0)
    assert 0.8 < float(ratio.min()) <= float(ratio.max()) < 1.25
