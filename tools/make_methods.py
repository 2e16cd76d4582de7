"""Write ``methods/peft/options.py``, the options of PEFT's tuners by their own names: run ``make methods``.

A recipe with a typo must cost milliseconds, so they can't be read off PEFT while a recipe is read. A test holds the
file to the PEFT that is installed.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featherweight.methods.peft.tuner import name_of
from featherweight.registry.elsewhere import REFUSED_TUNERS

FILE = Path(__file__).parent.parent / "src" / "featherweight" / "methods" / "peft" / "options.py"

BY_HAND = {"LORA"}  # methods/lora.py has more to say of each
# Found from the model, from the run, or from neither: whatever reaches out for another file.
_NOT_ASKED = {
    "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers", "total_step",
    "tokenizer_name_or_path", "tokenizer_kwargs", "prompt_tuning_init_text", "progressbar",
}  # fmt: skip
# Chosen to fit the model where the recipe leaves them open.
_OF_THE_MODEL = {
    "fan_in_fan_out", "block_size", "oft_block_size", "vector_length", "group_size", "n_frequency",
    "num_virtual_tokens",
}  # fmt: skip
_LORA_ALONE = {"ADALORA"}  # which has LoRA's options, and refuses or ignores those of its variants
_OF_VARIANTS = {
    "use_dora", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "monteclora_config",
    "alora_invocation_tokens", "use_qalora", "qalora_group_size", "layer_replication", "runtime_config", "lora_bias",
    "target_parameters", "use_bdlora", "arrow_config", "kasa_config", "megatron_config", "megatron_core",
    "rank_pattern", "use_rslora", "r", "ensure_weight_tying", "init_lora_weights",
}  # fmt: skip

_HEAD = '''"""Made by ``make methods`` from PEFT's own configurations: the options of its tuners, with its defaults.

``None`` stands for what PEFT then takes. What PEFT fills in itself, and what a run knows better, is not an option.
"""

from __future__ import annotations

from typing import Any, Literal

from featherweight.recipe import MethodOptions
'''


def main() -> None:
    FILE.write_text(generated(), encoding="utf-8")


def generated() -> str:
    """The file's content."""
    return "\n\n".join([_HEAD, *map(_class, _configs())])


def _configs() -> Iterator[tuple[str, type]]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    for kind, config in sorted(PEFT_TYPE_TO_CONFIG_MAPPING.items(), key=lambda one: str(one[0].value)):
        if kind.value not in BY_HAND and name_of(kind.value) not in REFUSED_TUNERS:
            yield kind.value, config


def options_of(kind: str, config: type) -> dict[str, tuple[str, str]]:
    """Option to its type and default, as source."""
    from peft.config import PeftConfig

    given = {field.name for field in dataclasses.fields(PeftConfig)}
    hints = typing.get_type_hints(config)
    left_out = given | _NOT_ASKED | (_OF_VARIANTS if kind in _LORA_ALONE else set())
    found = {}
    for field in dataclasses.fields(config):
        if field.name in left_out or not field.init:
            continue
        plain = field.default is not dataclasses.MISSING and not isinstance(field.default, enum.Enum)
        default = field.default if plain else None
        if isinstance(field.default, enum.Enum):
            default = field.default.value
        if field.name in _OF_THE_MODEL:
            default = None
        # Which of two unions that are equal comes back depends on which was made first.
        parts = {*_parts(hints[field.name]), *(["None"] if default is None else [])}
        annotation = " | ".join(sorted(parts, key=lambda part: (part == "None", part)))
        found[field.name] = (annotation, _literal(default))
    return found


def _class(found: tuple[str, type]) -> str:
    kind, config = found
    name = _literal(name_of(kind))
    lines = [
        f"class {config.__name__.removesuffix('Config')}Options(MethodOptions):",
        f'    """Of PEFT\'s ``{config.__name__}``."""',
        "",
        f"    name: Literal[{name}] = {name}",
        *(f"    {option}: {of} = {default}" for option, (of, default) in options_of(kind, config).items()),
    ]
    return "\n".join(lines) + "\n"


def _parts(annotation: Any) -> Iterator[str]:
    """The types of a union, as source; whatever is no plain value is a table."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for one in typing.get_args(annotation):
            yield from _parts(one)
    elif origin is typing.Literal:
        yield f"Literal[{', '.join(map(_literal, typing.get_args(annotation)))}]"
    elif annotation is type(None):
        yield "None"
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        yield f"Literal[{', '.join(_literal(one.value) for one in annotation)}]"
    elif annotation in (int, float, bool, str):
        yield annotation.__name__
    elif origin in (list, tuple):
        (inner, *_) = typing.get_args(annotation)
        yield f"list[{' | '.join(_parts(inner))}]"
    else:
        yield "dict[str, Any]"


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    main()
