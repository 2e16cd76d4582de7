"""The report's sections, each a title and a list of parts: text, headings, tables, plots, code. No markup here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from featherweight.records.runs import untuned
from featherweight.report import inputs, labels, parts, svg, tables
from featherweight.runs.directory import RunDirectory

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
    makers: list[tuple[str, Callable[[RunDirectory, Mapping[str, Any]], list[parts.Part]]]] = [
        ("Baselines", _ladder),
        ("Paired comparison", _paired),
        ("Training", _training),
        ("Calibration", _calibration),
        ("Confusion", _confusion),
        ("Where", _where),
        ("Examples", _examples),
        ("Data", inputs.data),
        ("Recipe", inputs.recipe),
        ("Environment and cost", inputs.environment),
        ("Load it", inputs.loading),
    ]
    made = [parts.section(title, make(run, metrics)) for title, make in makers]
    return [one for one in made if one["parts"]]


def of_several(
    runs: Sequence[RunDirectory], metrics: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Sections of several runs side by side."""
    rungs = [(str(run.path), metrics[str(run.path)]["tuned"]) for run in runs]
    figures = [
        parts.row(one["run"], *(f"{one[f'eval_{name}']:.4f}" for name in _FIGURES), f"{one['trainable_parameters']:,}")
        for one in together["runs"]
    ]
    every = together["pairs"] if len(runs) > 2 else together["comparisons"]
    pairs = [
        parts.row(
            f"{one['run']} against {one['against']}",
            *parts.difference(one),
            f"{one['fixed']}",
            f"{one['broken']}",
            f"{one['p_value']:.3g}",
            f"{one['p_value_holm']:.3g}",
            verdict=one["verdict"],
        )
        for one in every
    ]
    pair_columns = ["runs", "difference", "95 % interval", "fixed", "broken", "p", "p (Holm)", "verdict"]
    curves = [
        svg.Series(
            str(run.path),
            [(one["epoch"], one["eval_loss"]) for one in metrics[str(run.path)]["epochs"]],
            index % 3 + 1,
            True,
        )
        for index, run in enumerate(runs)
    ]
    return [
        parts.section(
            "Results",
            [
                parts.table(
                    "Each run on the same rows", ["run", *(_NAMES[one] for one in _FIGURES), "trainable"], figures
                ),
                {"kind": "plots", "plots": [_accuracy_plot(rungs)]},
            ],
        ),
        parts.section("Paired comparison", [parts.table("Difference in accuracy, paired", pair_columns, pairs)]),
        parts.section(
            "Training",
            [
                {
                    "kind": "plots",
                    "plots": [
                        svg.lines(
                            "Validation loss", f"Validation loss by epoch of {len(runs)} runs.", curves, "epoch", "loss"
                        )
                    ],
                }
            ],
        ),
    ]


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
        "rows of train",
        "accuracy",
    )
    rows = [parts.row(*cells) for cells in tables.curve_rows(found)]
    columns = [one.name for one in tables.CURVE]
    how = f"Each point is the mean over {found['seeds']} draws of train, by {found['method']}, on the same rows. "
    return [
        parts.section(
            "Learning curve",
            [
                {"kind": "plots", "plots": [plot]},
                parts.table("Measured, and by the fitted curve", columns, rows),
                parts.text(
                    f"{how}The error is taken to be {law['a']:.3g} n^-{law['b']:.3g} + {law['c']:.3g}. The band comes "
                    "from the scatter over draws; it does not hold what the choice of the measured rows adds, nor that "
                    "the law may not hold further out."
                ),
            ],
        )
    ]


_FIGURES = ("accuracy", "macro_f1", "balanced_accuracy", "matthews_correlation")


def _ladder(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    rungs = tables.rungs(metrics)
    against = metrics["rungs"] | {untuned(metrics): metrics["comparison"]}
    rows = []
    for name, one in rungs.items():
        low, high = one["eval_accuracy_interval"]
        beaten = against.get(name)
        rows.append(
            parts.row(
                name,
                f"{one['eval_accuracy']:.4f}",
                f"{low:.4f} to {high:.4f}",
                *(f"{one[f'eval_{other}']:.4f}" for other in _FIGURES[1:]),
                *tables.cost(one["cost"]),
                f"{beaten['difference']:+.4f} ({beaten['p_value']:.2g})" if beaten else "",
                mark="mine" if name == "tuned model" else "",
            )
        )
    columns = ["model", "accuracy", "95 % interval", *(_NAMES[one] for one in _FIGURES[1:]), "time", "memory"]
    return [
        parts.text(tables.selection(metrics)),
        parts.table(f"On {metrics['evaluated_split']}, cheapest first", [*columns, "tuned gains (p)"], rows),
        {"kind": "plots", "plots": [_accuracy_plot(list(rungs.items()))]},
        parts.text(
            "Time is that of fitting and answering; for the tuned model, of training with its evaluations. Memory "
            "is what each added at its highest to what was resident before it. The linear probe is logistic "
            "regression on what the untuned model's head reads, from at most 5,000 rows of train."
        ),
    ]


def _paired(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    rows = [
        parts.row(
            _NAMES[name],
            f"{one['base']:.4f}",
            f"{one['tuned']:.4f}",
            *parts.difference(one),
            f"{one['p_value']:.3g}",
            f"{one['p_value_holm']:.3g}",
            verdict=one["verdict"],
        )
        for name, one in metrics["paired"].items()
    ]
    comparison = metrics["comparison"]
    made = [
        parts.table(
            "Base and tuned on the same rows",
            ["statistic", "base", "tuned", "difference", "95 % interval", "p", "p (Holm)", "verdict"],
            rows,
        ),
        parts.text(
            "Accuracy is tested by McNemar's exact test; the rest by permutation, with intervals by paired "
            "bootstrap. Holm's adjustment is over this table."
        ),
    ]
    if comparison["smallest_significant_difference"] is not None:
        text = f"With {comparison['n']:,} rows, and as many changed answers as here, a net difference of at least "
        text += f"{comparison['smallest_significant_difference']:.4f} is significant"
        power = comparison["detectable_difference"]
        made.append(parts.text(text + (f"; a true one of {power:.4f} is found 4 times in 5." if power else ".")))
    for key, what in _NOT_IN_TRAIN.items():
        clean = metrics.get(key, {"rows": 0})
        if not 0 < clean["rows"] < comparison["n"]:
            continue
        pair = clean["comparison"]
        low, high = pair["confidence_interval"]
        made.append(
            parts.text(
                f"On the {clean['rows']:,} rows {what}: {clean['base']['eval_accuracy']:.4f} before, "
                f"{clean['tuned']['eval_accuracy']:.4f} after ({pair['difference']:+.4f}, {low:+.4f} to {high:+.4f}, "
                f"p = {pair['p_value']:.3g})."
            )
        )
    return made


def _training(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    rows = [
        parts.row(f"{one['epoch']:g}", *(f"{one[key]:.4f}" for key in ("training_loss", "eval_loss", "eval_accuracy")))
        for one in metrics["epochs"]
    ]
    steps = [(one["epoch"], one["loss"]) for one in run.read_history() if one["event"] == "step"]
    losses = [(one["epoch"], one["eval_loss"]) for one in metrics["epochs"]]
    right = [(one["epoch"], one["eval_accuracy"]) for one in metrics["epochs"]]
    loss = svg.lines(
        "Loss while training",
        f"Training loss from {steps[0][1]:.3f} to {steps[-1][1]:.3f}; validation loss ends at {losses[-1][1]:.3f}."
        if steps
        else f"Validation loss ends at {losses[-1][1]:.3f}.",
        [svg.Series("training", steps, 1), svg.Series("validation", losses, 2, True)],
        "epoch",
        "loss",
    )
    accuracy = (
        svg.lines(
            "Validation accuracy",
            f"Accuracy ends at {right[-1][1]:.4f}.",
            [svg.Series("accuracy", right, 2, True)],
            "epoch",
            "accuracy",
        )
        if len(right) > 1
        else ""
    )
    return [
        parts.table("Evaluations", ["epoch", "training loss", "validation loss", "accuracy"], rows),
        {"kind": "plots", "plots": [loss, accuracy]},
    ]


def _calibration(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    tuned = metrics["calibration"]["tuned"]
    before, after = tuned["before"], tuned["after"]
    base = metrics["calibration"]["base"]["before"]
    rows = [
        parts.row(_NAMES[name], *(f"{one[name]:.4f}" for one in (base, before, after))) for name in list(_NAMES)[4:]
    ]
    curve = [(one["coverage"], one["risk"]) for one in tuned["risk_coverage"]["points"]]
    plots = [
        svg.lines(
            "Reliability of the tuned model",
            f"Accuracy against confidence; calibration error {before['expected_calibration_error']:.3f} as it is, "
            f"{after['expected_calibration_error']:.3f} at the fitted temperature. The diagonal is perfect.",
            [
                svg.Series(name, [(bin_["confidence"], bin_["accuracy"]) for bin_ in one["bins"]], kind, True)
                for kind, (name, one) in enumerate({"as it is": before, "at temperature": after}.items(), 1)
            ],
            "confidence",
            "accuracy",
            unit=True,
            diagonal=True,
        ),
        svg.lines(
            "Errors when only the surest are answered",
            f"Error rate from {curve[0][1]:.3f} at coverage {curve[0][0]:.2f} to {curve[-1][1]:.3f} at 1.",
            [svg.Series("tuned model", curve, 1)],
            "share of rows answered",
            "error rate",
        ),
    ]
    thresholds = [
        parts.row(
            f"{one['wanted_error_rate']:.0%}",
            f"{one['confidence']:.4f}",
            f"{one['coverage']:.1%}",
            parts.percent(one["error_rate"]),
            " to ".join(f"{end:.1%}" for end in one["error_rate_interval"] or []),
        )
        if one["confidence"] is not None
        else parts.row(f"{one['wanted_error_rate']:.0%}", "not reached", "", "", "")
        for one in tuned["thresholds"]
    ]
    return [
        parts.text(
            f"A temperature of {tuned['temperature']:.3f} was fitted on {tuned['fitted_rows']:,} validation rows and "
            f"is reported on {_reported(metrics)}. It changes no label; --calibrated applies it."
        ),
        parts.table("Smaller is better", ["score", "base", "tuned", "tuned, at temperature"], rows),
        {"kind": "plots", "plots": plots},
        *(
            [
                parts.table(
                    "Answer only when sure: threshold from the fitting rows, outcome on the others",
                    ["wanted error rate", "confidence at least", "answered", "error rate", "95 % interval"],
                    thresholds,
                )
            ]
            if thresholds
            else []
        ),
    ]


def _reported(metrics: Mapping[str, Any]) -> str:
    rows = f"{metrics['calibration']['tuned']['reported_rows']:,}"
    return (
        f"the other {rows}" if metrics["selection"]["is_evaluated"] else f"the {rows} {metrics['evaluated_split']} rows"
    )


def _confusion(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    names = list(metrics["label_shares"]["train"])
    if len(names) > _MOST_CONFUSED:
        wrong = [
            parts.row(label, said, f"{before:,}", f"{after:,}")
            for label, said, before, after in labels.mistakes(metrics)
        ]
        columns = ["label", "taken for", "rows before", "rows after"]
        return [parts.table("The tuned model's commonest mistakes", columns, wrong)] if wrong else []
    found = metrics["where"]["confusion"]
    return [{"kind": "confusion", "names": names, "tables": [("Before", found["base"]), ("After", found["tuned"])]}]


def _where(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    slices, left_out = labels.shown_slices(metrics)
    rows = [
        parts.row(
            f"{one['by']}: {one['value']}",
            f"{one['rows']:,}",
            f"{one['base']:.4f}",
            f"{one['tuned']:.4f}",
            *parts.difference(one),
            f"{one['p_value_holm']:.3g}",
            verdict=one["verdict"],
        )
        for one in slices
    ]
    columns = ["slice", "rows", "base", "tuned", "difference", "95 % interval", "p (Holm)", "verdict"]
    return [
        parts.table(
            f"Accuracy on {metrics['evaluated_split']} by label, by length, by the columns and keywords asked for",
            columns,
            rows,
        ),
        *([parts.text(left_out)] if left_out else []),
    ]


def _examples(run: RunDirectory, metrics: Mapping[str, Any]) -> list[parts.Part]:
    groups = [(name, rows) for name, rows in metrics["examples"].items() if rows]
    caption = "Up to 100 of each kind; base and tuned are the probabilities of the true label"
    return [{"kind": "examples", "caption": caption, "groups": groups}] if groups else []


def _accuracy_plot(rungs: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    rows = [(name, one["eval_accuracy"], *one["eval_accuracy_interval"]) for name, one in rungs]
    description = "; ".join(f"{name} {value:.4f} ({low:.4f} to {high:.4f})" for name, value, low, high in rows)
    return svg.intervals("Accuracy with 95 % intervals", f"{description}.", rows, "accuracy")
