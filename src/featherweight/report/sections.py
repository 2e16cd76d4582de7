"""The report's sections, each a title and a list of parts: text, headings, tables, plots, code. No markup here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from featherweight import records
from featherweight.report import labels, svg, tables
from featherweight.runs import RunDirectory

Part = dict[str, Any]
_NOT_IN_TRAIN = {
    "without_twins": "without a twin in train",
    "without_shared_groups": "whose group has no rows in train",
}
_MOST_CONFUSED = 20  # classes; a larger table can't be read
_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "matthews_correlation": "Matthews",
    "negative_log_likelihood": "negative log likelihood",
    "brier_score": "Brier score",
    "expected_calibration_error": "expected calibration error",
    "adaptive_calibration_error": "the same, bins of equal count",
}


def of_run(run: RunDirectory, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All sections of one run."""
    makers: list[tuple[str, Callable[[RunDirectory, Mapping[str, Any]], list[Part]]]] = [
        ("Baselines", _ladder),
        ("Paired comparison", _paired),
        ("Training", _training),
        ("Calibration", _calibration),
        ("Confusion", _confusion),
        ("Where", _where),
        ("Examples", _examples),
        ("Data", _data),
        ("Recipe", _recipe),
        ("Environment and cost", _environment),
        ("Load it", _loading),
    ]
    made = [_section(title, make(run, metrics)) for title, make in makers]
    return [one for one in made if one["parts"]]


def of_several(
    runs: Sequence[RunDirectory], metrics: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Sections of several runs side by side."""
    rungs = [(str(run.path), metrics[str(run.path)]["tuned"]) for run in runs]
    figures = [
        _row(one["run"], *(f"{one[f'eval_{name}']:.4f}" for name in _FIGURES), f"{one['trainable_parameters']:,}")
        for one in together["runs"]
    ]
    every = together["pairs"] if len(runs) > 2 else together["comparisons"]
    pairs = [
        _row(f"{one['run']} against {one['against']}", *_difference(one), f"{one['fixed']}", f"{one['broken']}",
             f"{one['p_value']:.3g}", f"{one['p_value_holm']:.3g}", verdict=one["verdict"])
        for one in every
    ]  # fmt: skip
    pair_columns = ["runs", "difference", "95 % interval", "fixed", "broken", "p", "p (Holm)", "verdict"]
    curves = [
        svg.Series(str(run.path), [(one["epoch"], one["eval_loss"]) for one in metrics[str(run.path)]["epochs"]],
                   index % 3 + 1, True)
        for index, run in enumerate(runs)
    ]  # fmt: skip
    return [
        _section("Results", [
            _table("Each run on the same rows", ["run", *(_NAMES[one] for one in _FIGURES), "trainable"], figures),
            {"kind": "plots", "plots": [_accuracy_plot(rungs)]},
        ]),
        _section("Paired comparison", [_table("Difference in accuracy, paired", pair_columns, pairs)]),
        _section("Training", [{"kind": "plots", "plots": [
            svg.lines("Validation loss", f"Validation loss by epoch of {len(runs)} runs.", curves, "epoch", "loss")]}]),
    ]  # fmt: skip


def of_curve(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The one section of a learning curve."""
    curve, points, law = found["curve"], found["points"], found["law"]
    plot = svg.lines(
        "Accuracy by rows of train",
        f"Measured from {points[0]['mean']:.4f} with {points[0]['rows']:,} rows to {points[-1]['mean']:.4f} with "
        f"{points[-1]['rows']:,}; extrapolated to {curve[-1]['accuracy']:.4f} with {curve[-1]['rows']:,.0f}.",
        [
            svg.Series("measured", [(one["rows"], one["mean"]) for one in points], 1, True),
            svg.Series("fitted and extrapolated", [(one["rows"], one["accuracy"]) for one in curve], 2),
            *(svg.Series("95 % band", [(one["rows"], one[end]) for one in curve], 3) for end in ("low", "high")),
        ],
        "rows of train", "accuracy",
    )  # fmt: skip
    rows = [_row(*cells) for cells in tables.curve_rows(found)]
    columns = [one.name for one in tables.CURVE]
    how = f"Each point is the mean over {found['seeds']} draws of train, by {found['method']}, on the same rows. "
    return [_section("Learning curve", [
        {"kind": "plots", "plots": [plot]},
        _table("Measured, and by the fitted curve", columns, rows),
        _text(f"{how}The error is taken to be {law['a']:.3g} n^-{law['b']:.3g} + {law['c']:.3g}. The band comes from "
              "the scatter over draws; it does not hold what the choice of the measured rows adds, nor that the law "
              "may not hold further out."),
    ])]  # fmt: skip


_FIGURES = ("accuracy", "macro_f1", "balanced_accuracy", "matthews_correlation")


def _ladder(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    rungs = tables.rungs(metrics)
    against = metrics["rungs"] | {records.untuned(metrics): metrics["comparison"]}
    rows = []
    for name, one in rungs.items():
        low, high = one["eval_accuracy_interval"]
        beaten = against.get(name)
        rows.append(
            _row(name, f"{one['eval_accuracy']:.4f}", f"{low:.4f} to {high:.4f}",
                 *(f"{one[f'eval_{other}']:.4f}" for other in _FIGURES[1:]), *tables.cost(one["cost"]),
                 f"{beaten['difference']:+.4f} ({beaten['p_value']:.2g})" if beaten else "",
                 mark="mine" if name == "tuned model" else "")
        )  # fmt: skip
    columns = ["model", "accuracy", "95 % interval", *(_NAMES[one] for one in _FIGURES[1:]), "time", "memory"]
    return [
        _text(tables.selection(metrics)),
        _table(f"On {metrics['evaluated_split']}, cheapest first", [*columns, "tuned gains (p)"], rows),
        {"kind": "plots", "plots": [_accuracy_plot(list(rungs.items()))]},
        _text("Time is that of fitting and answering; for the tuned model, of training with its evaluations. Memory "
              "is what each added at its highest to what was resident before it. The linear probe is logistic "
              "regression on what the untuned model's head reads, from at most 5,000 rows of train."),
    ]  # fmt: skip


def _paired(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    rows = [
        _row(_NAMES[name], f"{one['base']:.4f}", f"{one['tuned']:.4f}", *_difference(one), f"{one['p_value']:.3g}",
             f"{one['p_value_holm']:.3g}", verdict=one["verdict"])
        for name, one in metrics["paired"].items()
    ]  # fmt: skip
    comparison = metrics["comparison"]
    parts = [
        _table("Base and tuned on the same rows",
               ["statistic", "base", "tuned", "difference", "95 % interval", "p", "p (Holm)", "verdict"], rows),
        _text("Accuracy is tested by McNemar's exact test; the rest by permutation, with intervals by paired "
              "bootstrap. Holm's adjustment is over this table."),
    ]  # fmt: skip
    if comparison["smallest_significant_difference"] is not None:
        text = f"With {comparison['n']:,} rows, and as many changed answers as here, a net difference of at least "
        text += f"{comparison['smallest_significant_difference']:.4f} is significant"
        power = comparison["detectable_difference"]
        parts.append(_text(text + (f"; a true one of {power:.4f} is found 4 times in 5." if power else ".")))
    for key, what in _NOT_IN_TRAIN.items():
        clean = metrics.get(key, {"rows": 0})
        if not 0 < clean["rows"] < comparison["n"]:
            continue
        pair = clean["comparison"]
        low, high = pair["confidence_interval"]
        parts.append(_text(
            f"On the {clean['rows']:,} rows {what}: {clean['base']['eval_accuracy']:.4f} before, "
            f"{clean['tuned']['eval_accuracy']:.4f} after ({pair['difference']:+.4f}, {low:+.4f} to {high:+.4f}, "
            f"p = {pair['p_value']:.3g})."))  # fmt: skip
    return parts


def _training(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    rows = [
        _row(f"{one['epoch']:g}", *(f"{one[key]:.4f}" for key in ("training_loss", "eval_loss", "eval_accuracy")))
        for one in metrics["epochs"]
    ]
    steps = [(one["epoch"], one["loss"]) for one in run.read_history() if one["event"] == "step"]
    losses = [(one["epoch"], one["eval_loss"]) for one in metrics["epochs"]]
    right = [(one["epoch"], one["eval_accuracy"]) for one in metrics["epochs"]]
    loss = svg.lines(
        "Loss while training",
        f"Training loss from {steps[0][1]:.3f} to {steps[-1][1]:.3f}; validation loss ends at {losses[-1][1]:.3f}."
        if steps else f"Validation loss ends at {losses[-1][1]:.3f}.",
        [svg.Series("training", steps, 1), svg.Series("validation", losses, 2, True)], "epoch", "loss",
    )  # fmt: skip
    accuracy = svg.lines(
        "Validation accuracy", f"Accuracy ends at {right[-1][1]:.4f}.", [svg.Series("accuracy", right, 2, True)],
        "epoch", "accuracy",
    ) if len(right) > 1 else ""  # fmt: skip
    return [
        _table("Evaluations", ["epoch", "training loss", "validation loss", "accuracy"], rows),
        {"kind": "plots", "plots": [loss, accuracy]},
    ]


def _calibration(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    tuned = metrics["calibration"]["tuned"]
    before, after = tuned["before"], tuned["after"]
    base = metrics["calibration"]["base"]["before"]
    rows = [
        _row(_NAMES[name], *(f"{one[name]:.4f}" for one in (base, before, after)))
        for name in list(_NAMES)[4:]
    ]  # fmt: skip
    curve = [(one["coverage"], one["risk"]) for one in tuned["risk_coverage"]["points"]]
    plots = [
        svg.lines(
            "Reliability of the tuned model",
            f"Accuracy against confidence; calibration error {before['expected_calibration_error']:.3f} as it is, "
            f"{after['expected_calibration_error']:.3f} at the fitted temperature. The diagonal is perfect.",
            [svg.Series(name, [(bin_["confidence"], bin_["accuracy"]) for bin_ in one["bins"]], kind, True)
             for kind, (name, one) in enumerate({"as it is": before, "at temperature": after}.items(), 1)],
            "confidence", "accuracy", unit=True, diagonal=True,
        ),
        svg.lines(
            "Errors when only the surest are answered",
            f"Error rate from {curve[0][1]:.3f} at coverage {curve[0][0]:.2f} to {curve[-1][1]:.3f} at 1.",
            [svg.Series("tuned model", curve, 1)], "share of rows answered", "error rate",
        ),
    ]  # fmt: skip
    thresholds = [
        _row(f"{one['wanted_error_rate']:.0%}", f"{one['confidence']:.4f}", f"{one['coverage']:.1%}",
             _percent(one["error_rate"]),
             " to ".join(f"{end:.1%}" for end in one["error_rate_interval"] or []))
        if one["confidence"] is not None else _row(f"{one['wanted_error_rate']:.0%}", "not reached", "", "", "")
        for one in tuned["thresholds"]
    ]  # fmt: skip
    return [
        _text(f"A temperature of {tuned['temperature']:.3f} was fitted on {tuned['fitted_rows']:,} validation rows and "
              f"is reported on {_reported(metrics)}. It changes no label; --calibrated applies it."),
        _table("Smaller is better", ["score", "base", "tuned", "tuned, at temperature"], rows),
        {"kind": "plots", "plots": plots},
        *([_table("Answer only when sure: threshold from the fitting rows, outcome on the others",
                  ["wanted error rate", "confidence at least", "answered", "error rate", "95 % interval"], thresholds)]
          if thresholds else []),
    ]  # fmt: skip


def _reported(metrics: Mapping[str, Any]) -> str:
    rows = f"{metrics['calibration']['tuned']['reported_rows']:,}"
    return (
        f"the other {rows}" if metrics["selection"]["is_evaluated"] else f"the {rows} {metrics['evaluated_split']} rows"
    )


def _confusion(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    names = list(metrics["label_shares"]["train"])
    if len(names) > _MOST_CONFUSED:
        wrong = [
            _row(label, said, f"{before:,}", f"{after:,}") for label, said, before, after in labels.mistakes(metrics)
        ]
        columns = ["label", "taken for", "rows before", "rows after"]
        return [_table("The tuned model's commonest mistakes", columns, wrong)] if wrong else []
    found = metrics["where"]["confusion"]
    return [{"kind": "confusion", "names": names, "tables": [("Before", found["base"]), ("After", found["tuned"])]}]


def _where(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    slices, left_out = labels.shown_slices(metrics)
    rows = [
        _row(f"{one['by']}: {one['value']}", f"{one['rows']:,}", f"{one['base']:.4f}", f"{one['tuned']:.4f}",
             *_difference(one), f"{one['p_value_holm']:.3g}", verdict=one["verdict"])
        for one in slices
    ]  # fmt: skip
    columns = ["slice", "rows", "base", "tuned", "difference", "95 % interval", "p (Holm)", "verdict"]
    return [
        _table(
            f"Accuracy on {metrics['evaluated_split']} by label, by length, by the columns and keywords asked for",
            columns,
            rows,
        ),
        *([_text(left_out)] if left_out else []),
    ]


def _examples(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    groups = [(name, rows) for name, rows in metrics["examples"].items() if rows]
    caption = "Up to 100 of each kind; base and tuned are the probabilities of the true label"
    return [{"kind": "examples", "caption": caption, "groups": groups}] if groups else []


def _data(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    checks = metrics["data_checks"]
    rows = []
    for name, one in checks["splits"].items():
        shares = ", ".join(f"{label} {share:.1%}" for label, share in list(one["label_shares"].items())[:6])
        cut = metrics["truncation"].get(name, {"rows": 0, "share": 0.0})
        words = one["words"]
        rows.append(_row(name, f"{one['rows']:,}", shares, f"{words['median']:g}", f"{words['longest']:,}",
                         f"{cut['rows']:,} ({cut['share']:.1%} of tokens)", f"{metrics['dropped_empty_rows'][name]:,}",
                         f"{metrics.get('skipped_bad_rows', {}).get(name, 0):,}",
                         *(f"{one[key]:,}" for key in _REPEATS)))  # fmt: skip
    columns = ["split", "rows", "labels", "median words", "longest", "cut", "empty", "unreadable"]
    parts = [_table("Splits", [*columns, "repeats", "but for form", "nearly"], rows, "wordy")]
    if checks["twins"]:
        twins = [
            _row(name, f"{one['rows']:,}", *(f"{one[key]:,}" for key in ("exact", "normalised", "near")))
            for name, one in checks["twins"].items()
        ]
        parts.append(_table("Rows that also stand in train; each sense includes the stricter",
                            ["split", "rows", "to the byte", "but for form", "nearly"], twins))  # fmt: skip
    lists = [
        ("Same text, different labels", checks["conflicting_labels"]["examples"], "label"),
        (
            _SUSPECTS.format(**checks["suspected_label_errors"]),
            checks["suspected_label_errors"]["examples"][:20],
            "suggested",
        ),
    ]
    for caption, found, other in lists:
        shown = [_row(str(one["row"]), one["text"], one["label"], one[other]) for one in found]
        names = ["row", "text", "label", other]
        if other == "label":
            shown, names = [{**one, "cells": one["cells"][:2]} for one in shown], names[:3]
        parts += [_table(caption, names, shown, "wordy")] if shown else []
    return parts


_SUSPECTS = "Suspected label errors: {suspects:,} of {rows:,} {split} rows looked at, the most suspect first"
_REPEATS = ("exactly_repeated_texts", "repeated_texts", "nearly_repeated_texts")


def _recipe(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    if not run.recipe.is_file():
        return []
    text = "\n".join(line for line in run.recipe.read_text(encoding="utf-8").splitlines() if "is not set" not in line)
    return [
        _text("As resolved: every default written out, with the reason where it was chosen automatically."),
        {"kind": "code", "label": "recipe.toml", "text": text},
    ]


def _environment(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    found = run.read_environment()
    resources = metrics["resources"]
    cost = {
        "training time": _seconds(resources["train_runtime"]) if "train_runtime" in resources else None,
        "rows a second": f"{resources.get('train_samples_per_second', 0):.1f}",
        "processor time": _seconds(resources["tuning"]["processor_seconds"]),
        "peak memory": f"{resources['peak_memory_bytes'] / 1e9:.2f} GB",
        "energy of tuning": tables.energy(resources["tuning"]["energy"]),
        "trainable parameters": f"{metrics['trainable_parameters']:,} of {metrics['total_parameters']:,}",
        **_survived(metrics.get("reliability")),
    }
    flat = {
        **{key: value for key, value in found["hardware"].items() if key != "memory_bytes"},
        "memory": f"{(found['hardware'].get('memory_bytes') or 0) / 1e9:.1f} GB",
        "precision": found["precision"],
        "seed": found["seed"],
        "model": f"{found['model']['name']} ({found['model']['fingerprint']})",
        **{f"{name} data": f"{one['rows']:,} rows ({one['fingerprint'][:24]})" for name, one in found["data"].items()},
    }
    return [
        _table("Cost", ["what", "value"], [_row(key, str(value)) for key, value in cost.items() if value], "wordy"),
        _table(
            "Machine and inputs",
            ["what", "value"],
            [_row(key, str(value)) for key, value in flat.items() if value],
            "wordy",
        ),
        _table(
            "Versions",
            ["what", "value"],
            [_row(key, str(value)) for key, value in found["versions"].items() if value],
            "wordy",
        ),
    ]


def _survived(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What saving cost, what was left out, and where the run was taken up again."""
    if found is None:
        return {}
    saves = found["checkpoints"]
    rows = {
        "checkpoints": f"{saves['saves']} saved in {_seconds(saves['seconds'])}, {saves['share_of_training']:.1%} of "
        f"the training time; up to {saves['bytes'] / 1e6:.1f} MB each"
    }
    if steps := found["skipped_steps"]:
        rows["steps left out"] = f"{len(steps)}, their loss or gradient was not finite: {', '.join(map(str, steps))}"
    if found["micro_batch_rows"] is not None:
        rows["out of memory"] = f"went on with {found['micro_batch_rows']} rows at a time, as many a step as asked for"
    for index, one in enumerate(found["resumes"], 1):
        changed = "; ".join(f"{key} was {before}, is {now}" for key, (before, now) in one["changed"].items())
        rows[f"resumed ({index})"] = f"after step {one['step']}" + (f", not bit-exact: {changed}" if changed else "")
    if "largest_difference" in found["gate"]:
        rows["read back before publishing"] = (
            f"{found['gate']['rows']} rows answered by what was written, probabilities within "
            f"{found['gate']['largest_difference']:.1e}"
        )
    return rows


def _loading(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    card = next((path for path in (run.path / "adapter" / "README.md", run.path / "model" / "README.md")
                 if path.is_file()), None)  # fmt: skip
    if card is None:
        return []
    code = card.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    code = code.replace("path/to/this/folder", f"{run.path}/{card.parent.name}")
    where = shlex.quote(str(run.path))
    commands = f"{tables.predict_command(run.path, metrics)}\nfeatherweight evaluate {where} --data new.csv\n"
    return [
        {"kind": "code", "label": "Commands", "text": commands},
        _text("Without Featherweight:"),
        {"kind": "code", "label": "Python", "text": code},
    ]


def _accuracy_plot(rungs: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    rows = [(name, one["eval_accuracy"], *one["eval_accuracy_interval"]) for name, one in rungs]
    description = "; ".join(f"{name} {value:.4f} ({low:.4f} to {high:.4f})" for name, value, low, high in rows)
    return svg.intervals("Accuracy with 95 % intervals", f"{description}.", rows, "accuracy")


def _section(title: str, parts: list[Part]) -> dict[str, Any]:
    return {"id": title.lower().replace(" ", "-"), "title": title, "parts": parts}


def _text(text: str) -> Part:
    return {"kind": "text", "text": text}


def _table(caption: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], mark: str = "") -> Part:
    return {"kind": "table", "caption": caption, "columns": columns, "rows": rows, "class": mark}


def _row(name: str, *cells: str, mark: str = "", verdict: str = "") -> dict[str, Any]:
    return {"name": name, "cells": list(cells), "class": mark, "verdict": verdict}


def _difference(one: Mapping[str, Any]) -> tuple[str, str]:
    low, high = one["confidence_interval"]
    return f"{one['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}"


def _seconds(value: float) -> str:
    minutes, seconds = divmod(value, 60)
    return f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else ""
