"""Plain LoRA adapters of one base model, answering out of one copy of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.engine.running.many_adapters import AdapterWeights, ManyAdapters, MultiLora, Update, reads_texts
from featherweight.inference.backends import OwnModel, Ready, prediction
from featherweight.inference.loading import LoadedModel
from featherweight.inference.predictor import Predictor
from featherweight.inference.torch_backend import TorchBackend
from featherweight.methods.peft import adapters
from featherweight.methods.peft.targets import is_linear
from featherweight.records.batching import by_tokens
from featherweight.records.cutting import Cutting, pooled
from featherweight.records.questions import Question, Tokens
from featherweight.records.rows import Column, Encoding, Ragged, numbers_of
from featherweight.sources.trial_texts import Frame
from featherweight.tasks import Task
from featherweight.tasks.reading import tokens

_NOBODY = ""  # no adapter is called so


@dataclass(frozen=True)
class _Voice:
    """Who answers: an adapter, or the base model with the head that its run measured it with."""

    task: Task
    cutting: Cutting
    text_columns: tuple[str, ...]


@dataclass(frozen=True)
class _Writer(_Voice):
    """The same with a tokenizer, a template and ends of its own."""

    answerer: OwnModel


class SharedBase:
    """One base model in memory, and every adapter that stands on the very same.

    Args:
        untuned: the base model, loaded on its own: the initialisation of an adapter may rewrite the weights of the
            model that it is put on (PiSSA, OLoRA, LoftQ, ...), or repeat its layers.
    """

    def __init__(self, untuned: LoadedModel) -> None:
        base = untuned.model
        self._digests = _digests(base)
        if torch.cuda.is_available():
            base.to("cuda")
        self._device = next(base.parameters()).device
        self._voices: dict[str, _Voice] = {}
        self._lock = threading.Lock()
        self._place(untuned)

    def _place(self, untuned: LoadedModel) -> None:
        """Make the base model ready for adapters."""
        self._tokenizer = untuned.tokenizer
        self._reads_tokens = untuned.task.reads_tokens
        pad, frame = untuned.tokenizer.pad_token_id, Frame.of(untuned.tokenizer)
        self._multi: ManyAdapters = MultiLora(untuned.model, pad, frame, self._reads_tokens)
        self.batches = self._multi.description["batches"]

    def is_under(self, loaded: LoadedModel, weights: AdapterWeights) -> bool:
        """Whether the model, but for ``weights``, is this very base: to the bit, layer by layer."""

        def others(digests: Mapping[str, str]) -> dict[str, str]:
            heads = tuple(f"{path}." for path in weights.heads)
            return {name: digest for name, digest in digests.items() if not name.startswith(heads)}

        known = all(f"{path}.weight" in self._digests for path in weights.updates)
        return known and others(_digests(loaded.model.get_base_model())) == others(self._digests)

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
            self._voices[name] = self._voice(loaded)
            self._multi.add(name, placed)

    def _voice(self, loaded: LoadedModel) -> _Voice:
        return _Voice(loaded.task, loaded.cutting, loaded.text_columns)

    def remove(self, name: str) -> int:
        """Forget ``name``, which nobody may ask for any more. Returns how many are left."""
        with self._lock:
            self._voices.pop(name, None)
            self._multi.remove(name)
            return len(self._voices)

    def task(self, name: str) -> Task:
        return self._voices[name].task

    def cutting(self, name: str) -> Cutting:
        return self._voices[name].cutting

    def text_columns(self, name: str) -> tuple[str, ...]:
        return self._voices[name].text_columns

    def prepare(self, name: str, asked: Sequence[Question]) -> list[Ready]:
        return list(map(Ready, asked, tokens.encode(asked, self._tokenizer, self.cutting(name))))

    def answer(self, names: Sequence[str], ready: Sequence[Ready]) -> list[dict[str, Any]]:
        """One forward for all of them, whichever adapter each wants; more where texts are many windows."""
        windows = [one.tokens.windows() for one in ready]
        asked = np.repeat(np.asarray(names), [*map(len, windows)])
        flat = [one for row in windows for one in row]
        with self._lock:
            outputs = self._outputs(asked, flat, one_forward=len(flat) == len(ready))
            voices = [self._voices[name] for name in names]
        replies = []
        ends = pairwise(np.cumsum([0, *map(len, windows)]).tolist())
        for (start, end), voice, one in zip(ends, voices, ready, strict=True):
            kind = voice.task.answer
            own = outputs[start]
            if end - start > 1:
                parts = [numbers_of(part)[:, : kind.width] for part in outputs[start:end]]
                own = pooled(np.concatenate(parts), np.asarray([0, end - start]), voice.cutting.pool)
            own = Ragged(own.values[:, : kind.width], own.offsets) if isinstance(own, Ragged) else own[:, : kind.width]
            (reply,) = kind.reply(kind.of_outputs(own, {}), [one.question], {})
            replies.append(prediction(reply, one))
        return replies

    def _outputs(self, asked: NDArray[Any], rows: Sequence[Tokens], *, one_forward: bool) -> list[Column]:
        """What the heads give for each sequence by itself, at least as wide as its own head."""
        lengths = np.asarray([len(row.ids) for row in rows])
        found: list[Column] = [np.empty(0)] * len(rows)
        for chosen in [np.arange(len(rows))] if one_forward else by_tokens(lengths):
            encoding = Encoding.asked([rows[place] for place in chosen])
            assert isinstance(self._multi, MultiLora)
            outputs = self._multi.outputs(encoding, asked[chosen].tolist()).column(self._reads_tokens)
            for index, place in enumerate(chosen):
                found[place] = outputs[np.asarray([index])]
        return found


class WritingBase(SharedBase):
    """The same of models that write: for one adapter at a time, as each of its tokens is a forward of its own."""

    def _place(self, untuned: LoadedModel) -> None:
        self._backend = TorchBackend(untuned)
        self._multi = ManyAdapters(self._backend.loaded.model)
        self.batches = "one adapter at a time"

    def is_under(self, loaded: LoadedModel, weights: AdapterWeights) -> bool:
        """An adapter of the vocabulary's layer has a model of its own: tokens are scored off that layer's weights."""
        base = adapters.base_of(loaded.model)
        vocabulary = base.get_output_embeddings()
        return super().is_under(loaded, weights) and all(
            base.get_submodule(path) is not vocabulary for path in weights.updates
        )

    def _voice(self, loaded: LoadedModel) -> _Writer:
        answerer = OwnModel(Predictor(self._backend.sharing(loaded, self._without_adapters)))
        return _Writer(loaded.task, loaded.cutting, loaded.text_columns, answerer)

    def _without_adapters(self, encoding: Encoding) -> Column:
        with self._multi.alone(_NOBODY):
            return self._backend.run(encoding)

    def prepare(self, name: str, asked: Sequence[Question]) -> list[Ready]:
        return self._writer(name).prepare(name, asked)

    def answer(self, names: Sequence[str], ready: Sequence[Ready]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{}] * len(ready)
        for name in dict.fromkeys(names):
            places = [place for place, one in enumerate(names) if one == name]
            with self._lock, self._multi.alone(name):
                replies = self._writer(name).answer([name] * len(places), [ready[place] for place in places])
            for place, reply in zip(places, replies, strict=True):
                found[place] = reply
        return found

    def _writer(self, name: str) -> OwnModel:
        voice = self._voices[name]
        assert isinstance(voice, _Writer)
        return voice.answerer


def shared_base_of(untuned: LoadedModel) -> SharedBase:
    """The base model that adapters answer out of, as their task wants it."""
    return (WritingBase if untuned.task.scores_tokens else SharedBase)(untuned)


def weights_of(loaded: LoadedModel) -> AdapterWeights | None:
    """What an adapter adds to its base model; None where it is more than plain LoRA with heads."""
    model = loaded.model
    base = model.get_base_model()
    (name,) = model.peft_config
    updates: dict[str, Update] = {}
    heads: dict[str, torch.nn.Module] = {}
    for path, module in base.named_modules():
        if hasattr(module, "lora_A"):
            if not _is_plain_lora(module, name):
                return None
            a, b = module.lora_A[name].weight, module.lora_B[name].weight
            updates[path] = Update(a.detach(), b.detach(), float(module.scaling[name]))
        elif hasattr(module, "modules_to_save"):
            if not reads_texts(base, path):
                return None
            heads[path] = module.modules_to_save[name]
    from peft import get_peft_model_state_dict

    known = 2 * len(updates) + sum(len(head.state_dict()) for head in heads.values())
    if known != len(get_peft_model_state_dict(model, save_embedding_layers=False)):
        return None  # trained tokens, biases and the like
    return AdapterWeights(updates, heads)


def untuned_heads(loaded: LoadedModel) -> AdapterWeights:
    """The heads that an untuned model has, or that stand unused beside an adapter's own."""
    model = adapters.base_of(loaded.model)
    found = {path: model.get_submodule(path) for path in loaded.head}
    return AdapterWeights({}, {path: getattr(head, "original_module", head) for path, head in found.items()})


def _is_plain_lora(module: Any, name: str) -> bool:
    from peft.tuners.lora import Linear

    plain = type(module) is Linear and not module.lora_variant and not module.lora_bias[name] and not module.merged
    return plain and is_linear(module.get_base_layer())


def _digests(model: Any) -> dict[str, str]:
    """SHA-256 of each weight of the base model, by its name without PEFT's layers around it.

    Digests, because the shared base gives its own weights up for copies that its products read faster.
    """
    found = {}
    for name, value in model.state_dict().items():
        if ".lora_" in name or ".modules_to_save." in name:
            continue
        plain = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found[plain] = f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
    return found
