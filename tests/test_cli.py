"""The command line as its users meet it: real processes, exit codes, streams."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import terminal
import tiny
from warm import Warm

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.cli import build_parser, main
from featherweight.cli.arguments import quiet_libraries
from featherweight.errors import FeatherweightError
from featherweight.process import waiting

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    content = tiny.recipe(models("bert"), train_csv, method={"r": 8}, training={"num_train_epochs": 16})
    workflow.run(recipes.parse(content), folder)
    return folder


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, featherweight.cli; featherweight.cli.build_parser();"
        "early = {'numpy', 'pydantic'} & set(sys.modules);"
        "import featherweight.recipe;"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'sklearn', 'pyarrow', 'rich'} & set(sys.modules);"
        "raise SystemExit(f'loaded: {early | heavy}' if early | heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_config_error_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from featherweight.cli import main;"
        "code = main(['run', 'nowhere.toml']);"
        "raise SystemExit(99 if {'torch', 'transformers'} & set(sys.modules) else code)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2
    assert "nowhere.toml: no such recipe" in ended.stderr


def commands() -> list[list[str]]:
    return [
        [],
        ["run"],
        ["evaluate"],
        ["compare"],
        ["report"],
        ["predict"],
        ["serve"],
        ["export"],
        ["push"],
        ["demo"],
        ["completion"],
        ["inspect"],
        ["inspect", "data"],
        ["doctor"],
    ]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_that_parses(command: list[str], cli: Cli) -> None:
    ended = cli(*command, "--help")
    assert ended.returncode == 0
    if command in ([], ["inspect"]):
        return
    example = ended.stdout.partition("example:\n")[2].strip()
    assert example.startswith(f"featherweight {' '.join(command)}")
    import shlex

    build_parser().parse_args(shlex.split(example)[1:])
    for option in ("--json", "--quiet", "--debug"):
        assert option in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["rum"], "rum"),
        (["run"], "RECIPE"),
        (["run", "--modle", "x"], "--modle"),
        (["predict", "x"], "--text"),
        (["run", "--model", "m", "--data", "d", "--set", "oops"], "--set oops"),
        (["evaluate", "no-run-here"], "--data"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], named: str, cli: Cli) -> None:
    ended = cli(*arguments)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" not in cli("run", "nowhere.toml").stderr
    assert "Traceback" in cli("run", "nowhere.toml", "--debug").stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ZeroDivisionError("division by zero\nand more"), 70, "nobody foresaw: ZeroDivisionError: division by zero"),
        (KeyError("eval_accuracy"), 70, "KeyError: 'eval_accuracy'"),
        (AssertionError(), 70, "AssertionError"),
        (RuntimeError("x" * 5000), 70, "xxx"),
        (RecursionError("maximum recursion depth exceeded"), 70, "RecursionError"),
        (PermissionError(13, "Permission denied", "/etc/shadow"), 6, "/etc/shadow: Permission denied"),
        (MemoryError(), 6, "out of memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            6,
            "out of memory",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_row_80_what_nobody_foresaw_is_one_line(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch  # noqa: F401 - as in a process that got so far

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(workflow, "doctor", fail, raising=False)
    assert main(["doctor"]) == code
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    assert said in line
    assert len(line) < 500
    assert ("--debug" in line and "report" in line) == (code == 70)
    with pytest.raises(type(error)):
        main(["doctor", "--debug"])


def test_row_80_a_run_that_fails_early_does_not_block_the_next(
    models: Callable[[str], Path], train_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error comes after the base model was measured and its answers were written down."""
    folder = tmp_path / "runs" / "one"
    right = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
    with pytest.raises(FeatherweightError):
        workflow.run(recipes.parse(right | {"method": {"target_modules": ["no_such_module"]}}), folder)
    assert not folder.exists()
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("featherweight.workflow.training.trainer_for", lambda *_: 1 / 0)
        workflow.run(recipes.parse(right), folder)
    assert not folder.exists()
    folder.mkdir(parents=True)
    workflow.run(recipes.parse(right), folder)
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(FeatherweightError, match="holds a run already"):
        workflow.run(recipes.parse(right), folder)
    with pytest.raises(FeatherweightError, match="other settings"):
        workflow.run(recipes.parse(right | {"method": {"r": 2}}), folder, resume=True)
    assert sorted(path.name for path in folder.rglob("*")) == before, "a run that is there is never taken away"


def test_row_95_runs_without_a_recipe_do_not_meet(
    cli: Cli, models: Callable[[str], Path], train_csv: Path, tmp_path: Path
) -> None:
    for name in ("tickets", "reviews"):
        (tmp_path / f"{name}.csv").write_bytes(train_csv.read_bytes())
        ended = cli(
            "run",
            "--model",
            models("bert"),
            "--data",
            f"{name}.csv",
            "--set",
            "training.max_steps=1",
            "--set",
            "method.r=2",
        )
        assert ended.returncode == 0, ended.stderr
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f"{name}-{models('bert').name}" for name in ("tickets", "reviews")
    }


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "runs/oen", "--text", "x"],
        ["evaluate", "runs/oen"],
        ["evaluate", "runs/oen", "--data", "x.csv"],
        ["export", "runs/oen", "--format", "merged"],
        ["compare", "runs/oen"],
        ["report", "runs/oen"],
        ["serve", "runs/oen", "--port", "0"],
        ["inspect", "run", "runs/oen"],
        ["inspect", "model", "runs/oen"],
        ["run", "--model", "runs/oen", "--data", "x.csv", "--output-dir", "elsewhere"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_row_95_a_mistyped_run_is_not_looked_for_on_the_hub(
    command: list[str], run: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(run)
    (tmp_path / "x.csv").write_text("text,label\n" + "a,x\nb,y\n" * 4)
    ended = cli(*command, env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert ended.returncode in {2, 4}
    (line,) = ended.stderr.strip().splitlines()
    assert "did you mean 'runs/one'?" in line
    assert "hub" not in line


def test_a_run_prints_its_tables_and_no_control_characters(
    cli: Cli, models: Callable[[str], Path], train_csv: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        f'[model]\nname = "{models("bert")}"\n[data]\ntrain_file = "{train_csv}"\n[training]\nnum_train_epochs = 2\n'
    )
    ended = cli("run", path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs" / "small" / "metrics.json").exists(), "the default folder is runs/<recipe's name>"
    assert "\x1b" not in ended.stdout + ended.stderr
    assert "\r" not in ended.stdout + ended.stderr
    for part in (
        "Label shares", "Trainable parameters: ", "training loss", "validation loss", "accuracy", "eval_loss",
        "eval_accuracy", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "base model", "tuned model",
        "majority", "tfidf-logistic-regression", "exact McNemar p", "fixed", "broken",
    ):  # fmt: skip
        assert part in ended.stdout, part


def test_commands_are_forked_whatever_a_test_has_done(_warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them imports everything again, and the tests take a third longer."""
    import sklearn
    import torch._inductor.codecache

    assert all([sklearn, torch._inductor.codecache.cache_dir()])
    quiet_libraries()
    waiting.settle()
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", "elsewhere")
    assert _warm.unlike() == set()
    assert _warm.fits({**os.environ, "COLUMNS": "60"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert _warm.unlike() == {"HF_HUB_OFFLINE"}, "negative control: it was read when the libraries were imported"


def test_json_is_alone_on_standard_output(cli: Cli, run: Path, models: Callable[[str], Path], train_csv: Path) -> None:
    made = cli(
        "run", "--json", "--model", models("bert"), "--data", train_csv, "--output-dir", "out",
        "--set", "training.max_steps=1",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["schema_version"] == 1
    assert "Label shares" in made.stderr
    assert json.loads(cli("evaluate", run, "--json").stdout)["n"] == 60
    assert json.loads(cli("compare", run, "--json").stdout)["comparisons"][0]["n"] == 60
    assert json.loads(cli("doctor", "--json").stdout)["hardware"]["cores"] >= 1
    assert json.loads(cli("inspect", "data", train_csv, "--json").stdout)["splits"]["train"]["rows"] == 240


def test_predict_texts(cli: Cli, run: Path) -> None:
    plain = cli("predict", run, "--text", "great film", "--text", "dull plot")
    assert plain.returncode == 0, plain.stderr
    assert [line.split()[0] for line in plain.stdout.splitlines()] == ["pos", "neg"]
    answer = json.loads(cli("predict", run, "--text", "great film", "--json").stdout)
    (prediction,) = answer["predictions"]
    assert prediction["label"] == "pos"
    assert set(prediction["probabilities"]) == {"neg", "pos"}
    assert abs(sum(prediction["probabilities"].values()) - 1) < 1e-6


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_predict_gives_a_row_for_each_row(suffix: str, cli: Cli, run: Path, tmp_path: Path) -> None:
    from featherweight.sources.formats import format_of

    rows = [{"id": str(index), "text": text} for index, text in enumerate(["great film", "", "dull plot", "superb"])]
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    tiny.save(source, rows)
    ended = cli("predict", run, "--input", source, "--output", target)
    assert ended.returncode == 0, ended.stderr
    with target.open("rb") as stream:
        answered = [row for _, row in format_of(target).read(stream, "out")]
    assert [row["id"] for row in answered] == ["0", "1", "2", "3"]
    assert [answered[index]["prediction"] for index in (0, 2, 3)] == ["pos", "neg", "pos"]
    key = "probabilities" if suffix in {".jsonl", ".parquet"} else "probability_pos"
    assert all(key in row for row in answered)


def test_row_95_predict_knows_the_column_that_the_run_was_tuned_with(
    cli: Cli, models: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = [{"id": index, "review": one["text"], "stars": one["label"]} for index, one in enumerate(tiny.rows(80))]
    train = tiny.save_csv(tmp_path / "train.csv", rows)
    content = tiny.recipe(models("bert"), train, data={"text": "review", "label": "stars"}, training={"max_steps": 1})
    workflow.run(recipes.parse(content), tmp_path / "run", progress=False)
    workflow.export(tmp_path / "run", "onnx", tmp_path / "onnx")
    facts = tmp_path / "run" / "adapter" / "featherweight.json"
    for target in ("run", "run/adapter", "onnx"):
        ended = cli("predict", target, "--input", train, "--output", "out.csv")
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / "out.csv").read_text().startswith("id,review,stars,prediction")
    before = {key: value for key, value in json.loads(facts.read_text()).items() if key != "text_column"}
    facts.write_text(json.dumps(before))
    assert cli("predict", "run", "--input", train, "--output", "out.csv").returncode == 0, "a run of an earlier version"
    (tmp_path / "new.csv").write_text("text\ngreat film\n")
    assert cli("predict", "run", "--input", "new.csv", "--output", "out.csv").returncode == 0, (
        "text goes without saying"
    )
    wrong = cli("predict", "run", "--input", train, "--output", "out.csv", "--column", "text")
    assert wrong.returncode == 3
    assert "no column 'text'" in wrong.stderr


def test_row_98_an_adapters_base_that_lies_elsewhere_here_is_named(cli: Cli, train_csv: Path, tmp_path: Path) -> None:
    base = tiny.save_model(tmp_path / "made-here", "bert", dropout=0.1)
    workflow.run(
        recipes.parse(tiny.recipe(base, train_csv, training={"max_steps": 2})), tmp_path / "run", progress=False
    )
    before = cli("predict", "run", "--text", "great film", "--json").stdout
    base.rename(tmp_path / "elsewhere")
    other = tiny.save_model(tmp_path / "other", "bert", seed=5)
    for target in ("run", "run/adapter"):
        lost = cli("predict", target, "--text", "great film")
        assert lost.returncode == 2
        assert "say where it is with --base-model" in lost.stderr
        found = cli("predict", target, "--text", "great film", "--json", "--base-model", "elsewhere")
        assert found.stdout == before, found.stderr
        wrong = cli("predict", target, "--text", "great film", "--base-model", other)
        assert wrong.returncode == 4
        assert "which has changed since" in wrong.stderr
    measured = cli("evaluate", "run", "--json", "--base-model", "elsewhere")
    assert json.loads(measured.stdout)["own_held_out_rows"] is True, measured.stderr
    written = cli("export", "run", "--format", "merged", "--output-dir", "merged", "--base-model", "elsewhere")
    assert written.returncode == 0, written.stderr
    assert "is no adapter" in cli("predict", "merged", "--text", "x", "--base-model", "elsewhere").stderr


def test_predict_in_a_pipe(cli: Cli, run: Path) -> None:
    piped = cli("predict", run, "--input", "-", input='{"text": "great film"}\n{"text": "dull"}\n')
    assert [json.loads(line)["prediction"] for line in piped.stdout.splitlines()] == ["pos", "neg"]
    wrong = cli("predict", run, "--input", "-", input='{"txet": "great film"}\n')
    assert wrong.returncode == 3
    assert "'txet'" in wrong.stderr


def test_predict_leaves_no_half_written_file(cli: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "great film"}\n' * 3000 + '{"text": "cut')
    ended = cli("predict", run, "--input", "in.jsonl", "--output", "out.csv")
    assert ended.returncode == 3
    assert "line 3001" in ended.stderr
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_inspect_data_shows_shares_lengths_and_repeats(cli: Cli, tmp_path: Path) -> None:
    rows = [*tiny.rows(40), {"text": "the same", "label": "pos"}, {"text": "The  same ", "label": "pos"}]
    tiny.save_csv(tmp_path / "a.csv", rows)
    tiny.save_csv(tmp_path / "b.csv", [{"text": "the SAME", "label": "pos"}, *tiny.rows(4, seed=77)])
    found = json.loads(cli("inspect", "data", "a.csv", "b.csv", "--json").stdout)
    assert found["splits"]["train"]["rows"] == 42
    assert found["splits"]["train"]["label_shares"]["pos"] == pytest.approx(22 / 42)
    assert found["splits"]["train"]["repeated_texts"] >= 1
    assert found["shared_texts"]["train and validation"] >= 1
    assert "a.csv" in cli("inspect", "data", "a.csv", "b.csv").stdout
    refused = cli("inspect", "data", "a.csv", "--set", "training.seed=3")
    assert refused.returncode == 2
    assert "--set training: data is looked at by the keys of its own section" in refused.stderr


def test_no_color_and_terminal(run: Path, tmp_path: Path) -> None:
    """On a terminal there is colour unless NO_COLOR is set."""
    assert re.search(r"\x1b\[[0-9;]*m", terminal.written(["compare", run], tmp_path))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.written(["compare", run], tmp_path, NO_COLOR="1"))


def test_row_94_a_terminal_shows_how_far_training_is_and_how_long_it_takes(
    models: Callable[[str], Path], train_csv: Path, tmp_path: Path
) -> None:
    settings = ["per_device_train_batch_size=1", "max_steps=900", "logging_steps=900", "eval_steps=900"]
    assignments = [part for one in settings for part in ("--set", f"training.{one}")]
    output = terminal.written(
        ["run", "--model", models("bert"), "--data", train_csv, "--output-dir", "out", *assignments], tmp_path
    )
    shown = terminal.lines(output)
    assert (tmp_path / "out" / "metrics.json").is_file(), output
    training = [line for line in shown if re.search(r"training .*\d+/900 ", line)]
    assert len({re.search(r"(\d+)/900", line)[1] for line in training}) > 5, "it moves between two logged steps"
    assert any(re.search(r"\d\d:\d\d left", line) for line in training)
    assert any("samples/s" in line and "loss" in line for line in training)
    assert max(map(len, training)) <= 80
    for what in ("reading the data", "loading the model", "checking the data", "measuring the baseline", "publishing"):
        assert any(what in line and re.search(r"\d:\d\d:\d\d", line) for line in shown), what


def test_row_94_python_gets_bars_unless_it_wants_none(
    models: Callable[[str], Path], train_csv: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipes.parse(tiny.recipe(models("bert"), train_csv, training={"num_train_epochs": 1}))
    record = workflow.run(recipe, tmp_path / "one")
    written = capfd.readouterr()
    assert written.out == ""
    assert re.search(r"training:.*\d+/23 .*steps.*loss", written.err)
    assert "evaluating the tuned model" in written.err
    workflow.run(recipe, tmp_path / "two", progress=False)
    assert capfd.readouterr() == ("", "")
    shown = repr(record).splitlines()
    assert len(shown) == 5
    assert shown[0] == f"RunRecord({str(tmp_path / 'one')!r})"
    assert f"{record.metrics['tuned']['eval_accuracy']:.4f} after" in shown[2]
    assert record.metrics["headline"].split(".")[0] in shown[1]


def test_public_names_are_pinned() -> None:
    import featherweight

    assert sorted(featherweight.__all__) == [
        "Cluster", "FeatherweightError", "Recipe", "__version__", "compare", "evaluate", "export_run", "learning_curve",
        "load_predictor", "load_recipe", "load_run", "predict", "push", "run", "run_on_ray", "run_seeds", "sweep",
        "sweep_on_ray", "write_report",
    ]  # fmt: skip
    for name in featherweight.__all__:
        assert getattr(featherweight, name) is not None
