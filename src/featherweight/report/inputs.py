"""The report's last sections: data, recipe and machine behind the figures, and how to load what came out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from featherweight.answers import kind_of
from featherweight.evidence.data.checks import checks_of
from featherweight.records import parts
from featherweight.report import held_base, tables
from featherweight.runs.directory import RunDirectory

_REPEATS = ("exactly_repeated_texts", "repeated_texts", "nearly_repeated_texts")
_MOST_DESCRIBED = 6


def data(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    """The splits, and what the checks of this kind of answer found."""
    kind, found = kind_of(metrics), metrics["data_checks"]
    rows = [_split(name, one, metrics) for name, one in found["splits"].items()]
    columns = ["split", "rows", kind.described.names, "median words", "longest", "cut", "empty", "unreadable"]
    made = [parts.table("Splits", [*columns, "repeats", "but for form", "nearly"], rows, "wordy")]
    return [*made, *(part for one in checks_of(kind) for part in one.show(found))]


def _split(name: str, one: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    how = kind_of(metrics).described
    form = "{:.1%}" if how.shares else how.form
    figures = list(one[how.key].items())[:_MOST_DESCRIBED]
    cut = metrics["truncation"].get(name, {"rows": 0, "share": 0.0})
    words = one["words"]
    return parts.row(
        name,
        f"{one['rows']:,}",
        ", ".join(f"{what} {form.format(figure)}" for what, figure in figures),
        f"{words['median']:g}",
        f"{words['longest']:,}",
        f"{cut['rows']:,} ({cut['share']:.1%} of tokens)",
        f"{metrics['dropped_empty_rows'][name]:,}",
        f"{metrics.get('skipped_bad_rows', {}).get(name, 0):,}",
        *(f"{one[key]:,}" for key in _REPEATS),
    )


def recipe(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    if not run.recipe.is_file():
        return []
    text = "\n".join(line for line in run.recipe.read_text(encoding="utf-8").splitlines() if "is not set" not in line)
    return [
        parts.text("As resolved: every default written out, with the reason where it was chosen automatically."),
        {"kind": "code", "label": "recipe.toml", "text": text},
    ]


def environment(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    found = run.read_environment()
    resources = metrics["resources"]
    cost = {
        "training time": parts.seconds(resources["train_runtime"]) if "train_runtime" in resources else None,
        "rows a second": f"{resources.get('train_samples_per_second', 0):.1f}",
        "processor time": parts.seconds(resources["tuning"]["processor_seconds"]),
        "peak memory": f"{resources['peak_memory_bytes'] / 1e9:.2f} GB",
        "energy of tuning": tables.energy(resources["tuning"]["energy"]),
        "trainable parameters": f"{metrics['trainable_parameters']:,} of {metrics['total_parameters']:,}",
        **_survived(metrics.get("reliability")),
    }
    flat = {
        **{key: value for key, value in found["hardware"].items() if key != "memory_bytes"},
        "memory": f"{(found['hardware'].get('memory_bytes') or 0) / 1e9:.1f} GB",
        "precision": found["precision"],
        "base model": f"held with {held_base.weights(held)}" if (held := found.get("base_weights")) else None,
        "seed": found["seed"],
        "model": f"{found['model']['name']} ({found['model']['fingerprint']})",
        **{f"{name} data": f"{one['rows']:,} rows ({one['fingerprint'][:24]})" for name, one in found["data"].items()},
    }
    return [
        parts.table(
            "Cost", ["what", "value"], [parts.row(key, str(value)) for key, value in cost.items() if value], "wordy"
        ),
        parts.table(
            "Machine and inputs",
            ["what", "value"],
            [parts.row(key, str(value)) for key, value in flat.items() if value],
            "wordy",
        ),
        parts.table(
            "Versions",
            ["what", "value"],
            [parts.row(key, str(value)) for key, value in found["versions"].items() if value],
            "wordy",
        ),
    ]


def _survived(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What saving cost, what was left out, and where the run was taken up again."""
    if found is None:
        return {}
    saves = found["checkpoints"]
    rows = {
        "checkpoints": f"{saves['saves']} saved in {parts.seconds(saves['seconds'])}, {saves['share_of_training']:.1%} "
        f"of the training time; up to {saves['bytes'] / 1e6:.1f} MB each"
    }
    if steps := found["skipped_steps"]:
        rows["steps left out"] = f"{len(steps)}, their loss or gradient was not finite: {', '.join(map(str, steps))}"
    if found["micro_batch_rows"] is not None:
        rows["out of memory"] = f"went on with {found['micro_batch_rows']} rows at a time, as many a step as asked for"
    for index, one in enumerate(found["resumes"], 1):
        changed = "; ".join(f"{key} was {before}, is {now}" for key, (before, now) in one["changed"].items())
        rows[f"resumed ({index})"] = f"after step {one['step']}" + (f", not bit-exact: {changed}" if changed else "")
    if failed := found.get("failed_observers"):
        rows["observers that failed"] = ", ".join(failed)
    gate = found["gate"]
    if "largest_difference" in gate:
        rows["read back before publishing"] = (
            f"{gate['rows']} rows answered by what was written, a {gate.get('of', 'probability')} within "
            f"{gate['largest_difference']:.1e}"
        )
    if "largest_difference_as_measured" in gate:
        rows["read back before publishing"] += (
            f" in fp32, and within {gate['largest_difference_as_measured']:.1e} in {gate['precision']}, as measured"
        )
    return rows


def loading(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    card = next(
        (path for path in (run.path / "adapter" / "README.md", run.path / "model" / "README.md") if path.is_file()),
        None,
    )
    if card is None:
        return []
    code = card.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    code = code.replace("path/to/this/folder", f"{run.path}/{card.parent.name}")
    where = shlex.quote(str(run.path))
    commands = f"{tables.predict_command(run.path, metrics)}\nfeatherweight evaluate {where} --data new.csv\n"
    return [
        {"kind": "code", "label": "Commands", "text": commands},
        parts.text("Without Featherweight:"),
        {"kind": "code", "label": "Python", "text": code},
    ]
