"""``sweep``: trials are the runs that they would be alone, choose on validation, and are compared on rows that chose
nothing; nothing is lost where it is killed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny
from conftest import ROOT
from test_reliability import STEP, striking
from test_run import files_of

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.answers import headline
from featherweight.answers.label import Label
from featherweight.errors import ConfigError, OutOfMemory, ResourceError
from featherweight.evidence import selection, winner
from featherweight.inference.predictor import load_predictor
from featherweight.recipe import Range
from featherweight.records.answers import Answers
from featherweight.runs.directory import RunDirectory
from featherweight.runs.predictions import Predictions
from featherweight.workflow import defaults, running, searching, trying
from featherweight.workflow.searching import Search

Models = Callable[[str], Path]
Found = dict[str, Any]

SWEPT = {
    "trials": 6,
    "parameters": {
        "method.name": ["lora", "full"],
        "method.init_lora_weights": [True, "pissa"],
        "training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    },
    # Two that change the base model's own weights, one that can't train, one that learns more than all others.
    "first": [
        {"method.name": "full"},
        {"method.init_lora_weights": "pissa"},
        {"training.learning_rate": 1e9},
        {"training.learning_rate": 2e-2},
    ],
}


def content_of(models: Models, train_csv: Path, sweep: Any, **training: Any) -> Found:
    settings = {"learning_rate": 1e-5, "num_train_epochs": 2, **training}
    return {**tiny.recipe(models("bert"), train_csv, training=settings), "sweep": sweep}


@pytest.fixture(scope="module")
def made(models: Models, train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep, in which what is measured before training is counted."""
    folder = tmp_path_factory.mktemp("sweep") / "six"
    counted: list[Path] = []
    measure = running.measure_baselines

    def counting(prepared: Any, directory: RunDirectory, *rest: Any) -> Any:
        counted.append(directory.path)
        return measure(prepared, directory, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "measure_baselines", counting)
        workflow.sweep(recipes.parse(content_of(models, train_csv, SWEPT)), folder)
    assert counted == [folder / "trials" / "000"], "the rivals and the base model once for all"
    return folder


def found_in(folder: Path) -> Found:
    found: Found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return found


def without_times(trials: list[Found]) -> list[Found]:
    return [{key: value for key, value in one.items() if key != "seconds"} for one in trials]


def evaluations(folder: Path) -> list[Found]:
    events = [event for event in RunDirectory(folder).read_history() if event["event"] == "evaluation"]
    timed = ("_runtime", "_per_second")
    return [
        {key: value for key, value in one["metrics"].items() if not key.endswith(timed)}
        | {"loss": one["training_loss"]}
        for one in events
    ]


def test_what_a_sweep_leaves(made: Path) -> None:
    found = found_in(made)
    jsonschema.validate(found, json.loads((ROOT / "docs" / "sweep.schema.json").read_text(encoding="utf-8")))
    assert {path.name for path in made.iterdir()} == {
        "recipe.toml", "history.jsonl", "trials", "winner", "default", "report.html", "sweep.json",
    }  # fmt: skip
    assert [one["state"] for one in found["trials"][:5]] == ["complete", "complete", "complete", "failed", "complete"]
    assert found["trials"][3]["reason"].startswith("training diverged")
    assert found["trials"][0]["settings"] == {
        "method.name": "lora", "method.init_lora_weights": True, "training.learning_rate": 1e-5,
    }  # fmt: skip
    assert found["trials"][1]["settings"] == {"method.name": "full", "training.learning_rate": 1e-5}
    assert (found["winner"]["trial"], found["default"], found["budget"]["ended_by"]) == (4, "default", "trials")
    kept = {path.parent.name for path in made.glob("trials/*/checkpoints")}
    assert kept == {"000", "004"}, "of the recipe as it stands and of the best"
    assert not list(made.glob("trials/*/predictions/tuned-*")), "no trial answered the rows that are reported"
    assert found["headline"] in (made / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_a_trial_is_the_run_that_it_is_alone(made: Path, tmp_path: Path, cli: Any) -> None:
    """To the byte, behind trials that changed all weights, and weights within the base model."""
    for name, recipe in (("winner", made / "winner"), ("pissa", made / "trials" / "002")):
        ended = cli("run", recipe / "recipe.toml", "--output-dir", name)
        assert ended.returncode == 0, ended.stderr
    assert evaluations(tmp_path / "pissa") == evaluations(made / "trials" / "002")
    one, alone, default = (
        files_of(path / "adapter") for path in (made / "winner", tmp_path / "winner", made / "default")
    )
    assert (
        one["adapter_model.safetensors"] == alone["adapter_model.safetensors"] != default["adapter_model.safetensors"]
    )
    ours, theirs = (RunDirectory(path).read_metrics() for path in (made / "winner", tmp_path / "winner"))
    for key in ("comparison", "rungs", "epochs", "best_step", "data_checks", "headline"):
        assert ours[key] == theirs[key], key
    assert ours["resources"]["tuning"]["seconds"] > 0.5 * ours["resources"]["train_runtime"], (
        "the trial's, not the last look's"
    )
    assert ours["reliability"]["resumes"] == []


def test_the_verdict_is_of_rows_that_chose_nothing(made: Path) -> None:
    found = found_in(made)
    assert (found["evaluated_split"], found["held_out"]) == ("test", 0.2)
    sides = [made / "default", made / "winner"]
    (compared,) = workflow.compare([str(side) for side in sides])["comparisons"]
    for key in ("difference", "p_value", "fixed", "broken", "n"):
        assert found["comparison"][key] == compared[key]
    assert f"{found['comparison']['p_value']:.3g}" in found["headline"]
    shown = found["comparison"]["verdict"]
    said = f"The winner of 6 trials is {shown} than" if shown != "no-difference" else "No difference is shown between"
    assert found["headline"].startswith(said)
    metrics = RunDirectory(made / "winner").read_metrics()
    flattery = found["selection"]
    assert flattery["candidates"] == 2 * sum(one["state"] == "complete" for one in found["trials"]) + sum(
        one["state"] == "pruned" for one in found["trials"]
    )
    assert flattery["untouched"] == metrics["tuned"]["eval_accuracy"]
    assert flattery["chosen_on"] == found["trials"][4]["value"] == max(one["value"] or 0 for one in found["trials"])
    share, rows = flattery["chosen_on"], flattery["rows"]
    error = math.sqrt(share * (1 - share) / rows)
    assert flattery["optimism_at_most"] == pytest.approx(error * selection.expected_largest(flattery["candidates"]))


def test_the_winner_is_a_run_like_any_other(made: Path, cli: Any, tmp_path: Path) -> None:
    (answer,) = load_predictor(str(made / "winner")).predict(["a great and lovely film"])
    assert answer["label"] in {"neg", "pos"}
    refused = cli("predict", made, "--text", "a great film")
    assert refused.returncode == 4
    refused = cli("compare", made)
    assert (refused.returncode, str(made / "winner") in refused.stderr) == (4, True)


def test_a_finished_sweep_is_taken_up_for_more_trials_and_for_no_others(
    made: Path, models: Models, train_csv: Path, tmp_path: Path
) -> None:
    """Nothing that ended is made again, and there is no time for more; another recipe, or other parameters, are
    refused."""
    before, found = (made / "history.jsonl").read_bytes(), found_in(made)
    more = recipes.parse(content_of(models, train_csv, {**SWEPT, "trials": 9, "time_limit": "1 s"}))
    again = workflow.sweep(more, made, resume=True)
    assert (made / "history.jsonl").read_bytes() == before
    assert (again["budget"]["ended_by"], again["budget"]["trials"]) == ("time", 9)
    assert again | {"budget": found["budget"]} == found
    with pytest.raises(ConfigError, match="go on with --resume"):
        workflow.sweep(recipes.parse(content_of(models, train_csv, SWEPT)), made)
    with pytest.raises(ConfigError, match=r"training\.num_train_epochs was 2"):
        workflow.sweep(recipes.parse(content_of(models, train_csv, SWEPT, num_train_epochs=3)), made, resume=True)
    other = {**SWEPT, "parameters": SWEPT["parameters"] | {"training.weight_decay": [0.0, 0.1]}}
    with pytest.raises(ConfigError, match="other parameters"):
        workflow.sweep(recipes.parse(content_of(models, train_csv, other)), made, resume=True)
    assert (made / "history.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed_and_taken_up_again_the_trials_are_the_same(
    made: Path, models: Models, train_csv: Path, tmp_path: Path, cli: Any
) -> None:
    """A real process, killed in the middle of a trial's second epoch, and again where the winner is published."""
    recipe = tmp_path / "tiny.toml"
    parsed = recipes.parse(content_of(models, train_csv, SWEPT))
    recipe.write_text(recipes.dump(parsed, {}, tmp_path), encoding="utf-8")
    asked = ["sweep", str(recipe), "--output-dir", str(tmp_path / "out")]
    steps = RunDirectory(made / "winner").read_history()[-2]["step"]
    moments = [striking(STEP, steps + steps // 2 + 3, signal.SIGKILL)]
    moments += [striking("featherweight.workflow.running:publish", 1, signal.SIGKILL)]
    for number, moment in enumerate(moments):
        given = [*asked, *(["--resume"] if number else [])]
        code = f"{moment}\nimport sys, torch\ntorch.set_num_threads(1)\nfrom featherweight.cli import main\nsys.exit(main({given!r}))"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not (tmp_path / "out" / "sweep.json").exists()
        if number == 0:
            assert [path.name for path in (tmp_path / "out" / "trials" / "001" / "checkpoints").iterdir()]
    ended = cli(*asked, "--resume", "--json")
    assert ended.returncode == 0, ended.stderr
    found, whole = json.loads(ended.stdout), found_in(made)
    assert without_times(found["trials"]) == without_times(whole["trials"])
    assert found["winner"] == whole["winner"]
    assert found["comparison"] == whole["comparison"]
    one, other = (files_of(path / "winner" / "adapter") for path in (made, tmp_path / "out"))
    assert one["adapter_model.safetensors"] == other["adapter_model.safetensors"]


# What is tried ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("training.learning_rat", [1e-3], "unknown key (did you mean 'learning_rate'?)"),
        ("method.r", [8, 0], "method.r: input should be greater than or equal to 1 (got 0)"),
        ("method.r", {"low": 1, "high": 0}, "'low' has to be below 'high'"),
        ("method.r", {"low": 0, "high": 8, "log": True}, "above 0"),
        ("method.r", {"low": 1.5, "high": 8}, "valid integer"),
        ("method.r", 8, "a list of values, or { low = 1e-5"),
        ("method.name", ["lora", "ia33"], "(did you mean 'ia3'?)"),
        ("trainning.seed", [1, 2], "(did you mean 'training'?)"),
        ("data.split_seed", [1, 2], "decides which rows there are"),
        ("data.max_lenght", [1, 2], "(did you mean 'max_length'?)"),
        ("evidence.baselines", [[]], "is the same for all trials"),
        ("training.metric_for_best_model", ["eval_loss"], "what trials are compared by"),
    ],
)
def test_what_can_not_be_tried_is_refused_before_anything_is_read(key: str, values: Any, said: str) -> None:
    content = tiny.recipe("nowhere", "nothing.csv") | {"sweep": {"parameters": {key: values}}}
    with pytest.raises(ConfigError) as raised:
        recipes.parse(content)
    assert said in str(raised.value)
    assert "sweep.parameters" in str(raised.value)


def test_a_table_of_tables_reads_as_dotted_keys_and_is_written_so(tmp_path: Path) -> None:
    content = tiny.recipe("nowhere", "nothing.csv")
    nested = {"training": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}, "method": {"r": [2, 4]}}
    asked = {"parameters": nested, "first": [{"method": {"r": 4}}], "time_limit": "15 min", "prune": False}
    recipe = recipes.parse(content | {"sweep": asked})
    assert recipe.sweep is not None
    assert recipe.sweep.parameters == {
        "training.learning_rate": Range(low=1e-5, high=1e-2, log=True), "method.r": [2, 4],
    }  # fmt: skip
    (tmp_path / "r.toml").write_text(recipes.dump(recipe, {}, tmp_path), encoding="utf-8")
    assert recipes.load(tmp_path / "r.toml").sweep == recipe.sweep
    assert recipes.load(tmp_path / "r.toml", recipes.parse_set(["sweep.parameters.method.r=[8]"])).sweep != recipe.sweep
    assert recipes.with_values(recipe, {"method.name": "ia3"}).method.name == "ia3", "without what LoRA was asked"


def trial(number: int, settings: Found, value: float, **more: Any) -> Any:
    seen = [{"epoch": float(epoch), "step": epoch, "value": value - 0.1 * (2 - epoch)} for epoch in (1, 2)]
    return {
        "number": number, "settings": settings, "state": "complete", "reason": None, "value": value, "figures": {},
        "candidates": 1, "evaluations": seen, "epochs": 2.0, "seconds": 1.0, **more,
    }  # fmt: skip


def searched(seed: int, count: int) -> tuple[Search, list[Any]]:
    """Trials of a function whose best is a rate of 3e-3 and one method."""
    asked = {
        "training.learning_rate": Range(low=1e-5, high=1e-1, log=True), "method.r": [4, 8],
        "method.name": ["lora", "ia3"],
    }  # fmt: skip
    search = Search(asked, lambda key, chosen: key != "method.r" or chosen["method.name"] == "lora", seed, False)
    trials: list[Any] = []
    for number in range(count):
        settings = search.next(trials)
        assert settings is not None
        assert ("method.r" in settings) == (settings["method.name"] == "lora")
        value = -abs(math.log10(settings["training.learning_rate"]) + 2.5) - (settings["method.name"] == "ia3")
        trials.append(trial(number, settings, value))
    return search, trials


def test_what_comes_next_follows_from_the_trials_and_the_seed_alone() -> None:
    search, trials = searched(0, 25)
    assert search.next(trials[:12]) == trials[12]["settings"], "whoever asks, and whenever"
    assert searched(1, 12)[1] != trials[:12]
    early, late = (np.mean([one["value"] for one in part]) for part in (trials[:6], trials[-6:]))
    assert late > early + 0.5, "it learns"
    found = search.importance(trials)
    assert found is not None
    assert set(found["shares"]) == {"training.learning_rate", "method.name"}, "what every trial has"
    assert search.importance(trials[:7]) is None


def test_every_combination_is_tried_once() -> None:
    search = Search({"a.b": [1, 2], "c.d": Range(low=1, high=3)}, lambda key, chosen: True, 0, True)
    trials: list[Any] = [trial(0, {"a.b": 9, "c.d": 1}, 0.0)]  # the recipe's own, which is none of them
    while settings := search.next(trials):
        trials.append(trial(len(trials), settings, 0.0))
    assert len(trials) == 7
    assert len({json.dumps(one["settings"]) for one in trials}) == 7


def test_what_is_worse_than_the_median_at_the_same_epoch_is_given_up() -> None:
    search, trials = searched(0, 6)
    worst, best = ([{"epoch": 1.0, "step": 1, "value": value}] for value in (-9.0, 9.0))
    assert search.is_hopeless(trials, 2.0, worst)
    assert not search.is_hopeless(trials, 2.0, best)
    assert not search.is_hopeless(trials, 3.0, worst), "with those that were to last as long"
    assert not search.is_hopeless(trials[:3], 2.0, worst), "with enough of them"


def test_a_trial_ends_where_it_is_hopeless_or_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what goes wrong in one is a result, but a full disk is none, nor is what is wrong with the recipe itself."""
    run = RunDirectory(tmp_path)
    run.append_history({"event": "evaluation", "epoch": 1.0, "step": 5, "metrics": {"eval_accuracy": 0.4}})
    watch = trying.Watch(run, "eval_accuracy", lambda epochs, seen: epochs == 2 and seen[-1]["value"] < 0.5)
    watch.observe({"event": "stepping", "step": 5, "steps": 10, "epoch": 1.0})
    assert not watch.enough()
    watch.observe({"event": "evaluation"})
    assert watch.enough()
    assert watch.why() == ("pruned", "worse than the median of the trials before it after 1 of 2 epochs")
    late = trying.Watch(run, "eval_accuracy", lambda epochs, seen: False, until=0.0)
    assert late.enough()
    assert late.why()[0] == "stopped"

    def failing(error: Exception, number: int) -> Any:
        monkeypatch.setattr(trying, "train_only", lambda *_: (_ for _ in ()).throw(error))
        sitting = running.Sitting(SimpleNamespace())  # type: ignore[arg-type]
        return trying.try_out(lambda: None, number, {}, watch, sitting, lambda: False)  # type: ignore[arg-type,return-value]

    watch.epochs = 0.0
    for error in (OutOfMemory("out of memory; continue with: this"), ZeroDivisionError("by zero")):
        found = failing(error, 1)
        assert (found["state"], found["value"]) == ("failed", None)
        assert found["reason"] in {"out of memory", "ZeroDivisionError: by zero"}
        with pytest.raises(type(error)):
            failing(error, 0)
    with pytest.raises(ResourceError):
        failing(ResourceError("the disk is full"), 1)


def test_the_few_settings_that_matter() -> None:
    recipe = recipes.parse(tiny.recipe("m", "t.csv", training={"learning_rate": 1e-3, "num_train_epochs": 2.0}))
    values, first = defaults.search(recipe)
    assert values == {
        "training.learning_rate": [1e-3, 3e-3, 3e-4], "training.num_train_epochs": [2.0, 4.0], "method.r": [4, 16],
    }  # fmt: skip
    assert first == [
        {"training.learning_rate": 3e-3}, {"training.learning_rate": 3e-4}, {"training.num_train_epochs": 4.0},
        {"method.r": 16},
    ]  # fmt: skip
    fixed = recipes.with_values(recipe, {"training.max_steps": 9, "method.name": "full"})
    assert set(defaults.search(fixed)[0]) == {"training.learning_rate"}


def test_the_command_says_what_is_missing(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = cli("sweep", "--model", "nowhere", "--data", "nothing.csv")
    assert ended.returncode == 2
    assert "--defaults" in ended.stderr
    ended = cli("sweep", "--model", "nowhere", "--data", "nothing.csv", "--time-limit", "soon")
    assert (ended.returncode, "sweep.time_limit" in ended.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'featherweight\[sweep\]'"):
        searching.require_package()


# What it shows ---------------------------------------------------------------------------------------------------------


def test_nothing_is_claimed_where_neither_knows_anything() -> None:
    """As with shuffled labels: two that guess differ by chance now and then."""
    kind, rows = Label(["neg", "pos"]), 400
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, rows)

    def right(share: float) -> Predictions:
        said = np.where(generator.random(rows) < share, truth, 1 - truth)
        chances = np.eye(2, dtype=np.float32)[said] * 0.8 + 0.1
        return Predictions(np.arange(rows), kind, Answers({"probabilities": chances}), truth)

    sides = right(0.45), right(0.6)
    for shown, verdict in (("better", "better"), ("no-difference", "no-difference")):
        metrics = {"answer": "label", "rungs": {"majority": {"verdict": shown}}}
        compared = winner.compare((sides[0], metrics), (sides[1], metrics), 0)
        assert compared["verdict"] == verdict
        found = {"comparison": compared, "trials": [{}] * 4, "evaluated_split": "test"}
        said = winner.headline(found, Label)
        assert ("better than the recipe as it stands" in said) == (verdict == "better")
        assert ("Nothing is shown" in said) == (verdict != "better")
    assert headline(kind).name == "accuracy"
