"""What is installed elsewhere: the source distribution has all that the wheel is built of, the wheel all that the package
needs, and the installed command finds it; and the shell completes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from featherweight.cli import main
from featherweight.cli.completion import SHELLS

BUILD = "import sys, setuptools.build_meta as build; getattr(build, sys.argv[1])(sys.argv[2])"


def built(source: Path, what: str, folder: Path) -> Path:
    """A distribution, by the build backend as an installer calls it."""
    folder.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, what, str(folder)], cwd=source, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


@pytest.mark.slow
def test_the_wheel_of_the_source_distribution_works_where_nothing_else_of_it_is(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    checkout = tmp_path / "checkout"
    for name in tracked.stdout.splitlines():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, checkout / name)
    package = checkout / "src"
    wanted = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    packed = built(checkout, "build_sdist", tmp_path / "sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    wheel = built(source, "build_wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {"featherweight/py.typed", "featherweight/recipes/demo.toml"} < held
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (tmp_path / "empty").mkdir()

    def there(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True
        )

    assert there("-c", "import featherweight; print(featherweight.__file__)").stdout.startswith(str(site))
    shown = there(str(site / "bin" / "featherweight"), "--help")
    assert (shown.returncode, "demo" in shown.stdout) == (0, True), shown.stderr
    refused = there(str(site / "bin" / "featherweight"), "demo", "--set", "training.epochs=1")
    assert (refused.returncode, "demo.toml: training.epochs" in refused.stderr) == (2, True), refused.stderr


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last word."""
    program = """
eval "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"$(complete -p featherweight | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""
    ended = subprocess.run(
        ["bash", "-c", program, "bash", script, "featherweight", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_bash_completes_commands_options_choices_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = {}
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        scripts[shell] = capsys.readouterr().out
    assert len(set(scripts.values())) == len(SHELLS)
    assert all("featherweight" in script and "dry-run" in script for script in scripts.values())
    bash = scripts["bash"]
    assert completed(bash, "pu") == ["push"]
    assert completed(bash, "inspect", "da") == ["data"]
    assert completed(bash, "push", "--dry") == ["--dry-run"]
    assert completed(bash, "completion", "fi") == ["fish"]
    assert "README.md" in completed(bash, "run", "READ")
    assert completed(bash, "run", "--output-dir", "deplo") == ["deploy"]
    assert completed(bash, "evaluate", "--public") == [], "negative control: another command's option"


def test_the_demo_that_is_shipped_is_the_one_of_the_checkout() -> None:
    shown, shipped = (ROOT / "recipes" / "demo.toml"), (ROOT / "src" / "featherweight" / "recipes" / "demo.toml")
    assert shown.resolve() == shipped
    assert shown.read_text(encoding="utf-8").startswith("# The embedded default")
