"""A finished run onto the Hugging Face hub."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherweight import recipe as recipes
from featherweight.errors import ModelError
from featherweight.methods.peft import adapters
from featherweight.records.parts import Column
from featherweight.registry import METHODS
from featherweight.report import published
from featherweight.report.console import Console
from featherweight.report.fitted import FittedTable
from featherweight.runs.directory import FACTS, RunDirectory
from featherweight.sources import archives, models, pushing

_CARD = "README.md"
# All that is ever taken out of a run's artefact: weights and their configuration, the facts, the tokenizer.
_TAKEN = (
    _CARD, FACTS, adapters.CONFIG, adapters.WEIGHTS, "config.json", "generation_config.json", "model.safetensors",
    "model-*-of-*.safetensors", models.INDEX, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja",
)  # fmt: skip
_QUOTES = "report.html and metrics.json quote examples of your data; --no-report leaves both out"


def push(
    target: str | Path,
    repository: str,
    *,
    public: bool = False,
    report: bool = True,
    dry_run: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Upload what a run published, its report and its metrics to a model repository, in one commit.

    Args:
        target: a finished run, or an archive of one.
        repository: ``USER/NAME``; made where there is none.
        public: whether anybody may see it; a repository that is there already keeps what it is.
        report: whether ``report.html`` and ``metrics.json`` go too, which quote examples of the data.
        dry_run: say what would go, and reach for nothing.

    Returns:
        ``files``, each with its bytes, and ``left_out``, what else lies there; after a push ``url``, ``commit``,
        ``is_new``, ``is_public`` and ``removed``, what an earlier push had there.

    Raises:
        ConfigError: the name can't be had.
        ModelError: the run is not complete or damaged, or the hub can't be reached or refuses; nothing is published.
    """
    console = console or Console(quiet=True)
    pushing.require_name(repository)
    run = RunDirectory(archives.unpacked(target))
    files, left_out = _files(run, repository, report)
    sizes = {path: _size(content) for path, content in files.items()}
    console.show(_listed(f"To {repository}, {'public' if public else 'private'}", sizes))
    for line in [_QUOTES] * report + [f"left out: {', '.join(left_out)}"] * bool(left_out):
        console.say(line)
    found = {"repository": repository, "files": sizes, "left_out": left_out}
    if dry_run:
        console.say("a dry run: nothing was uploaded")
        return found
    console.begin(f"uploading {sum(sizes.values()) / 1e6:.1f} MB")
    message = f"Upload {recipes.load(run.recipe).name}"
    made = pushing.push(repository, files, public=public, mark=FACTS, message=message)
    console.show(*_said(made, public))
    return {**found, **vars(made)}


def _files(run: RunDirectory, repository: str, report: bool) -> tuple[dict[str, Path | bytes], list[str]]:
    """Path on the hub to content, and what in the artefact's folder is not of it."""
    metrics = run.read_metrics()
    folder = run.path / METHODS[recipes.load(run.recipe).method.name].artefact
    _require_sound(folder)
    names = published.hidden(run)
    found: dict[str, Path | bytes] = {}
    if report:
        found["metrics.json"] = _plain(run.metrics, names)
        found["report.html"] = published.report(run, metrics, repository).encode("utf-8")
    left_out = []
    for path in sorted(folder.iterdir()):
        if not (path.is_file() and any(fnmatch.fnmatchcase(path.name, one) for one in _TAKEN)):
            left_out.append(path.name)
        else:
            found[path.name] = _plain(path, names) if path.suffix == ".json" else path
    found[_CARD] = published.card((folder / _CARD).read_text(encoding="utf-8"), repository, found).encode("utf-8")
    return found, left_out


def _plain(path: Path, names: Mapping[str, str]) -> Path | bytes:
    """A JSON file, or its text where that would show a path of this machine."""
    before = path.read_text(encoding="utf-8")
    after = published.plain(before, names)
    return path if after == before else after.encode("utf-8")


def _require_sound(folder: Path) -> None:
    """Raises ModelError where what would go is not whole."""
    if (folder / adapters.CONFIG).is_file():
        adapters.check(folder)
    else:
        models.find(str(folder))
    if lacking := [name for name in (_CARD, FACTS) if not (folder / name).is_file()]:
        raise ModelError(f"{folder}: has no {lacking[0]}; bring it back as the run wrote it")


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _listed(title: str, sizes: Mapping[str, int]) -> FittedTable:
    table = FittedTable(title, [Column("file", words=True), Column("bytes")])
    for path, size in sizes.items():
        table.add_row(path, f"{size:,}")
    return table


def _said(made: pushing.Pushed, public: bool) -> list[str]:
    lines = [f"{made.url}: {'pushed' if made.is_new else 'has all of this already, no new commit'} ({made.commit})"]
    if made.removed:
        lines.append(f"taken away, from an earlier push: {', '.join(made.removed)}")
    if public and not made.is_public:
        lines.append("The repository was there and stays private; its settings on the hub make it public.")
    return lines
