"""A tiny model with random weights, and a tokenizer of the kind that it has, for every type of architecture that
transformers classifies text with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = ["great", "lovely", "superb", "warm", "awful", "dull", "boring", "cold", "film", "plot", "cast", "the", "a"]

# Types in the table that transformers has no name for: the same model under another kind of tokenizer.
SAME_MODEL = {"byt5": "t5"}


def _each(size: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), size)


# The size of everything that a configuration may have, by the name that it has there.
_SIZES: dict[str, Any] = {
    **_each(64, "vocab_size entity_vocab_size shape_vocab_size pronunciation_vocab_size"),
    **_each(32, "hidden_size n_embd d_model dim emb_dim embedding_size word_embed_proj_dim input_embedding_size"),
    **_each(32, "output_embedding_size entity_emb_size pooler_hidden_size shape_embed_dim pronunciation_embed_dim"),
    **_each(32, "prediction_head_size true_hidden_size intra_bottleneck_size d_latents prompt_mid_dim"),
    **_each(64, "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim hidden_dim d_ff dff d_inner n_inner"),
    **_each(64, "feed_forward_size ffn_hidden_size moe_intermediate_size shared_expert_intermediate_size"),
    **_each(64, "attention_hidden_size"),
    **_each(2, "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers"),
    **_each(2, "depth num_self_attends_per_block num_feedforward_networks num_key_value_heads num_kv_heads"),
    **_each(4, "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"),
    **_each(4, "num_self_attention_heads num_cross_attention_heads index_n_heads prompt_length"),
    **_each(2, "linear_num_key_heads linear_num_value_heads n_mamba_heads"),
    **_each(8, "head_dim d_head d_kv attention_head_size qk_nope_head_dim qk_rope_head_dim v_head_dim"),
    **_each(8, "index_head_dim linear_key_head_dim linear_value_head_dim kv_channels rotary_dim mamba_headdim"),
    **_each(8, "kv_lora_rank q_lora_rank adapter_rank gated_norm_rank mamba_dt_rank mamba_d_state"),
    **_each(8, "sliding_window local_attention window_size attention_window index_topk num_latents num_landmarks"),
    **_each(8, "segment_means_seq_len num_hash num_hash_functions local_transformer_stride"),
    **_each(16, "attention_head_dim"),
    **_each(66, "max_position_embeddings n_positions max_seq_len"),
    **_each(4, "num_experts num_local_experts n_routed_experts"),
    **_each(2, "num_experts_per_tok n_group"),
    **_each(1, "topk_group first_k_dense_replace n_shared_experts"),
}

_UNGROUPED = {"num_key_value_heads": 4}
_LINEAR_FIRST = {"layer_types": ["linear_attention", "full_attention"]}
_STARTS_WITH_PAD = {"decoder_start_token_id": 0}
# What one type alone needs beyond that.
_ONE_TYPE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "esmc", "minicpm3"), _UNGROUPED),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_next"), _LINEAR_FIRST),
    **dict.fromkeys(("t5", "mt5"), _STARTS_WITH_PAD),
    "byt5": {**_STARTS_WITH_PAD, "vocab_size": 384},
    # As published: ESM-2, whose configuration stands for ESM-1 where nothing is said.
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    },
    "esm": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "position_embedding_type": "rotary"},
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1], "architectures": ["FunnelBaseModel"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 5, "shape_size": 6},
    "lilt": {"hidden_size": 48},
    "mistral4": {**_UNGROUPED, "head_dim": 16},
    "perceiver": {"vocab_size": 262},
    "reformer": {
        "max_position_embeddings": 64, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"], "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["hybrid", "linear_attention", "hybrid"]},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 8},
}  # fmt: skip
_ENCODERS_BESIDE_MASKED_MODELS = {"canine", "layoutlmv2", "layoutlmv3", "lilt", "markuplm"}

Ids = dict[str, int | None]
_Make = Callable[[str, Any, Path], None]


def save(kind: str, folder: Path) -> Path:
    """A folder as a hub has it: a model without a head, and its tokenizer."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    made = config(kind)
    AutoModel.from_config(made).save_pretrained(folder)
    _TOKENIZERS.get(kind, _fast)(kind, made, folder)
    return folder


def config(kind: str, **more: Any) -> Any:
    """The type's configuration, everything small."""
    from transformers import CONFIG_MAPPING

    stock = CONFIG_MAPPING[SAME_MODEL.get(kind, kind)]()
    return _shrunk(stock, special_ids(stock), _ONE_TYPE.get(kind, {}) | more)


def special_ids(stock: Any) -> Ids:
    """Ids of the special tokens: those of the configuration where they are small, else free ones; None for none."""
    ids: Ids = {}
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        wanted = getattr(stock.get_text_config(), name, None)
        wanted = wanted[0] if isinstance(wanted, list) else wanted
        free = (one for one in range(8) if one not in ids.values())
        ids[name] = wanted if wanted is None or (0 <= wanted < 8 and wanted not in ids.values()) else next(free)
    return ids


def _shrunk(stock: Any, ids: Ids, own: dict[str, Any]) -> Any:
    """Every part small; ``own`` is the text part's."""
    known = stock.to_dict()
    parts = {name: getattr(stock, name) for name in getattr(stock, "sub_configs", {})}
    text = [part for part in parts.values() if part is stock.get_text_config()]
    named = {name: value for name, value in (_SIZES | ids).items() if name in known}
    made = {name: _shrunk(part, ids, own if part in text else {}) for name, part in parts.items() if part is not None}
    return type(stock)(**named | ({} if text else own) | made)


def _vocabulary(config: Any) -> dict[str, int]:
    """Tokens to ids; a special token that the configuration lacks has a free one."""
    text = config.get_text_config()
    wanted = {"<pad>": "pad_token_id", "<s>": "bos_token_id", "</s>": "eos_token_id"}
    taken = {token: one for token, name in wanted.items() if (one := getattr(text, name, None)) is not None}
    free = (one for one in range(64) if one not in taken.values())
    others = [token for token in [*wanted, "<unk>", "<mask>", *WORDS] if token not in taken]
    found = taken | dict(zip(others, free, strict=False))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _fast(kind: str, config: Any, folder: Path) -> None:
    """A word-level tokenizer that puts around a text what this kind has around it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    vocabulary = _vocabulary(config)
    named = {"unk_token": "<unk>", "eos_token": "</s>"}
    if getattr(config.get_text_config(), "pad_token_id", None) is not None:
        named["pad_token"] = "<pad>"
    around = "$A"
    if config.is_encoder_decoder:
        around = "$A </s>"
    elif kind in {*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *_ENCODERS_BESIDE_MASKED_MODELS}:
        around = "<s> $A </s>"
        named |= {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)


def _without_files(name: str) -> _Make:
    """Tokens are bytes or characters."""

    def make(kind: str, config: Any, folder: Path) -> None:
        import transformers

        getattr(transformers, name)().save_pretrained(folder)

    return make


def _of_words(name: str, special: str = "<pad> <s> </s> <unk> <mask>", *more: str) -> _Make:
    """One token a line in ``vocab.txt``."""

    def make(kind: str, config: Any, folder: Path) -> None:
        import transformers

        names = dict(zip(["<pad>", "<s>", "</s>", "<unk>", "<mask>"], special.split(), strict=True))
        tokens = [names.get(token, token) for token in _vocabulary(config)]
        (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        for file in more:  # what else is known of each word
            (folder / file).write_text(json.dumps(dict.fromkeys(tokens, 1)), encoding="utf-8")
        files = [str(folder / file) for file in ("vocab.txt", *more)]
        getattr(transformers, name)(*files).save_pretrained(folder)

    return make


def _of_pairs(name: str, end: str, header: str = "") -> _Make:
    """Byte pairs: ``vocab.json`` and the ``merges.txt`` that make each word one token."""

    def make(kind: str, config: Any, folder: Path) -> None:
        import transformers

        merges, vocabulary = [], _vocabulary(config)
        for word in WORDS:
            parts = [*word[:-1], word[-1] + "</w>"]
            merges += [f"{''.join(parts[:index])} {parts[index]}" for index in range(1, len(parts))]
            vocabulary[word + end] = vocabulary.pop(word)
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text(header + "\n".join(merges) + "\n", encoding="utf-8")
        made = getattr(transformers, name)(str(folder / "vocab.json"), str(folder / "merges.txt"))
        made.save_pretrained(folder)

    return make


def _of_bytes(name: str, **more: Any) -> _Make:
    """Byte pairs as GPT-2 has them, learned from the words."""

    def make(kind: str, config: Any, folder: Path) -> None:
        import transformers
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=64, special_tokens=special, show_progress=False)
        learner.train_from_iterator([" ".join(WORDS)], trainer)
        learned = json.loads(learner.to_str())["model"]
        merges = [tuple(merge) for merge in learned["merges"]]
        getattr(transformers, name)(vocab=learned["vocab"], merges=merges, **more).save_pretrained(folder)

    return make


def _given(name: str, vocabulary: Callable[[list[str]], Any]) -> _Make:
    """A fast tokenizer of a class of its own, around its ``<cls>`` and ``<sep>``."""

    def make(kind: str, config: Any, folder: Path) -> None:
        import transformers

        tokens = [*_vocabulary(config), "<cls>", "<sep>"]
        getattr(transformers, name)(vocab=vocabulary(tokens)).save_pretrained(folder)

    return make


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def _scored(tokens: list[str]) -> list[tuple[str, float]]:
    """As sentencepiece has it, with a mark where a word begins."""
    return [(token if token.startswith("<") else f"▁{token}", -1.0) for token in tokens]


_BERT = "[PAD] [CLS] [SEP] [UNK] [MASK]"
# Types whose tokenizer is a class of its own; each takes the type, its configuration and the folder.
_TOKENIZERS: dict[str, _Make] = {
    "byt5": _without_files("ByT5Tokenizer"),
    "canine": _without_files("CanineTokenizer"),
    "perceiver": _without_files("PerceiverTokenizer"),
    "esm": _of_words("EsmTokenizer", "<pad> <cls> <eos> <unk> <mask>"),
    "tapas": _of_words("TapasTokenizer", _BERT),
    "roc_bert": _of_words("RoCBertTokenizer", _BERT, "word_shape.json", "word_pronunciation.json"),
    "xlm": _of_pairs("XLMTokenizer", "</w>"),
    "flaubert": _of_pairs("FlaubertTokenizer", "</w>"),
    "biogpt": _of_pairs("BioGptTokenizer", "</w>"),
    "ctrl": _of_pairs("CTRLTokenizer", "", "#version\n"),
    "funnel": _given("FunnelTokenizer", _numbered),
    "xlnet": _given("XLNetTokenizer", _scored),
    "qwen2": _of_bytes("Qwen2Tokenizer"),
    "qwen3_5": _of_bytes("Qwen3_5Tokenizer"),
    "layoutlmv3": _of_bytes("LayoutLMv3Tokenizer"),
    "markuplm": _of_bytes("MarkupLMTokenizer", tags_dict={"div": 0, "p": 1}),
}
