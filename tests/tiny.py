"""Tiny models with random weights from the stock classes, and tiny data, for tests."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOOD = ["great", "lovely", "superb", "moving", "warm", "funny"]
BAD = ["awful", "dull", "boring", "lazy", "cold", "stupid"]
PLAIN = ["film", "plot", "cast", "story", "scene", "music", "the", "a", "with", "and", "this", "very"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|endoftext|>"]

_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "bert": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
    "llama": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
    "roberta": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "pad_token_id": 0,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": 64,
        "intermediate_size": 64,
    },
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
    },
}
_SIZES["marian"] = _SIZES["bart"]
_DROPOUTS = {
    "gpt2": ["resid_pdrop", "embd_pdrop", "attn_pdrop"],
    "bert": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "roberta": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "llama": ["attention_dropout"],
    "distilbert": ["dropout", "attention_dropout", "seq_classif_dropout"],
    "gpt_neo": ["resid_dropout", "embed_dropout", "attention_dropout"],
    "t5": ["dropout_rate"],
    "bart": ["dropout", "attention_dropout", "activation_dropout"],
}
_DROPOUTS["marian"] = _DROPOUTS["bart"]
DECODERS = {"gpt2", "llama", "gpt_neo"}
REPLYING = {"t5", "bart", "marian"}


def config(kind: str, dropout: float = 0.0, **more: Any) -> Any:
    from transformers import AutoConfig

    rates = dict.fromkeys(_DROPOUTS[kind], dropout)
    return AutoConfig.for_model(kind, **{"vocab_size": len(vocabulary()), **_SIZES[kind], **rates, **more})


def vocabulary() -> dict[str, int]:
    return {word: index for index, word in enumerate([*SPECIAL, *GOOD, *BAD, *PLAIN])}


def tokenizer(kind: str) -> Any:
    """A word-level tokenizer; decoders get no pad token and no special tokens around a text, as GPT-2 has it, T5 and
    Marian an end behind it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(vocabulary(), unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind in DECODERS:
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token="<|endoftext|>", unk_token="[UNK]", model_max_length=64
        )
    words = vocabulary()
    if kind in {"t5", "marian"}:
        ends = ("<|endoftext|>", words["<|endoftext|>"])
        backend.post_processor = processors.TemplateProcessing(single=f"$A {ends[0]}", special_tokens=[ends])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token=ends[0], unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
        )
    backend.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    ends = {"bos_token": "[CLS]", "eos_token": "[SEP]"} if kind == "bart" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        **ends,
    )


def replying(kind: str, dropout: float = 0.0, **more: Any) -> Any:
    """An encoder with a decoder that writes, with weights so large that its answers differ."""
    from transformers import AutoModelForSeq2SeqLM

    words = vocabulary()
    begin, end = ("[SEP]", "[SEP]") if kind == "bart" else ("[PAD]", "<|endoftext|>")
    known = {"pad_token_id": words["[PAD]"], "eos_token_id": words[end], "decoder_start_token_id": words[begin]}
    known |= {} if kind == "t5" else {"init_std": 0.15, "forced_eos_token_id": None}
    known |= {"bos_token_id": words["[CLS]"]} if kind == "bart" else {}
    known |= {"decoder_vocab_size": len(words)} if kind == "marian" else {}
    return AutoModelForSeq2SeqLM.from_config(config(kind, dropout, **{**known, **more}))


def save_model(
    folder: Path, kind: str, *, head: Sequence[str] | None = None, dropout: float = 0.0, seed: int = 0, **more: Any
) -> Path:
    """A model folder as a hub has it: an encoder without a head, a classifier where ``head`` names its labels, or what
    continues texts, or replies to them, where the kind ends with ``-lm``; ``more`` is for the first of them."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    continues, kind = kind.endswith("-lm"), kind.removesuffix("-lm")
    if kind in REPLYING:
        model = replying(kind, dropout)
    elif continues:
        words = vocabulary()
        ends = {"bos_token_id": None, "eos_token_id": words["<|endoftext|>"], "pad_token_id": words["[PAD]"]}
        model = AutoModelForCausalLM.from_config(config(kind, dropout, initializer_range=0.3, **ends))
    elif head is None:
        model = AutoModel.from_config(config(kind, dropout, initializer_range=0.3, **more))
    else:
        labels = {"id2label": dict(enumerate(head)), "label2id": {name: index for index, name in enumerate(head)}}
        model = AutoModelForSequenceClassification.from_config(
            config(kind, dropout, pad_token_id=0, initializer_range=0.3, **labels)
        )
    model.save_pretrained(folder)
    tokenizer(kind).save_pretrained(folder)
    return folder


def rows(count: int, seed: int = 0, labels: Sequence[Any] = ("neg", "pos")) -> list[dict[str, Any]]:
    """Separable sentences of 1 to 5 words, the classes in turn."""
    draw = random.Random(seed)
    made = []
    for index in range(count):
        telling = draw.choice(GOOD if index % 2 else BAD)
        words = [*draw.choices(PLAIN, k=draw.randint(0, 4)), telling]
        draw.shuffle(words)
        made.append({"text": " ".join(words), "label": labels[index % 2]})
    return made


def save_csv(path: Path, content: Sequence[dict[str, Any]]) -> Path:
    import csv

    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return path


def save_jsonl(path: Path, content: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def save(path: Path, content: Sequence[dict[str, Any]]) -> Path:
    """Rows in the format that the name says, by our own writer."""
    from featherweight.sources.formats import format_of

    writer = format_of(path).writer()
    for row in content:
        writer.see(row)
    writer.settle([], [])
    with path.open("wb") as stream:
        assert writer.write(stream, iter(content)) == len(content)
    return path


def recipe(model: Path | str, train: Path | str, **sections: dict[str, Any]) -> dict[str, Any]:
    """Content of a small, quick recipe; sections given are laid over it."""
    content: dict[str, Any] = {
        "name": "tiny",
        "model": {"name": str(model)},
        "data": {"train_file": str(train), "max_length": 16, "validation_fraction": 0.25},
        "method": {"name": "lora", "r": 4, "lora_alpha": 8},
        "training": {
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 8,
            "num_train_epochs": 2,
            "logging_steps": 1,
        },
    }
    for section, values in sections.items():
        below = content.get(section) if section != "method" or "name" not in values else {}
        content[section] = {**(below or {}), **values}
    return content
