"""Whatever comes in, what comes out is a result or one of our own errors: no traceback, no hang, no full memory.

Two hundred cases each; `make torture-inputs` sets FEATHERWEIGHT_CASES to 10,000.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight import recipe as recipes
from featherweight.errors import FeatherweightError, ModelError
from featherweight.methods.peft import strangers
from featherweight.sources import archives, data, models, packages, tensors
from featherweight.storage import names
from featherweight.tasks.columns import LabelColumns
from featherweight.tasks.sequence_classification import SequenceClassification

CASES = int(os.environ.get("FEATHERWEIGHT_CASES", "200"))
MAX_SECONDS = 5.0
MAX_GROWTH = 512 << 10  # KiB of resident memory beyond what the libraries took

many = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)

text = st.text(st.characters(codec=None), max_size=40)
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 10**30, float("nan"), float("inf")])
)
leaves = st.one_of(st.none(), st.booleans(), numbers, text)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    """What a first call loads is no part of its time."""
    strangers.check({"peft_type": "LORA"}, Path(), {})
    strangers.without_patterns({"target_modules": ".*"}, ["a"], Path())
    SequenceClassification(["a", "b"])
    __import__("datasets")
    __import__("huggingface_hub")


@contextmanager
def ours_only() -> Iterator[None]:
    """Nothing but a FeatherweightError, with a text of one line for each problem, in less than five seconds."""
    started = time.monotonic()
    try:
        yield
    except FeatherweightError as error:
        assert str(error).strip()
        assert error.exit_code in {2, 3, 4, 6}
    assert time.monotonic() - started < MAX_SECONDS


KEYS = {section: list(model.model_fields) for section, model in {
    "model": recipes.ModelSection, "data": LabelColumns, "training": recipes.TrainingSection
}.items()} | {"method": ["name", "r", "lora_alpha", "target_modules", "init_lora_weights", "rank_pattern"]}  # fmt: skip


@st.composite
def recipe_contents(draw: st.DrawFn) -> dict[str, Any]:
    """Near a recipe: the right keys, and any value."""
    content: dict[str, Any] = {"model": {"name": "m"}, "data": {"train_file": "t.csv"}, "method": {"name": "lora"}}
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from([*KEYS, "name", "task", "odd"]))
        if section in KEYS and draw(st.integers(0, 9)):
            content.setdefault(section, {})
            if isinstance(content[section], dict):
                content[section][draw(st.one_of(st.sampled_from(KEYS[section]), text))] = draw(anything)
        else:
            content[section] = draw(anything)
    return content


@many
@given(recipe_contents())
def test_recipes(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    with ours_only():
        recipe = recipes.load(None, content)
        (folder / "resolved.toml").write_text(recipes.dump(recipe, {}, folder), encoding="utf-8")
        assert recipes.load(folder / "resolved.toml") == recipe


@many
@given(
    st.one_of(
        st.binary(max_size=200),
        text.map(lambda one: one.encode("utf-8", "surrogatepass")),
        st.tuples(st.sampled_from("[{"), st.integers(1, 5000)).map(lambda one: b"a = " + one[0].encode() * one[1]),
    )
)
def test_recipe_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    path.write_bytes(content)
    with ours_only():
        recipes.load(path)
    with ours_only():
        recipes.parse_set([content.decode("utf-8", "replace"), f"model.name={content.decode('latin-1')}"])


cells = st.one_of(
    st.sampled_from(["text", "label", "a", "b", "0", "1", "-1", '"', '""', "\r", "\n", "\r\n", ",", ";", "\t"]), text
)
tables = st.lists(st.lists(cells, max_size=4), max_size=12).map(
    lambda rows: "text,label\n" + "\n".join(",".join(row) for row in rows)
)
objects = st.lists(
    st.one_of(
        anything.map(json.dumps),
        st.fixed_dictionaries({"text": anything, "label": leaves}).map(json.dumps),
        text,
        st.integers(1, 20_000).map(lambda depth: "[" * depth),
    ),
    max_size=8,
).map("\n".join)
contents = st.one_of(
    st.binary(max_size=400),
    tables.map(lambda one: one.encode("utf-8", "surrogatepass")),
    objects.map(lambda one: one.encode("utf-8", "surrogatepass")),
    st.tuples(tables, st.sampled_from(["utf-16", "utf-32", "latin-1", "utf-8-sig"])).map(
        lambda one: one[0].encode(one[1], "replace")
    ),
)


@many
@given(
    contents,
    st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".xlsx", ".conll", ".csv.gz", ".zip"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-7", "shift_jis"]),
    st.sampled_from([0.0, 0.5]),
)
def test_data_files(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, encoding: str, skipped: float
) -> None:
    path = tmp_path_factory.getbasetemp() / f"data{suffix}"
    path.write_bytes(content)
    section = LabelColumns(train_file=str(path), encoding=encoding, skip_bad_rows=skipped)
    with ours_only():
        _, examples = SequenceClassification.prepare(data.load(section), section, seed=0)
        assert all(text.strip() for split in examples.values() for text in split.all_texts())


entries = st.dictionaries(
    text,
    st.one_of(
        anything,
        st.fixed_dictionaries({
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4", "F99", 3]),
            "shape": st.lists(st.one_of(st.integers(0, 4), st.integers()), max_size=3),
            "data_offsets": st.lists(st.one_of(st.integers(0, 40), st.integers()), min_size=1, max_size=3),
        }),
    ),
    max_size=4,
)  # fmt: skip


@many
@given(
    st.one_of(st.binary(max_size=120), entries.map(lambda one: json.dumps(one).encode())),
    st.one_of(st.none(), st.integers(0, 2**64 - 1), st.integers(0, 200)),
    st.binary(max_size=64),
)
def test_safetensors(tmp_path_factory: pytest.TempPathFactory, header: bytes, length: int | None, body: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)
    with ours_only():
        tensors.read_header(path)
        tensors.require_finite(path)


@many
@given(
    st.fixed_dictionaries(
        {"peft_type": st.sampled_from(["LORA", "IA3", "VERA", 3])},
        optional={
            key: st.one_of(anything, st.sampled_from(["(.|.)*[!?]", "query", "(a|", "((a+)+)+[^a]"]))
            for key in (
                "r",
                "lora_alpha",
                "target_modules",
                "exclude_modules",
                "modules_to_save",
                "rank_pattern",
                "alpha_pattern",
                "layers_pattern",
                "layer_replication",
                "feedforward_modules",
                "lora_dropout",
                "megatron_config",
            )
        },
    )
)
def test_adapter_configurations(config: dict[str, Any]) -> None:
    modules = [f"bert.encoder.layer.{layer}.attention.self.{name}" for layer in range(4) for name in ("query", "value")]
    stored = {"base_model.lora_A.weight": tensors.TensorInfo("F32", (8, 4))}
    with ours_only():
        strangers.check(config, Path("adapter_config.json"), stored)
        found = strangers.without_patterns(config, modules, Path("adapter_config.json"))
        assert not isinstance(found.get("target_modules"), str) or found["target_modules"] == "all-linear"


parts = st.one_of(
    st.sampled_from(["..", ".", "", "a", "CON", "a/b", "/", "\\", "%2e%2e", "\0", "~", "~x", "x" * 300, "\u0430"]), text
)


@many
@given(st.lists(parts, max_size=5).map("/".join))
def test_names(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp()
    if names.path_problem(name) is None:
        assert (root / name).resolve().is_relative_to(root.resolve())
        assert (root / name).resolve() != root.resolve()
    for call in (
        lambda: models.find(name),
        lambda: models.find(f"package:peft/{name}"),
        lambda: archives.unpacked(name),
        lambda: recipes.load(None, {"name": name, "model": {"name": name}, "data": {"train_file": name}}),
        lambda: data.load(recipes.load(None, {"model": {"name": "x"}, "data": {"name": name or "x"}}).data),
        lambda: recipes.load(name),
    ):
        with ours_only():
            call()
    with ours_only():
        assert packages.locate(f"package:peft/{name}").is_relative_to(Path(__import__("peft").__file__).parent)


def test_the_guard_itself_fails_for_a_foreign_error() -> None:
    """Negative control."""
    with pytest.raises(KeyError), ours_only():
        raise KeyError("x")
    with ours_only():
        raise ModelError("one line")
