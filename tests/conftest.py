"""Fixtures. Every test has a cache of its own, sees no hub, and leaves the process as it found it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import warm
from hypothesis import settings
from warm import Warm

ROOT = Path(__file__).parent.parent
SST2 = ROOT.parent / "shared" / "data" / "sst2"

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


# Files that take long begin first, so that no processor waits for the last of them.
LONG = [
    "test_ray", "test_readme", "test_reliability", "test_contracts", "test_fleet", "test_defaults", "test_embedded",
    "test_hub", "test_cli", "test_optimizers", "test_notebook", "test_run", "test_server_page", "test_serving",
    "test_export", "test_golden", "test_sweep", "test_tables", "test_many_classes", "test_held", "test_architectures",
    "test_seeds", "test_token_classification", "test_learning_curve", "test_tuners",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from a second thread and lose much to a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FEATHERWEIGHT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf"))


@pytest.fixture(autouse=True)
def _environment(_warm: Warm) -> Iterator[None]:
    """Libraries leave variables behind (PEFT's BOFT says which compiler it used), and commands of later tests would have
    to import everything again."""
    before = set(os.environ)
    yield
    for name in os.environ.keys() - before:
        del os.environ[name]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny headless model folder of the kind asked for, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny.save_model(tmp_path_factory.mktemp(kind), kind, dropout=0.1)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def train_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_csv(tmp_path_factory.mktemp("data") / "train.csv", tiny.rows(240))


@pytest.fixture(autouse=True, scope="session")
def _warm(_cache: None) -> Warm:
    return warm.shared()


@pytest.fixture
def cli(tmp_path: Path, _warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command as a process of its own, in the test's folder: forked from one that has imported all, unless the
    test says more of the process than what it is given."""

    def call(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        if options.keys() <= {"cwd", "input", "timeout", "env"} and _warm.fits(options.get("env")):
            given, cwd, asked = options.get("input") or "", options.get("cwd") or tmp_path, map(str, arguments)
            return _warm.run(list(asked), Path(cwd), given, options.get("timeout") or 600, options.get("env"))
        command = [sys.executable, "-m", "featherweight", *map(str, arguments)]
        return subprocess.run(
            command, **{"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 600, **options}
        )

    return call


@pytest.fixture
def sst2() -> Path:
    if not (SST2 / "train.tsv").is_file():
        pytest.skip(f"the real SST-2 is not at {SST2}")
    return SST2
