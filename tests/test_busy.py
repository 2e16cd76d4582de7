"""Beside other processes: threads don't spin for long, and what is measured in a busy moment is not kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featherweight.engine.fast import machine_speed
from featherweight.process import waiting

_HOG = "import os; os.sched_setaffinity(0, {%d}); print(flush=True)\nwhile True: pass"

on_linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins processes as Linux does")


@contextmanager
def crowded() -> Iterator[None]:
    """This process on one core, with two others that never rest."""
    before = os.sched_getaffinity(0)
    core = min(before)
    os.sched_setaffinity(0, {core})
    hogs = [subprocess.Popen([sys.executable, "-c", _HOG % core], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for one in hogs:
            assert one.stdout is not None
            one.stdout.readline()  # it has begun
        yield
    finally:
        for one in hogs:
            one.kill()
            one.communicate()
        os.sched_setaffinity(0, before)


@on_linux
def test_row_90_a_measurement_of_a_busy_moment_is_used_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(machine_speed, "_BUDGETS", (4096, 8192))  # far longer than a turn on the processor
    with crowded():
        found = machine_speed.probe.__wrapped__()
    assert not found.undisturbed
    assert found.token_budget in {4096, 8192}
    assert not list(tmp_path.iterdir())

    for name in ("_BUDGETS", "_ROWS", "_PATIENCE"):  # so short that some round has its core to itself anywhere
        monkeypatch.setattr(machine_speed, name, {"_BUDGETS": (64,), "_ROWS": 64, "_PATIENCE": 30.0}[name])
    monkeypatch.setattr(machine_speed, "TOKEN_BUDGET", 64)
    found = machine_speed.probe.__wrapped__()
    assert found.undisturbed
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["probe"]
    measured = []
    monkeypatch.setattr(machine_speed, "_measure", lambda: measured.append(1) or found)
    assert machine_speed.probe.__wrapped__() == found
    assert not measured, "kept"
    machine_speed.probe.__wrapped__(again=True)
    assert measured, "the doctor measures again"


def test_what_was_kept_is_measured_again_where_a_look_disagrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's answer, or a busy moment's that went unnoticed."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path))
    slow = dict(machine_speed.PRODUCTS)
    wrong = min(set(slow) - {machine_speed.DEFAULT})

    def far_slower(*given: object) -> object:
        for _ in range(8):
            product = slow[wrong](*given)  # type: ignore[arg-type]
        return product

    honest = machine_speed._measure()
    monkeypatch.setattr(machine_speed, "_measure", lambda: replace(honest, product=wrong, undisturbed=True))
    assert machine_speed.probe.__wrapped__().product == wrong
    monkeypatch.undo()
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path))
    monkeypatch.setitem(machine_speed.PRODUCTS, wrong, far_slower)
    monkeypatch.setattr(machine_speed, "_LOOK", 30.0)
    assert machine_speed.probe.__wrapped__().product == machine_speed.DEFAULT


def test_another_number_of_threads_is_measured_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path))
    honest = machine_speed._measure()
    measured: list[int] = []
    monkeypatch.setattr(
        machine_speed,
        "_measure",
        lambda: measured.append(1) or replace(honest, undisturbed=True),  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(machine_speed, "_is_plausible", lambda found: True)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1, 2):
            torch.set_num_threads(threads)
            machine_speed.probe.__wrapped__()
    finally:
        torch.set_num_threads(before)
    assert len(measured) == 2


def test_row_90_the_users_own_policy_stays() -> None:
    untouched = {"OMP_WAIT_POLICY": "active"}
    waiting.settle(untouched)
    assert untouched == {"OMP_WAIT_POLICY": "active"}
    settled: dict[str, str] = {}
    waiting.settle(settled)
    assert settled == waiting.POLICIES[waiting.POLICY]


def test_row_90_the_command_line_settles_it_before_openmp_is_loaded() -> None:
    """As the library itself reports it."""
    code = (
        "import sys; from featherweight.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules; import torch"
    )
    environment = {name: value for name, value in os.environ.items() if name not in waiting._USERS_OWN}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    if "GOMP_SPINCOUNT" not in ended.stderr:
        pytest.skip("this torch has another OpenMP than GNU's")
    name, value = next(iter(waiting.POLICIES[waiting.POLICY].items()))
    reported = {
        line.split("=")[0].split()[-1]: line.split("=")[1].strip(" '")
        for line in ended.stderr.splitlines()
        if "=" in line
    }
    assert reported[name].lower() == value
