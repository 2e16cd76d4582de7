"""The recipe: what to tune, on what, how. TOML in, one validated frozen object out, TOML again beside the results.

Keys carry Hugging Face's names and meanings (``TrainingArguments``, ``LoraConfig``, the ``run_*`` scripts). Every
problem is reported at once, each with its key. Nothing here imports torch, so a typo costs milliseconds.
"""

from featherweight.recipe.paths import name_of
from featherweight.recipe.reading import load, load_data_section, parse, parse_set, with_values
from featherweight.recipe.sections import (
    ADAMW,
    DEFAULT_METHOD,
    FILE_KEYS,
    PACKAGE_PREFIX,
    DataSection,
    MethodOptions,
    ModelSection,
    Recipe,
    TrainingSection,
)
from featherweight.recipe.sweeping import Range, SweepSection
from featherweight.recipe.values import seconds_of
from featherweight.recipe.writing import dump, json_schema

__all__ = [
    "ADAMW", "DEFAULT_METHOD", "FILE_KEYS", "PACKAGE_PREFIX", "DataSection", "MethodOptions", "ModelSection", "Range",
    "Recipe", "SweepSection", "TrainingSection", "dump", "json_schema", "load", "load_data_section", "name_of", "parse",
    "parse_set", "seconds_of", "with_values",
]  # fmt: skip
