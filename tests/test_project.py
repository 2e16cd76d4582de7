"""The repository's own promises: pins, generated files, what the README tells a newcomer to type."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import audit
import make_docs
import pins

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_drifted_from_the_pins() -> None:
    assert pins.drift() == []


def test_drift_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Negative control: a file edited by hand, a range that the pin does not satisfy, a requirement without a pin."""
    for name in ("pins.toml", "pyproject.toml", *pins.generated(pins._read(pins.PINS))):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(pins, "ROOT", tmp_path)
    monkeypatch.setattr(pins, "PINS", tmp_path / "pins.toml")
    assert pins.drift() == []
    with (tmp_path / "environment.yml").open("a") as stream:
        stream.write("# by hand\n")
    project = (tmp_path / "pyproject.toml").read_text().replace('"peft>=0.21"', '"peft>=99", "no-such-thing>=1"')
    (tmp_path / "pyproject.toml").write_text(project)
    found = "\n".join(pins.drift())
    for named in ("environment.yml", "peft>=99", "no-such-thing"):
        assert named in found


def test_generated_docs_are_what_make_docs_writes() -> None:
    for path, content in make_docs.generated().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run `make docs`"


def test_every_dependency_is_listed_with_a_permissive_licence() -> None:
    lines, problems = audit.audit()
    assert problems == []
    written = audit.PAGE.read_text(encoding="utf-8")
    listed = {tuple(cell.strip() for cell in line.split("|")[1:3]) for line in written.splitlines()[10:]}
    assert listed == {tuple(pin.split(" ")) for pin in lines}, "run `make audit`"
    for line in lines.values():
        assert audit.ABSENT in line or line in written.splitlines(), "run `make audit`"


def test_licences_that_bind_and_dead_packages_are_refused() -> None:
    """Negative control."""
    for licence in ("GPL-3.0-only", "GNU Affero General Public License v3", "", "LGPL-2.1 AND MIT", "Proprietary"):
        assert audit.refused("x", licence, "Beta")
    assert audit.refused("x", "MIT", "Inactive")
    for licence in ("MIT", "GPL-2.0-only OR Apache-2.0", "BSD License, MIT License"):
        assert not audit.refused("x", licence, "")


def test_no_file_names_a_registry_host() -> None:
    for name in pins.generated(pins._read(pins.PINS)):
        assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_every_command_that_the_readme_shows_exists(cli: Any) -> None:
    shown = set(re.findall(r"^featherweight ((?:inspect )?[\w-]+)", README, flags=re.MULTILINE))
    assert {"run", "predict", "evaluate", "compare", "inspect data", "doctor"} <= shown
    for command in shown:
        ended = cli(*command.split(), "--help")
        assert ended.returncode == 0, ended.stderr
        assert "example:" in ended.stdout


def test_make_targets_and_ci_are_those_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    commands = re.findall(r"^make \w+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert commands == ["make browser", "make demo", "make test"]


def test_files_named_in_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_nothing_that_git_tracks_names_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    home = str(ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            assert home not in path.read_text(encoding="utf-8", errors="replace"), name


@pytest.mark.slow
@pytest.mark.parametrize("is_altered", [False, True])
def test_row_100_extras_are_pinned_and_pip_checks_their_hashes(is_altered: bool, tmp_path: Path) -> None:
    content = (ROOT / "requirements-serve.txt").read_text()
    assert "fastapi==" in content
    if is_altered:
        content = re.sub(r"sha256:\w{8}", "sha256:00000000", content)
    (tmp_path / "requirements.txt").write_text(content)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--require-hashes", "--no-deps"]
    command += ["--target", str(tmp_path / "new"), "--requirement", str(tmp_path / "requirements.txt")]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0 and "hash" not in ended.stderr.lower():
        pytest.skip(f"no package registry: {ended.stderr.strip().splitlines()[-1]}")
    assert (ended.returncode == 0) is not is_altered, ended.stderr


SOURCE = ROOT / "src" / "featherweight"
AXES = ("tasks", "answers", "registry")
_SPELT = re.compile(
    r"eval_accuracy|[\"']sequence-classification[\"']|[\"']macro_f1[\"']|[\"']matthews_correlation[\"']"
)


def spelling(root: Path) -> list[str]:
    """Lines outside the axes that name a task or a metric of one kind of answer."""
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.*"))
        if path.suffix in {".py", ".js", ".j2"} and path.relative_to(root).parts[0] not in AXES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _SPELT.search(line)
    ]


def test_nothing_outside_the_axes_knows_a_task_or_a_kind_of_answer(tmp_path: Path) -> None:
    assert spelling(SOURCE) == []
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.py").write_text("figure = metrics['tuned']['eval_accuracy']\n")
    assert len(spelling(tmp_path)) == 1, "negative control"


MOST_LINES, MOST_PARAMETERS = 45, 7
# Signatures that are not ours to shorten, by file and name, with the reason.
LONG_SIGNATURES = {
    ("engine/running/attention.py", "attention"): "transformers' attention interface has these names",
    ("workflow/trials_on_ray.py", "sweep_on_ray"): "public: all that a sweep is asked, and the cluster",
    ("workflow/predicting.py", "predict_file"): "public: what names the model, and how the file is read",
}


def too_long(path: Path) -> tuple[list[str], list[str]]:
    """Functions of more lines, and signatures of more parameters, than fit into a reader's head."""
    lines, parameters = [], []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names += [one.arg for one in (given.vararg, given.kwarg) if one is not None]
            if node.end_lineno - node.lineno + 1 > MOST_LINES:
                lines.append(node.name)
            if len(names) - (names[:1] in (["self"], ["cls"], ["ctx"])) > MOST_PARAMETERS:
                parameters.append(node.name)
    return lines, parameters


def test_functions_and_signatures_fit_a_screen() -> None:
    found = {path.relative_to(SOURCE).as_posix(): too_long(path) for path in sorted(SOURCE.rglob("*.py"))}
    assert [f"{path}: {name}" for path, (names, _) in found.items() for name in names] == []
    assert {(path, name) for path, (_, names) in found.items() for name in names} == LONG_SIGNATURES.keys()


def test_a_function_that_is_too_long_is_seen(tmp_path: Path) -> None:
    """Negative control: one line and one parameter more than are allowed, and exactly as many."""
    for extra in (0, 1):
        given = ", ".join(f"p{index}" for index in range(MOST_PARAMETERS + extra - 2))
        body = "\n".join(["        pass"] * (MOST_LINES + extra - 1))
        (tmp_path / "one.py").write_text(f"class A:\n    async def f(self, {given}, *, k, **more):\n{body}\n")
        assert too_long(tmp_path / "one.py") == ((["f"], ["f"]) if extra else ([], []))


def test_a_newcomers_questions_lead_somewhere() -> None:
    """Each answer in CONTRIBUTING names a file that is there and something that stands in it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    asked = [line for line in text.splitlines() if re.match(r"\| .*\? \|", line)]
    assert len(asked) >= 10
    for line in asked:
        places = re.findall(r"`([\w/]+\.py)`: `(\w+)`", line)
        assert places, line
        for path, name in places:
            found = (SOURCE / path).read_text(encoding="utf-8")
            assert re.search(rf"(def|class) {name}\b|^    {name}: ClassVar", found, re.MULTILINE), f"{path}: {name}"
