"""The classification head of a model: which modules it is, whose labels it answers, and making it afresh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from featherweight.errors import ConfigError
from featherweight.tasks.reading.labels import listed


def is_trained(config: Any) -> bool:
    """Whether the stored model was trained as a classifier, going by its configuration."""
    architectures = getattr(config, "architectures", None) or [""]
    return str(architectures[0]).endswith("ForSequenceClassification")


def stored_labels(config: Any) -> list[str]:
    """The names of a stored head's outputs, in their order. Some files number them from 1."""
    return [str(name) for _, name in sorted(config.id2label.items())]


def answer(config: Any, labels: Iterable[str]) -> None:
    """Let a configuration say which labels the head answers; the model that is made from it has as many outputs."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in config.id2label.items()}


def order(config: Any, labels: Sequence[str], model: str) -> list[int]:
    """For each output of the stored head, which of ``labels`` it is; empty where there is none or it has no names.

    Raises:
        ConfigError: the stored head has other labels.
    """
    if not is_trained(config):
        return []
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


def reorder(model: Any, order: Sequence[int]) -> None:
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
