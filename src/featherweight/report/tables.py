"""The terminal's tables, one function each, from the content of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_VERDICTS = {
    "better": "The tuned model is better than the base model.",
    "worse": "The tuned model is worse than the base model.",
    "no-difference": "No difference could be shown between the tuned model and the base model.",
}
_EVALUATION_ROWS = ("eval_loss", "eval_accuracy", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def label_shares(shares: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> Table:
    """One row a split."""
    table = _table("Label shares", ["split", "rows", *next(iter(shares.values()))])
    for split, parts in shares.items():
        table.add_row(split, f"{rows[split]:,}", *(f"{share:.2%}" for share in parts.values()))
    return table


def parameters(trainable: int, total: int) -> str:
    return f"Trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})"


def epochs(records: Sequence[Mapping[str, Any]]) -> Table:
    """One row an evaluation during training."""
    table = _table("Training", ["epoch", "training loss", "validation loss", "accuracy"])
    for record in records:
        table.add_row(
            f"{record['epoch']:g}",
            f"{record['training_loss']:.4f}",
            f"{record['eval_loss']:.4f}",
            f"{record['eval_accuracy']:.4f}",
        )
    return table


def evaluations(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Evaluations side by side, one column each."""
    table = _table("Evaluation", ["", *columns])
    for name in _EVALUATION_ROWS:
        table.add_row(name, *(f"{metrics[name]:.4f}" for metrics in columns.values()))
    return table


def ladder(metrics: Mapping[str, Any]) -> Table:
    """Baselines, base and tuned by accuracy, with Wilson's interval."""
    table = _table("Accuracy, cheapest first", ["model", "accuracy", "95 % interval"])
    rungs = {**metrics["baselines"], "untuned model": metrics["base"], "tuned model": metrics["tuned"]}
    for name, rung in rungs.items():
        low, high = rung["eval_accuracy_interval"]
        table.add_row(name, f"{rung['eval_accuracy']:.4f}", f"{low:.4f} to {high:.4f}")
    return table


def against_baselines(metrics: Mapping[str, Any]) -> str:
    """What the untuned model is worth, and whether tuning beat every cheap rival."""
    low, high = metrics["base"]["eval_accuracy_interval"]
    chance = metrics["baselines"]["majority"]["eval_accuracy"]
    untuned = f"The untuned model's accuracy is {low:.4f} to {high:.4f}"
    if low <= chance <= high:
        untuned += f": no better than always answering the commonest label ({chance:.4f})"
    better = [
        name
        for name, rung in metrics["baselines"].items()
        if rung["eval_accuracy"] >= metrics["tuned"]["eval_accuracy"]
    ]
    rivals = f" {', '.join(better)} does as well as the tuned model or better, for less." if better else ""
    return f"{untuned}.{rivals}"


def verdict(comparison: Mapping[str, Any]) -> str:
    """The comparison in one paragraph."""
    low, high = comparison["confidence_interval"]
    return (
        f"{_VERDICTS[comparison['verdict']]} {comparison['metric'].capitalize()} changes by "
        f"{comparison['difference']:+.4f} ({comparison['confidence']:.0%} interval {low:+.4f} to {high:+.4f}, "
        f"n = {comparison['n']:,}); {comparison['fixed']} examples fixed, {comparison['broken']} broken "
        f"(exact McNemar p = {comparison['p_value']:.3g})."
    )


def examples(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A few examples with both models' probability of the true label."""
    table = _table(title, ["text", "label", "base", "tuned"])
    for row in rows:
        table.add_row(_shorten(row["text"]), row["label"], f"{row['base']:.2f}", f"{row['tuned']:.2f}")
    return table


def comparisons(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a pair of runs."""
    columns = ["run", "against", "difference", "95 % interval", "fixed", "broken", "p", "p (Holm)", "verdict"]
    table = _table("Paired comparison on the same rows", columns)
    for row in rows:
        low, high = row["confidence_interval"]
        table.add_row(
            row["run"],
            row["against"],
            f"{row['difference']:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            str(row["fixed"]),
            str(row["broken"]),
            f"{row['p_value']:.3g}",
            f"{row['p_value_holm']:.3g}",
            row["verdict"],
        )
    return table


def plan(found: Mapping[str, Any]) -> Table:
    """What a run will take."""
    seconds = found["seconds"]
    share = found["trainable_parameters"] / found["total_parameters"]
    return key_values(
        "Plan",
        {
            "rows": ", ".join(f"{name} {rows:,}" for name, rows in found["rows"].items()),
            "trainable parameters": f"{found['trainable_parameters']:,} of {found['total_parameters']:,} ({share:.2%})",
            "batches": f"{found['execution']['batches']} ({found['execution']['reason']})",
            "steps": f"{found['steps']:,}, {found['tokens']:,} tokens",
            "padding avoided": f"{found['padding_avoided']:.0%} of what padded batches would multiply",
            "preparing": _duration(seconds["preparing"]),
            "training": f"{_duration(seconds['training'])} (single steps were {seconds['doubt']:.0%} off the fit)",
            "evaluations": _duration(seconds["evaluations"]),
            "in all": _duration(seconds["total"]),
            "peak memory": f"{found['peak_memory_bytes'] / 1e9:.2f} GB",
            "disk": f"{found['disk_bytes'] / 1e6:.0f} MB",
        },
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def key_values(title: str, values: Mapping[str, Any]) -> Table:
    table = _table(title, ["", ""])
    table.show_header = False
    for key, value in values.items():
        table.add_row(key, str(value))
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def _shorten(text: str, width: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
