"""Plain LoRA adapters of one base model, answering out of one copy of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from featherweight.engine.linear import is_linear
from featherweight.engine.multi_lora import AdapterWeights, MultiLora, Update
from featherweight.records import Encoding
from featherweight.serving.backends import Prepared, answer, prepare
from featherweight.serving.loading import LoadedModel


@dataclass(frozen=True)
class _Voice:
    """Who answers: an adapter, or the base model with the head that its run measured it with."""

    task: Any
    max_length: int

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.task.labels)


class SharedBase:
    """One base model in memory, and every adapter that was made for it.

    Args:
        loaded: any of the adapters; its base model becomes the shared one.
        original: the heads of the base model itself, from :func:`weights_of`, which must have looked before.
    """

    def __init__(self, loaded: LoadedModel, original: AdapterWeights) -> None:
        base = loaded.model.unload()
        for path, head in original.heads.items():
            parent, _, last = path.rpartition(".")
            setattr(base.get_submodule(parent), last, head)
        if torch.cuda.is_available():
            base.to("cuda")
        self._device = next(base.parameters()).device
        self._tokenizer = loaded.tokenizer
        self._multi = MultiLora(base, loaded.tokenizer.pad_token_id)
        self._voices: dict[str, _Voice] = {}
        self._lock = threading.Lock()
        self.batches = self._multi.description["batches"]

    def add(self, name: str, loaded: LoadedModel, weights: AdapterWeights) -> None:
        """Answer for ``name`` from the next batch on."""
        placed = AdapterWeights(
            {
                path: Update(one.a.to(self._device), one.b.to(self._device), one.scale)
                for path, one in weights.updates.items()
            },
            {path: head.to(self._device) for path, head in weights.heads.items()},
        )
        with self._lock:
            self._voices[name] = _Voice(loaded.task, loaded.max_length)
            self._multi.add(name, placed)

    def remove(self, name: str) -> int:
        """Forget ``name``, which nobody may ask for any more. Returns how many are left."""
        with self._lock:
            self._voices.pop(name, None)
            self._multi.remove(name)
            return len(self._voices)

    def max_length(self, name: str) -> int:
        return self._voices[name].max_length

    def prepare(self, name: str, texts: Sequence[str]) -> list[Prepared]:
        voice = self._voices[name]
        return prepare(voice.task, self._tokenizer, voice.max_length, texts)

    def answer(self, names: Sequence[str], prepared: Sequence[Prepared]) -> list[dict[str, Any]]:
        """One forward for all of them, whichever adapter each wants."""
        lengths = [one.cost for one in prepared]
        tokens = np.asarray([token for one in prepared for token in one.tokens], dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        encoding = Encoding(tokens, offsets, np.zeros(len(prepared), dtype=np.int64), 0)
        with self._lock:
            logits = self._multi.logits(encoding, names).cpu()
            voices = [self._voices[name] for name in names]
        return [
            answer(voice.labels, voice.task.probabilities(row[: len(voice.labels)]).tolist(), one.truncated)
            for voice, row, one in zip(voices, logits, prepared, strict=True)
        ]


def weights_of(loaded: LoadedModel) -> tuple[AdapterWeights, AdapterWeights] | None:
    """What an adapter adds to its base model, and the base model's own heads beside it.

    Returns:
        None where it is more than plain LoRA with heads, so that it needs a model of its own.
    """
    model = loaded.model
    if not hasattr(model, "peft_config"):
        return None
    base = model.get_base_model()
    (name,) = model.peft_config
    updates: dict[str, Update] = {}
    tuned: dict[str, torch.nn.Module] = {}
    original: dict[str, torch.nn.Module] = {}
    for path, module in base.named_modules():
        if hasattr(module, "lora_A"):
            if not _is_plain_lora(module, name):
                return None
            a, b = module.lora_A[name].weight, module.lora_B[name].weight
            updates[path] = Update(a.detach(), b.detach(), float(module.scaling[name]))
        elif hasattr(module, "modules_to_save"):
            if not _reads_texts(base, path):
                return None
            tuned[path], original[path] = module.modules_to_save[name], module.original_module
    from peft import get_peft_model_state_dict

    known = 2 * len(updates) + sum(len(head.state_dict()) for head in tuned.values())
    if known != len(get_peft_model_state_dict(model, save_embedding_layers=False)):
        return None  # trained tokens, biases and the like
    return AdapterWeights(updates, tuned), AdapterWeights({}, original)


def _is_plain_lora(module: Any, name: str) -> bool:
    plain = name in module.lora_A and not module.lora_variant and not module.lora_bias[name] and not module.merged
    return plain and is_linear(module.get_base_layer())


def _reads_texts(model: Any, path: str) -> bool:
    """Whether the module stands behind the trunk's blocks, where there is one position a text."""
    return not path.startswith(f"{model.base_model_prefix}.") or path.endswith(".pooler")
