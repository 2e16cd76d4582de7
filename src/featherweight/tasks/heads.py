"""The head of a model: which modules it is, what its outputs are called, loading it, and making it afresh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherweight.errors import ConfigError, ModelError
from featherweight.process.imports import importing_models
from featherweight.tasks.reading.labels import listed

if TYPE_CHECKING:
    from featherweight.recipe import ModelSection
    from featherweight.sources.held import Shares
    from featherweight.sources.models import ModelSource

SEQUENCE, TOKEN = "ForSequenceClassification", "ForTokenClassification"  # how transformers' classes are called
CAUSAL, SEQ2SEQ = "ForCausalLM", "ForSeq2SeqLM"
_CAUSAL_CLASSES = (CAUSAL, "LMHeadModel")  # as stored models call it
_LANGUAGES = ("source_lang", "target_lang")
_WRITES_NOT = {
    CAUSAL: "does not continue texts; choose a decoder, such as a Llama or GPT-2",
    SEQ2SEQ: "has no decoder that writes an answer to what an encoder read; choose such a model, as T5, BART or Marian",
}
SEVERAL = "multi_label_classification"  # the ``problem_type`` of a configuration whose labels are answered one by one


@dataclass(frozen=True)
class HeadPlan:
    """The head that a task needs. Whatever of it a checkpoint lacks is drawn afresh, trains whole and travels.

    Attributes:
        kind: the end of the name of the class of transformers that has it.
        names: of its outputs, in their order; None where they have none.
        width: how many outputs there are.
        problem_type: what transformers is to compute as a loss, where it computes one.
        is_pretrained: it is the model's own, of its vocabulary: nothing of it is drawn, and it is frozen like the rest.
        languages: of what is read and of what is written, by the codes of a tokenizer that knows several.
    """

    kind: str
    names: tuple[str, ...] | None
    width: int
    problem_type: str | None = None
    is_pretrained: bool = False
    languages: tuple[str, str] | None = None

    @property
    def replies(self) -> bool:
        """Whether a decoder writes the answer to what an encoder read, and so to each text by itself."""
        return self.kind == SEQ2SEQ

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads it."""
        return f"AutoModel{self.kind}"

    def is_stored(self, config: Any) -> bool:
        """Whether a stored model was trained with such a head, going by its configuration."""
        if self.is_pretrained:
            return True
        return has_head(config, self.kind) and (config.num_labels == 1) == (self.width == 1)


def has_head(config: Any, kind: str) -> bool:
    """Whether a stored model has a head of this kind, going by its configuration."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith(kind)


def continues(config: Any) -> bool:
    """Whether a stored model continues texts, going by its configuration."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith(_CAUSAL_CLASSES) and not config.is_encoder_decoder


def replies(config: Any) -> bool:
    """Whether a stored model has a decoder that answers texts, going by its configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as CLASSES

    architectures = getattr(config, "architectures", None) or [""]
    return bool(config.is_encoder_decoder) and architectures[0] == CLASSES.get(config.model_type)


@importing_models()
def load(
    plan: HeadPlan, source: ModelSource, section: ModelSection, shares: Shares | None = None
) -> tuple[Any, Any, list[str]]:
    """Load model and tokenizer with the right head, pad token and names of outputs.

    Args:
        shares: the processes that keep a part each of what is frozen.

    Returns:
        The model in fp32, or held as ``section`` says, in evaluation mode, its tokenizer, and the dotted names of the
        modules that are fresh and must therefore travel with any adapter.

    Raises:
        ConfigError: the base model's trained head has other outputs than the data.
        ModelError: the checkpoint can't be loaded, or lacks more than a head.
    """
    from featherweight.sources import models

    tokenizer = models.load_tokenizer(source)
    config = models.load_config(source)
    text = config.get_text_config()  # of a model for images and texts, the part that reads texts
    _pad_by_some_token(tokenizer, text)
    if plan.is_pretrained:
        model = _whole(plan, source, section, config, shares)
        if plan.replies:
            _begin_replies(model, tokenizer, plan, source.name)
        return model, tokenizer, []
    if plan.kind == TOKEN:
        _space_before_words(tokenizer)
    config.pad_token_id = text.pad_token_id = tokenizer.pad_token_id
    model, head = _with_head(plan, source, section, config, shares)
    return model, tokenizer, head


def _with_head(
    plan: HeadPlan, source: ModelSource, section: ModelSection, config: Any, shares: Shares | None
) -> tuple[Any, list[str]]:
    """The model with the head that the plan says, and the modules that are fresh or train with it."""
    from featherweight.sources import models

    order = [] if section.head != "auto" or plan.names is None else _order(config, plan, source.name)
    names = plan.names or [f"LABEL_{index}" for index in range(plan.width)]
    _call(config, [names[index] for index in order] or names)
    config.problem_type = plan.problem_type
    # To quantise what is stored in bf16 there is no need of more.
    dtype = held_dtype(section, source) if section.quantization is None else models.stored_dtype(source)
    mismatched = section.head != "auto"
    model, missing = models.load_model(source, plan.auto_class, config, dtype, ignore_mismatched_sizes=mismatched)
    head = modules(model)
    if not head:
        raise ModelError(
            f"{source.name}: {config.model_type} has its head within the model that it stands on, where it is not "
            "told apart; choose another architecture"
        )
    fresh = sorted({name.rpartition(".")[0] for name in missing})
    if lost := [name for name in fresh if not within(name, [*head, "pooler"])]:
        raise ModelError(f"{source.name}: the checkpoint lacks the weights of {lost[0]!r}; it is incomplete")
    models.require_finite(model, source.name, apart_from=head)
    _hold(model, section, source, shares, apart_from=[*head, *fresh])
    if section.head != "auto":
        initialise(model, head)
    _reorder(model, order)
    _call(model.config, names)
    poolers = [name for name in fresh if not within(name, head)]
    return model, sorted({*head, *poolers})


def _whole(plan: HeadPlan, source: ModelSource, section: ModelSection, config: Any, shares: Shares | None) -> Any:
    """The model with its own head."""
    import transformers

    from featherweight.sources import models

    if section.head != "auto":
        raise ConfigError("model.head: a model that writes keeps its own head; leave it out")
    if type(config) not in getattr(transformers, plan.auto_class)._model_mapping:
        raise ModelError(f"{source.name}: {config.model_type} {_WRITES_NOT[plan.kind]}")
    dtype = held_dtype(section, source) if section.quantization is None else models.stored_dtype(source)
    model, missing = models.load_model(source, plan.auto_class, config, dtype)
    if missing:
        layer = missing[0].rpartition(".")[0]
        raise ModelError(
            f"{source.name}: the checkpoint lacks the weights of {layer!r}, without which it can't write; choose a "
            "model that was trained to"
        )
    models.require_finite(model, source.name, apart_from=())
    _hold(model, section, source, shares, unrounded=_vocabularys(model))
    return model


def _vocabularys(model: Any) -> list[str]:
    """Names of the modules that give a vocabulary's logits: T5 has all its others beside them, too."""
    if hasattr(model, model.base_model_prefix):
        return modules(model)
    return [name for name, one in model.named_modules() if one is model.get_output_embeddings()]


def _begin_replies(model: Any, tokenizer: Any, plan: HeadPlan, name: str) -> None:
    """Let the decoder begin as it was trained to: by its own token, and where a tokenizer knows several languages by
    that of what is written.

    Raises:
        ConfigError: such a tokenizer, and its languages are not said, or it has no such one.
        ModelError: nobody says by which token the decoder begins.
    """
    config, generation = model.config, model.generation_config
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if hasattr(tokenizer, "tgt_lang"):
        first, *_, last = _speak(tokenizer, plan.languages, name)
        if first in tokenizer.all_special_ids:  # what is written begins with its language
            generation.forced_bos_token_id = first
        elif config.decoder_start_token_id is None:  # it ends with it, and the decoder begins there (mBART)
            config.decoder_start_token_id = generation.decoder_start_token_id = last
    if config.decoder_start_token_id is None:
        raise ModelError(
            f"{name}: its configuration does not say by which token its decoder begins; add decoder_start_token_id to "
            "its config.json"
        )


def _speak(tokenizer: Any, languages: tuple[str, str] | None, name: str) -> list[int]:
    """Set a tokenizer's languages; gives the ids of something in the second, special ones among them."""
    if languages is None:
        raise ConfigError(
            f"data.source_lang, data.target_lang: the tokenizer of {name} knows several languages; set both, by its "
            "own codes"
        )
    for key, attribute, language in zip(_LANGUAGES, ("src_lang", "tgt_lang"), languages, strict=True):
        if not _knows(tokenizer, attribute, language):
            raise ConfigError(f"data.{key}: the tokenizer of {name} has no language {language!r}")
    found: list[int] = tokenizer(text_target="a")["input_ids"]
    return found


def _knows(tokenizer: Any, attribute: str, language: str) -> bool:
    """Set one of a tokenizer's languages; whether it has a token for it."""
    try:
        setattr(tokenizer, attribute, language)
        text = {"text_target" if attribute == "tgt_lang" else "text": "a"}
        encoded = tokenizer(**text, return_special_tokens_mask=True)
    except LookupError:
        return False
    added = [one for one, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True) if mask]
    return tokenizer.unk_token_id not in added


def _hold(
    model: Any,
    section: ModelSection,
    source: ModelSource,
    shares: Shares | None,
    apart_from: Iterable[str] = (),
    unrounded: Iterable[str] = (),
) -> None:
    """Hold the model's weights as the section says, but for those of modules that train, and let go of what others
    keep."""
    if not section.holding and shares is None:
        return
    from featherweight.sources.held import hold, require_package

    if section.quantization:
        require_package()
    hold(model, held_dtype(section, source), section.quantization, apart_from, unrounded, shares)


def held_dtype(section: ModelSection, source: ModelSource) -> str:
    """In which dtype weights are held that are not quantised, by torch's name."""
    from featherweight.sources import models

    return models.stored_dtype(source) if section.dtype == "auto" else section.dtype


def skeleton(plan: HeadPlan, source: ModelSource) -> Any:
    """The model's modules without its weights, of whatever labels; None where they can't be had apart."""
    import transformers

    from featherweight.sources import models

    config = models.load_config(source)
    try:
        return models.without_weights(getattr(transformers, plan.auto_class)._model_mapping[type(config)], config)
    except Exception:  # noqa: BLE001 - whatever an architecture's own code then meets; loading says what is wrong
        return None


def _pad_by_some_token(tokenizer: Any, config: Any) -> None:
    """The head finds the last token that is not padding, and attention never sees padding, so any token does."""
    if tokenizer.pad_token is None:
        any_token = tokenizer.convert_ids_to_tokens(getattr(config, "pad_token_id", None) or 0)
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or any_token


def _space_before_words(tokenizer: Any) -> None:
    """Byte-level tokenizers spell a word in a text otherwise than one at its start: words are given one by one, and
    each is to be one in a text (``add_prefix_space``)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    part = backend.pre_tokenizer
    for one in [part, *(part if type(part).__name__ == "Sequence" else [])]:
        if getattr(one, "add_prefix_space", None) is False:
            one.add_prefix_space = True
    tokenizer.add_prefix_space = True


def stored_labels(config: Any) -> list[str]:
    """The names of a stored head's outputs, in their order. Some files number them from 1."""
    return [str(name) for _, name in sorted(config.id2label.items())]


def _call(config: Any, labels: Iterable[str]) -> None:
    """Let a configuration say what the head's outputs are called; a model that is made from it has as many outputs."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in config.id2label.items()}


def _order(config: Any, plan: HeadPlan, model: str) -> list[int]:
    """For each output of the stored head, which of the wanted names it is; empty where there is none or it has none.

    Raises:
        ConfigError: the stored head has other names.
    """
    if not has_head(config, plan.kind):
        return []
    labels = plan.names or ()
    stored = stored_labels(config)
    generic = all(name == f"LABEL_{index}" for index, name in enumerate(stored))
    if generic and len(stored) == len(labels):
        return []
    wanted = [name.casefold() for name in labels]
    found = [name.casefold() for name in stored]
    if sorted(wanted) == sorted(found):
        return [wanted.index(name) for name in found]
    raise ConfigError(
        f"model.head: {model} has a trained head for {listed(list(map(repr, stored)))}, the data has "
        f'{listed(list(map(repr, labels)))}; set data.labels to the model\'s names, or model.head = "new"'
    )


def modules(model: Any) -> list[str]:
    """Names of the modules beside the encoder that hold parameters: the head, whatever an architecture calls it."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is that of one of these modules or of something in it."""
    return any(f".{module}." in f".{name}." for module in modules)


def _reorder(model: Any, order: Sequence[int]) -> None:
    """Let output ``order[i]`` be what output ``i`` is now."""
    import torch

    if list(order) == sorted(order):
        return
    rows = torch.tensor([order.index(index) for index in range(len(order))])
    for name in modules(model):
        if (output := output_layer(model, [name], len(order))) is not None:
            with torch.no_grad():
                for parameter in model.get_submodule(output).parameters():
                    parameter.copy_(parameter[rows].clone())


def output_layer(model: Any, head: Iterable[str], classes: int) -> str | None:
    """Dotted name of the head's linear layer that gives the logits; None where something else does."""
    import torch

    layers = [
        name
        for name, layer in model.named_modules()
        if within(name, head) and isinstance(layer, torch.nn.Linear) and layer.out_features == classes
    ]
    return layers[-1] if layers else None


def mend(model: Any, head: Sequence[str]) -> list[str]:
    """Draw modules of the head afresh that hold NaN or infinity, or nothing but zeros; their names."""
    broken = [name for name in head if not _is_usable(model.get_submodule(name))]
    initialise(model, broken)
    return broken


def initialise(model: Any, head: Sequence[str]) -> None:
    """Fresh linear layers, drawn as transformers draws them."""
    import torch

    deviation = getattr(model.config, "initializer_range", 0.02)
    for name in head:
        for layer in model.get_submodule(name).modules():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=deviation)
                if layer.bias is not None:
                    torch.nn.init.zeros_(layer.bias)


def _is_usable(module: Any) -> bool:
    values = list(module.parameters())
    return all(bool(value.isfinite().all()) for value in values) and any(bool(value.any()) for value in values)
