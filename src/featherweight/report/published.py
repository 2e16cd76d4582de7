"""A run's files as others may see them: no path of the machine that they were made on, and the hub's name for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import escape

from featherweight.recipe.paths import PATH_KEYS
from featherweight.report.page import one_run
from featherweight.runs.directory import FACTS, RunDirectory
from featherweight.tasks.loading import FOLDER

_BESIDE = f'Path("{FOLDER}/{FACTS}")'
_IMPORT = "from pathlib import Path\n"


def card(text: str, repository: str, others: Mapping[str, Any]) -> str:
    """The model card, with lines that load from the hub.

    Args:
        others: names of what lies beside it.
    """
    if _BESIDE in text:
        text = text.replace(_IMPORT, f"{_IMPORT}\nfrom huggingface_hub import hf_hub_download\n", 1)
        text = text.replace(_BESIDE, f'Path(hf_hub_download("{repository}", "{FACTS}"))')
    shown = [name for name in ("report.html", "metrics.json") if name in others]
    links = f"\nAll evidence: {', '.join(f'[{name}]({name})' for name in shown)}.\n" if shown else ""
    return text.replace(FOLDER, repository) + links


def report(run: RunDirectory, metrics: Mapping[str, Any], repository: str) -> str:
    """``report.html``, with commands for the hub's model."""
    here = RunDirectory(run.path.resolve())
    names = hidden(here) | {str(here.path): repository}
    names |= {f"{here.path}/{folder}": repository for folder in ("adapter", "model")}
    return _replaced(one_run(here, metrics), names, lambda name: str(escape(name)))


def plain(text: str, names: Mapping[str, str]) -> str:
    """A JSON file's text without the paths that it would show."""
    ascii_alone = _replaced(text, names, lambda name: json.dumps(name)[1:-1])
    return _replaced(ascii_alone, names, lambda name: json.dumps(name, ensure_ascii=False)[1:-1])


def hidden(run: RunDirectory) -> dict[str, str]:
    """Every path that a run's files may show, as it stands there, to its last part."""
    import tomllib

    from featherweight.recipe import load

    spelt, loaded = tomllib.loads(run.recipe.read_text(encoding="utf-8")), load(run.recipe).model_dump()
    started = run.read_metrics()["started_from"] or {"adapter": ""}
    named = [(name, name) for name in (run.read_environment()["model"]["name"], started["adapter"])]
    for section, keys in PATH_KEYS.items():
        for key in keys:
            named += zip(_each(spelt.get(section, {}).get(key)), _each(loaded[section][key]), strict=True)
    paths = [(as_spelt, Path(name)) for as_spelt, name in named if Path(name).is_absolute()]
    found = {one: path.name for as_spelt, path in paths for one in (as_spelt, str(path))}
    return {one: name for one, name in found.items() if "/" in one and name}


def _each(names: Any) -> Iterator[str]:
    if names is not None:
        yield from [names] if isinstance(names, str) else names


def _replaced(text: str, names: Mapping[str, str], spelt: Callable[[str], str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(spelt(name), spelt(names[name]))
    return text
