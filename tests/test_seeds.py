"""``run --seeds``: each seed is an ordinary run, and together they say how far seeds scatter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_run import files_of, run

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.engine.training.train import Trainer
from featherweight.errors import ConfigError, Interrupted
from featherweight.evidence import several
from featherweight.runs.directory import RunDirectory
from featherweight.statistics import resampling
from featherweight.statistics.additive import Additive, mean_of

Models = Callable[[str], Path]
Pairs = list[tuple[Additive, Additive]]


# The interval over rows and seeds ---------------------------------------------------------------------------------------


def drawn(rows: int, seeds: int, scatter: float, generator: np.random.Generator) -> Pairs:
    """Tuned models that are right more often by 0.1 in the mean over all seeds, and one base model."""
    hardness = generator.normal(0, 0.15, rows)
    chance = 0.65 + hardness + generator.normal(0, scatter, (seeds, 1))
    base = mean_of(generator.random(rows) < 0.55 + hardness)
    return [(base, mean_of(one)) for one in generator.random((seeds, rows)) < chance]


def held(pairs: Pairs, rows: int, over_seeds: bool) -> bool:
    units = np.arange(rows)
    if over_seeds:
        found = resampling.crossed(pairs, units, resamples=400, seed=0)
    else:
        found = np.mean(resampling.bootstrap(pairs, units, resamples=400, seed=0), axis=0)
    low, high = resampling.interval(found, 0.95)
    return low <= 0.1 <= high


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_holds_the_truth_of_other_rows_and_other_seeds(seeds: int) -> None:
    """Where seeds scatter as far as rows do. The interval of other rows alone, which is the negative control, holds it
    less often."""
    generator = np.random.default_rng(seeds)
    sets = [drawn(300, seeds, 0.06, generator) for _ in range(300)]
    of_both, of_rows = (np.mean([held(one, 300, way) for one in sets]) for way in (True, False))
    assert 0.92 <= of_both <= 0.99
    assert of_rows < of_both - 0.05


def test_seeds_that_agree_have_the_interval_of_one() -> None:
    (pair,) = drawn(200, 1, 0.0, np.random.default_rng(0))
    units = np.arange(200)
    one = resampling.bootstrap([pair], units, resamples=500, seed=3)[0]
    np.testing.assert_allclose(resampling.crossed([pair] * 4, units, resamples=500, seed=3), one, atol=1e-12)


# The command ------------------------------------------------------------------------------------------------------------


def content_of(models: Models, train_csv: Path, **training: Any) -> dict[str, Any]:
    settings = {"learning_rate": 5e-3, "num_train_epochs": 2, **training}
    return tiny.recipe(models("bert"), train_csv, training=settings)


@pytest.fixture(scope="module")
def made(models: Models, train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds") / "three"
    workflow.run_seeds(recipes.parse(content_of(models, train_csv)), 3, folder)
    return folder


def test_each_seed_is_the_run_that_it_is_alone(made: Path, models: Models, train_csv: Path, tmp_path: Path) -> None:
    assert {path.name for path in made.iterdir()} == {"seed-42", "seed-43", "seed-44", "seeds.json", "seeds.html"}
    run(content_of(models, train_csv, seed=43), tmp_path / "alone")
    one, alone = (files_of(path / "adapter") for path in (made / "seed-43", tmp_path / "alone"))
    assert one["adapter_model.safetensors"] == alone["adapter_model.safetensors"]
    assert (
        RunDirectory(made / "seed-43").read_environment()["identity"]
        == (RunDirectory(tmp_path / "alone").read_environment()["identity"])
    )
    ids = [RunDirectory(path).read_predictions("tuned", "validation").ids.tolist() for path in made.glob("seed-*")]
    assert ids[0] == ids[1] == ids[2], "measured on the same rows"


def test_what_each_chooses_for_its_own_sample_of_the_rows_keeps_none_out(models: Models, tmp_path: Path) -> None:
    """The head's rate is found from rows of train, of which each seed has others. All were trained, then refused."""
    train = tiny.save_csv(tmp_path / "train.csv", tiny.rows(240))
    content = tiny.recipe(models("bert"), train, data={"max_train_samples": 60}, training={"max_steps": 4})
    content["training"] = {"max_steps": 4}
    workflow.run_seeds(recipes.parse(content), [42, 43], tmp_path / "open")
    environments = {path.name: RunDirectory(path).read_environment() for path in (tmp_path / "open").glob("seed-*")}
    rate = "training.head_learning_rate"
    assert len({one["identity"][rate] for one in environments.values()}) == 2, "or nothing is tested here"
    assert all(rate in one["chosen"] and "training.max_steps" not in one["chosen"] for one in environments.values())
    found = RunDirectory(tmp_path / "open" / "seed-42").read_predictions("tuned", "validation")
    rows = several.table([(name, found) for name in environments], {})
    assert [one["runs"] for one in several.over_seeds(rows, environments, found.kind)] == [list(environments)]
    environments["seed-43"]["chosen"].remove(rate)
    assert not several.over_seeds(rows, environments, found.kind), "negative control: a rate that was given"


def test_what_they_show_together(made: Path) -> None:
    found = json.loads((made / "seeds.json").read_text())
    each = [json.loads((made / f"seed-{seed}" / "metrics.json").read_text()) for seed in (42, 43, 44)]
    for name in ("eval_accuracy", "eval_macro_f1"):
        values = [one["tuned"][name] for one in each]
        assert found["mean"][name] == pytest.approx(np.mean(values))
        assert found["standard_deviation"][name] == pytest.approx(np.std(values, ddof=1))
        assert found["range"][name] == pytest.approx([min(values), max(values)])
    pooled = found["pooled"]
    differences = [one["comparison"]["difference"] for one in each]
    assert pooled["difference"] == pytest.approx(np.mean(differences)), "a row counts with its mean over the seeds"
    low, high = pooled["confidence_interval"]
    assert low < pooled["difference"] < high
    assert pooled["verdict"] == ("better" if low > 0 else "worse" if high < 0 else "no-difference")
    assert [(one["seed"], one["verdict"]) for one in found["runs"]] == [
        (seed, one["comparison"]["verdict"]) for seed, one in zip((42, 43, 44), each, strict=True)
    ]
    html = (made / "seeds.html").read_text(encoding="utf-8")
    assert found["headline"] in html
    assert "standard deviation" in found["headline"]


def test_the_command_prints_a_table_or_json_and_touches_nothing_that_is_finished(
    models: Models, train_csv: Path, tmp_path: Path, cli: Any
) -> None:
    asked = ["run", "--model", models("bert"), "--data", train_csv, "--output-dir", "out", "--seeds", "7,3"]
    asked += ["--set", "training.max_steps=4", "--set", "training.learning_rate=1e-2"]
    ended = cli(*asked)
    assert ended.returncode == 0, ended.stderr
    for said in ("7", "3", "mean", "standard deviation", "seeds"):
        assert said in ended.stdout.rpartition("by seed")[2], said
    before = files_of(tmp_path / "out" / "seed-7" / "adapter")
    history = (tmp_path / "out" / "seed-7" / "history.jsonl").read_bytes()
    refused = cli(*asked)
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    again = cli(*asked, "--resume", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads((tmp_path / "out" / "seeds.json").read_text())
    assert files_of(tmp_path / "out" / "seed-7" / "adapter") == before
    assert (tmp_path / "out" / "seed-7" / "history.jsonl").read_bytes() == history
    other = cli(*asked, "--resume", "--set", "training.max_steps=5")
    assert other.returncode == 2
    assert "training.max_steps was 4, is 5" in other.stderr


def test_a_stop_in_the_second_run_is_taken_up_there(
    made: Path, models: Models, train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.parse(content_of(models, train_csv))
    fit = Trainer.fit

    def stopping(self: Any, resume: Any = None) -> Any:
        if self.settings.seed == 43:
            self.hooks = replace(self.hooks, stop=lambda: self.progress.step >= 3)
        return fit(self, resume)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", stopping)
        with pytest.raises(Interrupted, match="continue with: this"):
            workflow.run_seeds(recipe, 3, tmp_path / "out", continue_with="this")
    assert not (tmp_path / "out" / "seeds.json").exists()
    assert not (tmp_path / "out" / "seed-44").exists()
    workflow.run_seeds(recipe, 3, tmp_path / "out", resume=True)
    for seed in (42, 43, 44):
        one, other = (files_of(path / f"seed-{seed}" / "adapter") for path in (made, tmp_path / "out"))
        assert one["adapter_model.safetensors"] == other["adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("given", "said"), [("1", "2 or more"), ("3,3", "twice"), ("-1,2", "is no seed"), ("x", "1,2,3")]
)
def test_seeds_that_can_not_be_are_refused(given: str, said: str, cli: Any) -> None:
    ended = cli("run", "--model", "nowhere", "--data", "nothing.csv", f"--seeds={given}")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "nowhere" not in ended.stderr, "before anything is looked for"


def test_a_folder_with_a_single_run_is_refused(made: Path, models: Models, train_csv: Path) -> None:
    with pytest.raises(ConfigError, match="holds a single run"):
        workflow.run_seeds(recipes.parse(content_of(models, train_csv)), 2, made / "seed-42", resume=True)
