"""Killed, stopped, full and broken: every run here is a process of its own, and the fault is a real one (faults.c,
signals, a small disk). Named by the rows of the fault list."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import injector
import pytest
import tiny
from injector import striking, wrapping
from torture import CASES, Torture, outcome

from featherweight.engine.fast.products import PRODUCTS, works
from featherweight.engine.training.checkpoints import Checkpoints, read
from featherweight.errors import ModelError
from featherweight.runs.directory import RunDirectory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torture]:
    if shutil.which("cc") is None or not sys.platform.startswith("linux"):
        pytest.skip("the faults need Linux and a C compiler")
    cache = os.environ["FEATHERWEIGHT_CACHE"]
    made = Torture(tmp_path_factory.mktemp("torture"))
    yield made
    made.close()
    os.environ["FEATHERWEIGHT_CACHE"] = cache


STEP = "featherweight.engine.training.train:Trainer._train_step"


def resume(torture: Torture, case: str, out: Path, **options: Any) -> injector.Ended:
    return torture.injector.run([*torture.arguments(case, out), "--resume"], **options)


def assert_resumes(torture: Torture, case: str, out: Path) -> None:
    ended = resume(torture, case, out)
    assert ended.code == 0, ended.errors
    assert outcome(out) == torture.reference(case).outcome
    assert not list(out.rglob(".*")), "nothing is left lying about"


def spread(count: int, points: int) -> list[int]:
    return sorted({1 + round(index * (count - 1) / (points - 1)) for index in range(points)})


# A. Killed.


def test_row_01_killed_inside_a_save(torture: Torture, tmp_path: Path) -> None:
    """A spread over every change of a file below ``checkpoints``: before it, or in the middle of a write."""
    out = tmp_path / "count"
    counted = torture.injector.run(torture.arguments("packed", out), below=out / "checkpoints")
    assert counted.calls > 150
    in_a_save = 0
    for number, at in enumerate(spread(counted.calls, 10)):
        out = tmp_path / str(at)
        action = ("kill", "tear")[number % 2]
        ended = torture.injector.run(torture.arguments("packed", out), below=out / "checkpoints", at=at, action=action)
        assert ended.code == -signal.SIGKILL
        in_a_save += any((out / "checkpoints").glob(".*"))
        assert_resumes(torture, "packed", out)
    assert in_a_save >= 5


def test_row_01_killed_at_random(torture: Torture) -> None:
    """The short version of ``make torture``."""
    records = [torture.kill(index, seed=7) for index in range(8)]
    assert all(record["same"] and record["code"] == 0 for record in records), records
    assert {record["case"] for record in records} == set(CASES)


def test_every_case_takes_the_path_that_it_is_named_after(torture: Torture) -> None:
    for case in CASES:
        torture.reference(case)
        run = RunDirectory(torture.folder / f"reference-{case}")
        batches = "padded" if case == "padded" else "packed"
        assert run.read_environment()["execution"]["batches"] == batches
        trunk = run.read_metrics()["trunk_cache"]
        assert (trunk is not None) == (case == "trunk-cache")


@pytest.mark.parametrize("case", CASES)
def test_row_02_killed_between_two_steps(case: str, torture: Torture, tmp_path: Path) -> None:
    """In the middle of an epoch, with dropout, shuffling, accumulation and warm-up."""
    code = striking(STEP, 6, signal.SIGKILL)
    ended = torture.injector.run(torture.arguments(case, tmp_path / "run"), code=code)
    assert ended.code == -signal.SIGKILL
    assert Checkpoints(tmp_path / "run" / "checkpoints", 1).steps() == [2, 4]
    assert_resumes(torture, case, tmp_path / "run")


@pytest.mark.parametrize(
    "moment",
    [
        striking("featherweight.engine.training.train:Trainer._evaluate", 1, signal.SIGKILL),
        striking("featherweight.workflow.running:publish", 1, signal.SIGKILL),
    ],
    ids=["epoch boundary", "after the last step"],
)
def test_row_03_killed_at_a_boundary(moment: str, torture: Torture, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert torture.injector.run(torture.arguments("packed", out), code=moment).code == -signal.SIGKILL
    assert_resumes(torture, "packed", out)
    steps = [event["step"] for event in RunDirectory(out).read_history() if event["event"] == "step"]
    assert steps == list(range(1, 17)), "no step twice, none left out"


DRAWN = wrapping(
    "featherweight.engine.fast.dropout:Masks.start",
    "import random, numpy, torch\n"
    "drawn = random.randrange(999), numpy.random.randint(999), int(torch.randint(999, ()))\n"
    "arguments = (arguments[0], hash(drawn) % 2**32)",
)


def test_row_04_the_comparison_can_fail(torture: Torture, tmp_path: Path) -> None:
    """Masks that depend on Python's, NumPy's and torch's generators: the same with their states restored, and, the
    negative control, not without; nor where a step's own stream is not started."""
    whole = tmp_path / "whole"
    assert torture.injector.run(torture.arguments("packed", whole), code=DRAWN).code == 0
    assert outcome(whole) != torture.reference("packed").outcome
    killed = tmp_path / "killed"
    ended = torture.injector.run(torture.arguments("packed", killed), code=DRAWN + striking(STEP, 6, signal.SIGKILL))
    assert ended.code == -signal.SIGKILL
    shutil.copytree(killed, tmp_path / "forgetful")
    assert resume(torture, "packed", killed, code=DRAWN).code == 0
    assert outcome(killed) == outcome(whole)
    forget = "from featherweight.engine.training import randomness\nrandomness.restore = lambda states: None\n"
    assert resume(torture, "packed", tmp_path / "forgetful", code=DRAWN + forget).code == 0
    assert outcome(tmp_path / "forgetful") != outcome(whole)


# Signals.

STAGES = {
    "reading data": ("featherweight.sources.data:load", 1),
    "tokenising": ("featherweight.tasks.sequence_classification:SequenceClassification.encode", 1),
    "checking the data": ("featherweight.evidence.data.checks:check", 1),
    "a baseline": ("featherweight.evidence.baselines.labels:TfidfLogisticRegression.predict", 1),
    "evaluating the base": ("featherweight.engine.running.execution:Execution.outputs", 1),
    "the first step": (STEP, 1),
    "between micro-batches": ("featherweight.engine.training.train:Trainer._gradients", 5),
    "evaluating": ("featherweight.engine.training.train:Trainer._evaluate", 1),
    "saving": ("featherweight.engine.training.checkpoints:_write", 3),
    "publishing": ("featherweight.workflow.publishing:assess", 1),
    "the gate": ("featherweight.workflow.gate:require_same_answers", 1),
    "the report": ("featherweight.report.page:one_run", 1),
}


def command_in(errors: str) -> list[str]:
    """The arguments of the command that a stopped run says continues it."""
    (line,) = [line for line in errors.splitlines() if "continue with: " in line]
    command = shlex.split(line.partition("continue with: ")[2])
    assert command[0] == "featherweight"
    return command[1:]


@pytest.mark.parametrize("stage", STAGES)
def test_row_05_sigterm_at_every_stage(stage: str, torture: Torture, tmp_path: Path) -> None:
    """Exit 75, and the very command that it names continues to the same bytes."""
    out = tmp_path / "a run"
    number = signal.SIGINT if stage in {"tokenising", "the report"} else signal.SIGTERM  # row 06: the same
    ended = torture.injector.run(torture.arguments("packed", out), code=striking(*STAGES[stage], number))
    assert ended.code == 75, ended.errors
    assert "Traceback" not in ended.errors
    assert not (out / "metrics.json").exists()
    again = torture.injector.run(command_in(ended.errors))
    assert again.code == 0, again.errors
    assert outcome(out) == torture.reference("packed").outcome


def test_row_05_a_signal_while_libraries_are_imported(torture: Torture, tmp_path: Path) -> None:
    """A process that is started for this, which imports for seconds."""
    arguments = torture.arguments("packed", tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "featherweight", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.endswith(" torch._C\n") or line.endswith("numpy\n"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 75, rest[-2000:]
    assert "continue with: featherweight run" in rest
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stage", ["saving", "the first step", "publishing"])
def test_row_06_the_second_signal_stops_at_once(
    stage: str, number: signal.Signals, torture: Torture, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = torture.injector.run(torture.arguments("packed", out), code=striking(*STAGES[stage], number, number))
    assert ended.code in {75, 130}, ended.errors
    assert not (out / "metrics.json").exists()
    assert_resumes(torture, "packed", out)


# Disks.


@pytest.mark.parametrize("error", [injector.FULL, injector.QUOTA])
def test_row_07_the_disk_fills_up(error: int, torture: Torture, tmp_path: Path) -> None:
    """From any change of a file on, every one fails: exit 6 in one line, and with room again the run resumes."""
    total = torture.reference("packed").calls
    for at in spread(total, 6)[1:-1]:
        out = tmp_path / str(at)
        ended = torture.injector.run(
            torture.arguments("packed", out), below=out, at=at, action="fail from", error=error
        )
        assert ended.code == 6, ended.errors
        assert "bytes free" in ended.errors.splitlines()[-1]
        assert "Traceback" not in ended.errors
        assert_resumes(torture, "packed", out)


def test_row_07_the_message_says_how_much(torture: Torture, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = torture.injector.run(
        torture.arguments("packed", out), below=out / "checkpoints", at=60, action="fail from", error=injector.FULL
    )
    assert ended.code == 6
    assert re.search(r"No space left on device \([\d,]+ bytes needed, [\d,]+ bytes free\)", ended.errors)
    assert Checkpoints(out / "checkpoints", 2).newest() is not None, "the checkpoints before are whole"


def test_rows_07_and_08_on_a_small_disk(torture: Torture, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        out = disk / "run"
        ended = torture.injector.run(torture.arguments("packed", out))
        assert ended.code == 6
        assert re.search(r"the run needs [\d,]+ bytes and [\d,]+ are free", ended.errors)
        assert "--force" in ended.errors
        assert not list(out.glob("checkpoints/step-*")), "before the first step"
        forced = torture.injector.run([*torture.arguments("packed", out), "--resume", "--force"])
        assert forced.code == 6
        assert "bytes free" in forced.errors
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert_resumes(torture, "packed", out)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("error", [injector.QUOTA, injector.READ_ONLY, injector.FORBIDDEN])
def test_row_09_a_folder_that_cannot_be_written(error: int, torture: Torture, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = torture.injector.run(torture.arguments("packed", out), below=out, at=1, action="fail from", error=error)
    assert ended.code == 6
    assert str(out) in ended.errors
    assert os.strerror(error) in ended.errors
    assert not (out / "history.jsonl").exists(), "before the first step"


# Damage.


@pytest.fixture(scope="module")
def stopped(torture: Torture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after step 9 of 16, in the second epoch."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    code = striking(STEP, 9, signal.SIGTERM)
    assert torture.injector.run(torture.arguments("packed", out), code=code).code == 75
    assert Checkpoints(out / "checkpoints", 2).steps() == [8, 9]
    return out


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2]])
def test_row_10_empty_and_truncated_files(
    damage: Callable[[bytes], bytes], name: str, torture: Torture, run: Path
) -> None:
    path = run / "checkpoints" / "step-000009" / name
    path.write_bytes(damage(path.read_bytes()))
    warnings: list[str] = []
    found = Checkpoints(run / "checkpoints", 2).newest(warnings.append)
    assert found is not None
    assert found.step == 8
    assert "step-000009" in warnings[0]


def test_row_11_a_flipped_bit(torture: Torture, run: Path) -> None:
    path = run / "checkpoints" / "step-000009" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    named = torture.injector.run([*torture.arguments("packed", run), "--resume", str(path.parent)])
    assert named.code == 4
    assert "optimizer.safetensors" in named.errors
    assert "checksum" in named.errors
    assert_resumes(torture, "packed", run)


def test_row_12_all_damaged_or_none(torture: Torture, run: Path, tmp_path: Path) -> None:
    for path in (run / "checkpoints").glob("*/state.json"):
        path.write_text("{}")
    ended = resume(torture, "packed", run)
    assert ended.code == 4
    assert "no checkpoint is whole" in ended.errors
    none = resume(torture, "packed", tmp_path / "none")
    assert none.code == 0
    assert "starting from the beginning" in none.errors


def test_row_13_other_settings(torture: Torture, run: Path, tmp_path: Path) -> None:
    changed = torture.arguments("packed", run, training__seed=1, method__r=2, training__per_device_train_batch_size=4)
    ended = torture.injector.run([*changed, "--resume"])
    assert ended.code == 2
    for difference in (
        "training.seed was 42, is 1", "method.r was 4, is 2", "training.per_device_train_batch_size was 3, is 4",
    ):  # fmt: skip
        assert difference in ended.errors
    other = tiny.save_model(tmp_path / "other", "bert", dropout=0.1, seed=1)
    ended = torture.injector.run([*torture.arguments("packed", run), "--model", str(other), "--resume"])
    assert ended.code == 2
    assert "model was" in ended.errors
    stranger = tmp_path / "stranger"
    arguments = torture.arguments("packed", stranger, method__r=2)
    ended = torture.injector.run([*arguments, "--resume", str(run / "checkpoints" / "step-000009")])
    assert ended.code == 2
    assert "method.r was 4, is 2" in ended.errors


def test_row_14_a_run_that_moved(torture: Torture, run: Path, tmp_path: Path) -> None:
    for path in (run / "checkpoints").rglob("*.json"):
        assert "/" not in path.read_text().replace('"/', ""), f"{path}: a path"
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    run.rename(moved)
    assert_resumes(torture, "packed", moved)


def test_row_15_one_process_a_run(torture: Torture, tmp_path: Path) -> None:
    """The second exits 2; one that dies by SIGKILL leaves no lock behind."""
    out = tmp_path / "run"
    code = f"import time\nfrom pathlib import Path\nfrom featherweight.storage.whole import held\nwith held(Path({str(out)!r})):\n    print('held', flush=True)\n    time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    ended = torture.injector.run(torture.arguments("packed", out))
    assert ended.code == 2
    assert "another process" in ended.errors
    owner.kill()
    owner.wait()
    owner.stdout.close()
    ended = torture.injector.run(torture.arguments("packed", out))
    assert ended.code == 0, ended.errors
    assert outcome(out) == torture.reference("packed").outcome


def test_row_17_a_pickle_in_a_checkpoint(torture: Torture, run: Path, tmp_path: Path) -> None:
    import pickle

    from test_faults_models import Payload

    marker = tmp_path / "ran"
    folder = run / "checkpoints" / "step-000009"
    for name in ("rng_state.pth", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))
    ended = torture.injector.run([*torture.arguments("packed", run), "--resume", str(folder)])
    assert ended.code == 4
    assert "optimizer.pt" in ended.errors
    manifest = json.loads((folder / "manifest.json").read_text())
    from featherweight.storage.cache import file_hash

    manifest["sha256"] |= {name: file_hash(folder / name) for name in ("rng_state.pth", "optimizer.pt")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="which no checkpoint holds"):
        read(folder)
    assert not marker.exists()


def test_row_18_clocks_do_not_choose(torture: Torture, run: Path) -> None:
    for path in [run / "checkpoints" / "step-000009", *(run / "checkpoints" / "step-000009").iterdir()]:
        os.utime(path, (0, 0))
    found = Checkpoints(run / "checkpoints", 2).newest()
    assert found is not None
    assert found.step == 9


def test_row_19_a_temporary_folder_on_another_disk(torture: Torture, tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        code = f"import tempfile\ntempfile.tempdir = {other!r}\n"
        ended = torture.injector.run(torture.arguments("packed", tmp_path / "run"), code=code)
    assert ended.code == 0, ended.errors


def test_row_20_other_threads_are_stated(torture: Torture, run: Path) -> None:
    ended = resume(torture, "packed", run, code="import torch\ntorch.set_num_threads(2)\n")
    assert ended.code == 0, ended.errors
    assert "hardware.torch_threads was 1, is 2" in ended.errors
    (resumed,) = RunDirectory(run).read_metrics()["reliability"]["resumes"]
    assert resumed == {"step": 9, "changed": {"hardware.torch_threads": [1, 2]}, "bit_exact": False}
    assert "hardware.torch_threads was 1, is 2" in (run / "report.html").read_text()


def test_row_20_a_run_keeps_to_the_library_that_it_began_with(torture: Torture, run: Path) -> None:
    """Whatever another look at this machine finds, or the bytes would depend on how busy it was."""
    path = RunDirectory(run).environment
    began = json.loads(path.read_text())
    other = next(name for name in PRODUCTS if name != began["execution"]["matrix_products"])
    if not works(other):
        pytest.skip("there is one library here")
    began["execution"] |= {"matrix_products": other, "token_budget": 2048 + 1}
    path.write_text(json.dumps(began))
    ended = resume(torture, "packed", run)
    assert ended.code == 0, ended.errors
    (resumed,) = RunDirectory(run).read_metrics()["reliability"]["resumes"]
    assert resumed == {"step": 9, "changed": {}, "bit_exact": True}


def test_row_20_another_library_for_products_is_stated(torture: Torture, run: Path) -> None:
    """On another machine the probe may choose otherwise, and the last bits with it."""
    path = RunDirectory(run).environment
    began = json.loads(path.read_text())
    mine = began["execution"]["matrix_products"]
    began["execution"]["matrix_products"] = "another"
    path.write_text(json.dumps(began))
    ended = resume(torture, "packed", run)
    assert ended.code == 0, ended.errors
    (resumed,) = RunDirectory(run).read_metrics()["reliability"]["resumes"]
    assert resumed["changed"] == {"execution.matrix_products": ["another", mine]}
    assert not resumed["bit_exact"]


def test_row_47_the_data_changed_in_between(torture: Torture, run: Path, tmp_path: Path) -> None:
    other = tiny.save_csv(tmp_path / "train.csv", [*tiny.rows(59), {"text": "a new row", "label": "pos"}])
    ended = torture.injector.run([*torture.arguments("packed", run), "--data", str(other), "--resume"])
    assert ended.code == 2
    assert "data.train was" in ended.errors
