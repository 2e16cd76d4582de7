"""The model card that travels with what a run publishes: Hugging Face metadata, results, and how to load it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from featherweight.answers import Answer, kind_of, statistics_of
from featherweight.evidence.exhibits import exhibits_of
from featherweight.recipe import PACKAGE_PREFIX, Recipe
from featherweight.records.runs import rungs
from featherweight.report.held_base import HeldBase
from featherweight.report.tables import cautions, comparison_sentence
from featherweight.runs.directory import FACTS
from featherweight.sources.models import ModelSource
from featherweight.storage.names import printable
from featherweight.tasks import Task
from featherweight.tasks.loading import FOLDER, Loading

_MOST_NAMED = 20
# Where the hub's cache keeps a snapshot of OWNER/NAME.
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[0-9a-f]{40}/?$")


def model_card(
    recipe: Recipe,
    source: ModelSource,
    task: Task,
    metrics: Mapping[str, Any],
    artefact: str,
    head: Sequence[str] = (),
) -> str:
    """Markdown with a YAML header. It is made to be published: no path of this machine is in it.

    Args:
        source: the base model.
        metrics: content of ``metrics.json``.
        artefact: ``adapter`` or ``model``.
        head: dotted names of the modules that train whole.
    """
    held = HeldBase(recipe.model.holding, head, is_gguf=source.gguf is not None)
    lines = [
        "---",
        *yaml.safe_dump(_metadata(recipe, source, task, metrics, artefact), sort_keys=False).splitlines(),
        "---",
        "",
        f"# {inline(recipe.name)}",
        "",
        _opening(recipe, source, metrics),
        "",
        f"{inline(metrics['headline'])} {inline(comparison_sentence(metrics))}",
        "",
        *_figures(metrics),
        "",
        *held.said(),
        _measured(metrics),
        "",
        *(f"- Take care: {inline(line)}" for line in cautions(metrics)),
        "",
        introduction(task.answer),
        "",
        "## Load it",
        "",
        "```python",
        *_loading(source, held, task.loading(), artefact, metrics["pad_token_id"]),
        "```",
        "",
    ]
    return "\n".join(lines)


def _opening(recipe: Recipe, source: ModelSource, metrics: Mapping[str, Any]) -> str:
    base, data = (inline(name) for name in (_hub_id(source) or public_name(source.name), _public_data(recipe)))
    trained, total = metrics["trainable_parameters"], metrics["total_parameters"]
    return f"{base}, tuned for {recipe.task} on {data} by {recipe.method.name} ({trained:,} of {total:,} parameters)."


def _measured(metrics: Mapping[str, Any]) -> str:
    sentences = [one.sentence(metrics) for one in exhibits_of(kind_of(metrics))]
    return " ".join([f"Measured on the {metrics['evaluated_split']} split.", *filter(None, sentences)])


def introduction(kind: Answer) -> str:
    """What is answered, in a line: in full, or the first of much."""
    title, names = kind.introduction()
    shown = f"{title}: {', '.join(map(inline, names[:_MOST_NAMED]))}"
    more = len(names) - _MOST_NAMED
    return f"{shown}." if more <= 0 else f"{shown} and {more:,} more, all of them in `{FACTS}`."


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    """Every rung by every metric, the cheapest first."""
    shown = [one for one in statistics_of(kind_of(metrics)) if one.in_evaluations]
    rows = {name: [one[f"eval_{of.name}"] for of in shown] for name, one in rungs(metrics).items()}
    return [
        f"| | {' | '.join(one.title for one in shown)} |",
        f"|---{'|---' * len(shown)}|",
        *(f"| {inline(name)} | {' | '.join(f'{one:.4f}' for one in figures)} |" for name, figures in rows.items()),
    ]


def _metadata(
    recipe: Recipe, source: ModelSource, task: Task, metrics: Mapping[str, Any], artefact: str
) -> dict[str, Any]:
    """The hub's metadata, to be written by a YAML library: names are the user's."""
    data, hub_id = _public_data(recipe), _hub_id(source)
    base = {"base_model": hub_id, "base_model_relation": "adapter" if artefact == "adapter" else "finetune"}
    tuned = metrics["tuned"]
    return {
        "library_name": "peft" if artefact == "adapter" else "transformers",
        "pipeline_tag": task.hub_tag,
        **(base if hub_id else {}),
        "tags": ["featherweight", recipe.method.name],
        "model-index": [
            {
                "name": recipe.name,
                "results": [
                    {
                        "task": {"type": task.hub_tag},
                        "dataset": {
                            "name": data,
                            "type": data if recipe.data.name == data else "local",
                            "split": metrics["evaluated_split"],
                        },
                        "metrics": [
                            {
                                "type": one.hub,
                                **({} if one.hub == one.name else {"name": one.title}),
                                "value": tuned[f"eval_{one.name}"],
                            }
                            for one in statistics_of(kind_of(metrics))
                            if one.hub
                        ],
                    }
                ],
            }
        ],
    }


def public_name(name: str) -> str:
    """A file or folder by its last part alone; a hub id or a package's file as it is."""
    return Path(name).name if Path(name).is_absolute() else name


def _public_data(recipe: Recipe) -> str:
    return ", ".join(map(public_name, recipe.data.sources))


def _hub_id(source: ModelSource) -> str | None:
    """The base model's name on the hub, also where the recipe names a folder of the hub's cache."""
    if source.revision is not None:
        return source.name
    found = _SNAPSHOT.search(source.folder.as_posix())
    return "/".join(found.groups()) if found else None


def _loading(source: ModelSource, held: HeldBase, loading: Loading, artefact: str, pad_token_id: int) -> list[str]:
    """Stock transformers and PEFT, nothing of ours."""
    after = ["", *loading.after] if loading.after else []
    if artefact == "model":
        return [*whole_model(loading), *after]
    imports, classes, where = _base_of(source)
    gguf = f", gguf_file={source.gguf.name!r}" if source.gguf else ""
    return [
        *imports,
        *held.imports(),
        f"from peft import {classes}",
        f"from transformers import {', '.join([loading.auto_class, 'AutoTokenizer', *held.classes()])}",
        "",
        *loading.before,
        *held.before(),
        f"base = {loading.auto_class}.from_pretrained(",
        f"    {where}{gguf}{held.arguments()}, pad_token_id={pad_token_id}, {loading.options}",
        f"){held.after()}",
        f'model = PeftModel.from_pretrained(base, "{FOLDER}").eval()',
        f'tokenizer = AutoTokenizer.from_pretrained("{FOLDER}")',
        *after,
    ]


def whole_model(loading: Loading) -> list[str]:
    """Lines that load a model that stands alone."""
    return [
        f"from transformers import {loading.auto_class}, AutoTokenizer",
        "",
        f'model = {loading.auto_class}.from_pretrained("{FOLDER}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{FOLDER}")',
    ]


def _base_of(source: ModelSource) -> tuple[list[str], str, str]:
    """What the loading lines import before PEFT, from PEFT, and the expression that says where the base model is."""
    if source.name.startswith(PACKAGE_PREFIX):
        package, _, inner = source.name.removeprefix(PACKAGE_PREFIX).partition("/")
        folder = inner.rpartition("/")[0] if source.gguf else inner
        where = f"find_spec({package.replace('-', '_')!r}).submodule_search_locations[0]"
        # Found without importing it: a package that ships weights may want more than is installed.
        return (
            ["from importlib.util import find_spec", ""],
            "PeftModel",
            where + (f" + {'/' + folder!r}" if folder else ""),
        )
    if source.revision is not None:
        return [], "PeftModel", repr(source.name)
    # A folder of the machine it was tuned on: the adapter's configuration has it, and no card that is published.
    where = 'PeftConfig.from_pretrained("path/to/this/folder").base_model_name_or_path'
    if source.gguf:
        return ["from os.path import dirname", ""], "PeftConfig, PeftModel", f"dirname({where})"
    return [], "PeftConfig, PeftModel", where


def inline(text: str) -> str:
    """Text of the user's on one line of Markdown, with nothing in it that Markdown or HTML would act on."""
    flat = printable(" ".join(text.split()))
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!&$~^@" else char for char in flat)
