"""``adapter_config.json`` from somebody else: sizes, numbers and patterns are checked before PEFT acts on them.

PEFT allocates what ``r`` says, imports what ``megatron_core`` names, and matches ``target_modules`` and the keys of
``rank_pattern`` as regular expressions, which can be written to take forever. Here sizes are held to what the file of
weights holds, and patterns are matched once, under a limit, and replaced by the names that they mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from featherweight.errors import ModelError
from featherweight.methods.peft.patterns import PatternError, matching
from featherweight.registry import did_you_mean
from featherweight.sources.tensors import TensorInfo

MAX_SIZE = 65_536  # no published adapter has a rank or a prompt near it
_MAX_REPEATED_LAYERS = 1_024
_SIZES = (
    "r", "init_r", "target_r", "num_virtual_tokens", "num_layers", "token_dim", "num_transformer_submodules",
    "encoder_hidden_size", "encoder_num_layers", "oft_block_size", "boft_block_size", "boft_block_num", "block_size",
    "vector_length", "num_vectors", "n_frequency", "theta_d_length", "mini_r", "hybrid_r", "gralora_k", "num_subspaces",
    "subspace_rank", "num_B", "depth", "u",
)  # fmt: skip
_MAY_BE_ZERO = {"oft_block_size", "boft_block_size", "boft_block_num", "hybrid_r", "depth", "mini_r"}
_NUMBERS = ("lora_alpha", "alpha", "lora_dropout", "scaling", "d_initial")
_NAME_LISTS = ("target_modules", "exclude_modules", "feedforward_modules")
_TABLES = ("rank_pattern", "alpha_pattern")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_REACHES_OUT = {
    "tokenizer_kwargs": "loads a tokenizer by options of its own",
    "prompt_tuning_init_state_dict_path": "loads a pickle",
    "megatron_config": "imports the module that 'megatron_core' names",
    "adapters": "loads further adapters",
}


def check(config: Mapping[str, Any], path: Path, stored: Mapping[str, TensorInfo]) -> None:
    """Refuse a configuration that asks for what no adapter needs.

    Args:
        config: its content.
        path: the file, for messages.
        stored: header of the adapter's weights.

    Raises:
        ModelError: naming the key.
    """
    _check_kind(config, path)
    for key, value in _flat(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"{path}: {key} is {value}; a finite number was expected")
    sizes = [(key, config.get(key)) for key in _SIZES]
    patterns = {key: config.get(key) or {} for key in _TABLES}
    for key, pattern in patterns.items():
        if not isinstance(pattern, dict):
            raise ModelError(f"{path}: {key} is {pattern!r}; a table from module names to numbers was expected")
    if config.get("peft_type") != "ADALORA":
        sizes += [(f"rank_pattern.{name}", value) for name, value in patterns["rank_pattern"].items()]
    elif strange := [name for name, value in patterns["rank_pattern"].items() if not _says_which(value)]:
        raise ModelError(f"{path}: rank_pattern.{strange[0]} is no list of which ranks are kept")
    for key, value in sizes:
        # OFT counts blocks by r, where their size does not say how many there are.
        least = 0 if key in _MAY_BE_ZERO or (key == "r" and config.get("peft_type") == "OFT") else 1
        if value is not None and (type(value) is not int or not least <= value <= MAX_SIZE):
            raise ModelError(f"{path}: {key} is {value!r}; a whole number from {least} to {MAX_SIZE:,} was expected")
    numbers = [(key, config.get(key)) for key in _NUMBERS]
    numbers += [(f"alpha_pattern.{name}", value) for name, value in patterns["alpha_pattern"].items()]
    for key, value in numbers:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9):
            raise ModelError(f"{path}: {key} is {value!r}; a number was expected")
    _check_names(config, path)
    _check_ranks(config, path, stored)


def without_patterns(
    config: Mapping[str, Any], modules: Sequence[str], path: Path, parameters: Sequence[str] = ()
) -> dict[str, Any]:
    """The same configuration with every pattern replaced by the names that it matches.

    Args:
        modules: names of the base model's modules.
        parameters: names of its parameters; those that ``target_parameters`` adapts, such as the experts of a mixture
            in one tensor, have ranks and alphas, too.

    Raises:
        ModelError: a pattern is no regular expression, matches nothing, or takes too long to tell.
    """
    tables = {key: config.get(key) or {} for key in _TABLES}
    if config.get("peft_type") == "ADALORA":  # it says by parameters' own names which of their ranks are kept
        tables.pop("rank_pattern")
    patterns = _patterns(config, tables)
    ends = tuple(f".{one}" for one in config.get("target_parameters") or ())
    adapted = [*modules, *(name for name in parameters if f".{name}".endswith(ends))]
    try:
        found = matching(patterns, adapted)
    except PatternError as error:
        shown = error.key if error.key in config else error.key.partition(".")[0]
        pattern = repr(patterns[error.key][:60])
        raise ModelError(f"{path}: {shown} {pattern} {error.reason}") from None
    result = dict(config)
    known = set(modules)
    result |= {key: [name for name in found[key] if name in known] for key in _NAME_LISTS if key in found}
    targets = result.get("target_modules")
    if isinstance(targets, list) and not any(f".{name}".endswith(f".{one}") for one in targets for name in modules):
        shown = str(config["target_modules"])[:60]
        raise ModelError(f"{path}: target_modules {shown} matches no module of the base model; is it for another one?")
    for key, table in tables.items():
        expanded: dict[str, Any] = {}  # PEFT lets the first pattern that matches win
        for pattern, value in table.items():
            for name in map(re.escape, found.get(f"{key}.{pattern}", ())):
                expanded.setdefault(name, value)
            if _PLAIN.fullmatch(pattern):
                expanded.setdefault(pattern, value)
        result[key] = expanded
    return result


def _patterns(config: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Every pattern of a configuration, by its key: a whole one, and those in the tables."""
    from peft.utils.constants import DUMMY_TARGET_MODULES, INCLUDE_LINEAR_LAYERS_SHORTHAND

    return {
        key: value
        for key in _NAME_LISTS
        if isinstance(value := config.get(key), str)
        and value not in {INCLUDE_LINEAR_LAYERS_SHORTHAND, DUMMY_TARGET_MODULES}
    } | {
        # PEFT matches these at the end of a name.
        f"{key}.{pattern}": rf"(?:.*\.)?(?:{pattern})"
        for key, table in tables.items()
        for pattern in table
        if not _PLAIN.fullmatch(pattern)
    }


def _check_kind(config: Mapping[str, Any], path: Path) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = config.get("peft_type")
    known = sorted(str(one.value) for one in PEFT_TYPE_TO_CONFIG_MAPPING)
    if kind not in known:
        hint = did_you_mean(kind, known) if isinstance(kind, str) else ""
        raise ModelError(f"{path}: peft_type {kind!r} is none that PEFT has{hint}")
    for key, what in _REACHES_OUT.items():
        if config.get(key):
            raise ModelError(f"{path}: {key!r} {what}, which a file may not ask for")


def _check_names(config: Mapping[str, Any], path: Path) -> None:
    """Names that PEFT puts into patterns of its own must be plain; elsewhere a string or a list of strings will do."""
    for key in (*_NAME_LISTS, "modules_to_save", "layers_pattern", "target_parameters"):
        value = config.get(key)
        names = [value] if isinstance(value, str) else value
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ModelError(f"{path}: {key} is {value!r}; module names were expected")
        plain = isinstance(value, list) or key not in _NAME_LISTS
        for name in names or []:
            if plain and not _PLAIN.fullmatch(name):
                raise ModelError(f"{path}: {key} names {name!r}, which is no module's name")
    replication = config.get("layer_replication") or []
    try:
        repeated = sum(max(0, end - start) for start, end in replication)
    except (TypeError, ValueError):
        raise ModelError(f"{path}: layer_replication is {replication!r}; pairs of numbers were expected") from None
    if repeated > _MAX_REPEATED_LAYERS:
        raise ModelError(
            f"{path}: layer_replication makes {repeated:,} layers; at most {_MAX_REPEATED_LAYERS:,} are made"
        )


def _says_which(kept: Any) -> bool:
    return isinstance(kept, list) and len(kept) <= MAX_SIZE and all(isinstance(one, bool) for one in kept)


def _check_ranks(config: Mapping[str, Any], path: Path, stored: Mapping[str, TensorInfo]) -> None:
    """What a tuner allocates goes by its sizes, so none may exceed what is in the file: LoRA's rank that of its
    matrices, any other size the numbers of the largest tensor."""
    ranks = [info.shape[0] for name, info in stored.items() if ".lora_A." in name and info.shape]
    if config.get("peft_type") == "LORA":
        configured = [config.get("r") or 1, *(config.get("rank_pattern") or {}).values()]
        if strange := [one for one in configured if not isinstance(one, int)]:
            raise ModelError(f"{path}: a rank in r or rank_pattern is {strange[0]!r}; a whole number was expected")
        if ranks and max(configured) > max(ranks):
            raise ModelError(
                f"{path}: r is {max(configured):,}, but the matrices in the file have rank {max(ranks)} at most"
            )
        return
    largest = max((math.prod(info.shape) for info in stored.values()), default=0)
    for key in ("r", "num_virtual_tokens", "n_frequency", "num_vectors", "theta_d_length", "u"):
        if (config.get(key) or 0) > largest:
            raise ModelError(f"{path}: {key} is {config[key]:,}, and no tensor in the file has so many numbers")


def _flat(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _flat(value, f"{key}.{index}")
    else:
        yield key, content
