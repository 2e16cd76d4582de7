"""The report's sections, each a title and a list of parts: text, headings, tables, plots, code. No markup here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.answers import headline_of, kind_of, statistics_of
from featherweight.evidence.exhibits import MODELS, exhibits_of
from featherweight.records import parts
from featherweight.records.parts import Intervals, Lines, Part, Series
from featherweight.records.runs import untuned
from featherweight.report import inputs, tables
from featherweight.runs.directory import RunDirectory

_NOT_IN_TRAIN = {
    "without_twins": "without a twin in train",
    "without_shared_groups": "whose group has no rows in train",
}


def of_run(run: RunDirectory, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All sections of one run: what every run has, the exhibits of its kind of answer, and what it was made from."""
    exhibits = exhibits_of(kind_of(metrics))
    made = [
        ("Baselines", _ladder(metrics)),
        ("Paired comparison", _paired(metrics)),
        ("Training", _training(run, metrics)),
        *((one.title, one.show(metrics)) for one in exhibits),
        ("Data", inputs.data(run, metrics)),
        ("Recipe", inputs.recipe(run, metrics)),
        ("Environment and cost", inputs.environment(run, metrics)),
        ("Load it", inputs.loading(run, metrics)),
    ]
    return [parts.section(title, content) for title, content in made if content]


def of_several(metrics: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sections of several runs side by side, each with its name."""
    first, *_ = metrics.values()
    shown = [one for one in statistics_of(kind_of(first)) if one.in_evaluations]
    rungs = {name: found["tuned"] for name, found in metrics.items()}
    kinds = [index % 3 + 1 for index in range(len(metrics))]
    figures = [
        parts.row(one["run"], *(f"{one[f'eval_{of.name}']:.4f}" for of in shown), f"{one['trainable_parameters']:,}")
        for one in together["runs"]
    ]
    every = together["pairs"] if len(metrics) > 2 else together["comparisons"]
    curves = [
        Series(name, [(one["epoch"], one["eval_loss"]) for one in found["epochs"]], kind, True)
        for kind, (name, found) in zip(kinds, metrics.items(), strict=True)
    ]
    loss = Lines("Validation loss", f"Validation loss by epoch of {len(metrics)} runs.", curves, "epoch", "loss")
    columns = ["run", *(one.title for one in shown), "trainable"]
    return [
        parts.section(
            "Results",
            [
                parts.table("Each run on the same rows", columns, figures),
                parts.plots(_headline_plot(rungs, kinds, first)),
            ],
        ),
        parts.section(
            "Paired comparison",
            [_pairs(f"Difference in {headline_of(first).title}, paired", every)],
        ),
        parts.section("Training", [parts.plots(loss)]),
    ]


def _pairs(caption: str, every: Sequence[Mapping[str, Any]]) -> Part:
    """A row for each two runs that are compared."""
    rows = [
        parts.row(
            f"{one['run']} against {one['against']}",
            *parts.difference(one),
            *("" if one[key] is None else f"{one[key]}" for key in ("fixed", "broken")),
            f"{one['p_value']:.3g}",
            f"{one['p_value_holm']:.3g}",
            verdict=one["verdict"],
        )
        for one in every
    ]
    columns = ["runs", "difference", "95 % interval", "fixed", "broken", "p", "p (Holm)", "verdict"]
    return parts.table(caption, columns, rows)


def of_seeds(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The one section of several seeds."""
    shown = tables.over_seeds(found)
    rows = [parts.row(*cells) for cells in tables.seed_rows(found)]
    content = [
        parts.table(shown.title, [one.name for one in shown.columns], rows),
        parts.text(
            "Each seed is a whole run, with a report of its own in its folder; all are measured on the same rows. The "
            "interval is that of other rows and other seeds, both drawn with replacement (Owen, 2007): a row counts "
            "with its mean over the seeds. Few seeds tell little of how far seeds scatter."
        ),
    ]
    return [parts.section("Seeds", content)]


def of_curve(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The one section of a learning curve."""
    curve, points, law = found["curve"], found["points"], found["law"]
    title = headline_of(found).title
    plot = Lines(
        f"{title.capitalize()} by rows of train",
        f"Measured from {points[0]['mean']:.4f} with {points[0]['rows']:,} rows to {points[-1]['mean']:.4f} with "
        f"{points[-1]['rows']:,}; extrapolated to {curve[-1]['accuracy']:.4f} with {curve[-1]['rows']:,.0f}.",
        [
            Series("measured", [(one["rows"], one["mean"]) for one in points], 1, True),
            Series("fitted and extrapolated", [(one["rows"], one["accuracy"]) for one in curve], 2),
            *(Series("95 % band", [(one["rows"], one[end]) for one in curve], 3) for end in ("low", "high")),
        ],
        "rows of train",
        title,
    )
    rows = [parts.row(*cells) for cells in tables.curve_rows(found)]
    columns = [one.name for one in tables.CURVE]
    how = f"Each point is the mean over {found['seeds']} draws of train, by {found['method']}, on the same rows. "
    return [
        parts.section(
            "Learning curve",
            [
                parts.plots(plot),
                parts.table("Measured, and by the fitted curve", columns, rows),
                parts.text(
                    f"{how}The error is taken to be {law['a']:.3g} n^-{law['b']:.3g} + {law['c']:.3g}. The band comes "
                    "from the scatter over draws; it does not hold what the choice of the measured rows adds, nor that "
                    "the law may not hold further out."
                ),
            ],
        )
    ]


def _ladder(metrics: Mapping[str, Any]) -> list[Part]:
    first, *others = (one for one in statistics_of(kind_of(metrics)) if one.in_evaluations)
    rungs = tables.rungs(metrics)
    against = metrics["rungs"] | {untuned(metrics): metrics["comparison"]}
    rows = []
    for name, one in rungs.items():
        low, high = one[f"eval_{first.name}_interval"]
        beaten = against.get(name)
        rows.append(
            parts.row(
                name,
                f"{one[f'eval_{first.name}']:.4f}",
                f"{low:.4f} to {high:.4f}",
                *(f"{one[f'eval_{other.name}']:.4f}" for other in others),
                *tables.cost(one["cost"]),
                f"{beaten['difference']:+.4f} ({beaten['p_value']:.2g})" if beaten else "",
                mark="mine" if name == "tuned model" else "",
            )
        )
    columns = ["model", first.title, "95 % interval", *(one.title for one in others), "time", "memory"]
    probe = (
        " The probe is a linear model on what the untuned model's head reads, from at most 5,000 rows of train."
        if kind_of(metrics).probe
        else ""
    )
    return [
        parts.text(tables.selection(metrics)),
        *map(parts.text, tables.scatter(metrics)),
        parts.table(f"On {metrics['evaluated_split']}, cheapest first", [*columns, "tuned gains (p)"], rows),
        parts.plots(_headline_plot(rungs, [*[1] * (len(rungs) - 1), 2], metrics)),
        parts.text(
            "Time is that of fitting and answering; for the tuned model, of training with its evaluations. Memory "
            f"is what each added at its highest to what was resident before it.{probe}"
        ),
    ]


def _paired(metrics: Mapping[str, Any]) -> list[Part]:
    titles = {one.name: one.title for one in statistics_of(kind_of(metrics))}
    table = parts.paired("Base and tuned on the same rows", MODELS, titles, metrics["paired"])
    tested = f"{_how_tested(metrics['paired'], titles)} with intervals by paired bootstrap. Holm's adjustment "
    return [
        table,
        parts.text(f"{tested}is over this table."),
        *_power(metrics),
        *_against_rivals(metrics, titles),
        *_not_in_train(metrics),
    ]


def _against_rivals(metrics: Mapping[str, Any], titles: Mapping[str, str]) -> list[Part]:
    """What a rival is compared by besides the headline."""
    return [
        parts.text(
            f"Against {name} by {titles[statistic]}: {one['base']:.4f}, tuned {one['tuned']:.4f} "
            f"({' ('.join(parts.difference(one))}), p = {one['p_value']:.3g})."
        )
        for name, rung in metrics["rungs"].items()
        for statistic, one in rung.get("paired", {}).items()
    ]


def _power(metrics: Mapping[str, Any]) -> list[Part]:
    """What so many rows could have shown."""
    comparison = metrics["comparison"]
    if comparison["smallest_significant_difference"] is None:
        return []
    text = f"With {comparison['n']:,} rows, and as many changed answers as here, a net difference of at least "
    text += f"{comparison['smallest_significant_difference']:.4f} is significant"
    power = comparison["detectable_difference"]
    return [parts.text(text + (f"; a true one of {power:.4f} is found 4 times in 5." if power else "."))]


def _not_in_train(metrics: Mapping[str, Any]) -> list[Part]:
    """The figures again on the rows that are not known from train."""
    comparison = metrics["comparison"]
    figure = f"eval_{comparison['metric']}"
    made = []
    for key, what in _NOT_IN_TRAIN.items():
        clean = metrics.get(key, {"rows": 0})
        if not 0 < clean["rows"] < comparison["n"]:
            continue
        pair = clean["comparison"]
        low, high = pair["confidence_interval"]
        made.append(
            parts.text(
                f"On the {clean['rows']:,} rows {what}: {clean['base'][figure]:.4f} before, "
                f"{clean['tuned'][figure]:.4f} after ({pair['difference']:+.4f}, {low:+.4f} to {high:+.4f}, "
                f"p = {pair['p_value']:.3g})."
            )
        )
    return made


def _how_tested(paired: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    exact = [titles[name] for name, one in paired.items() if one["test"].startswith("mcnemar")]
    if not exact:
        return "Tested by permutation,"
    named = " and ".join(exact)
    are = "is" if len(exact) == 1 else "are"
    return f"{named[:1].upper()}{named[1:]} {are} tested by McNemar's exact test; the rest by permutation,"


def _training(run: RunDirectory, metrics: Mapping[str, Any]) -> list[Part]:
    first = headline_of(metrics)
    figure = f"eval_{first.name}"
    rows = [
        parts.row(f"{one['epoch']:g}", *(f"{one[key]:.4f}" for key in ("training_loss", "eval_loss", figure)))
        for one in metrics["epochs"]
    ]
    steps = [(one["epoch"], one["loss"]) for one in run.read_history() if one["event"] == "step"]
    losses = [(one["epoch"], one["eval_loss"]) for one in metrics["epochs"]]
    found = [(one["epoch"], one[figure]) for one in metrics["epochs"]]
    loss = Lines(
        "Loss while training",
        f"Training loss from {steps[0][1]:.3f} to {steps[-1][1]:.3f}; validation loss ends at {losses[-1][1]:.3f}."
        if steps
        else f"Validation loss ends at {losses[-1][1]:.3f}.",
        [Series("training", steps, 1), Series("validation", losses, 2, True)],
        "epoch",
        "loss",
    )
    by_epoch = Lines(
        f"Validation {first.title}",
        f"{first.heading} ends at {found[-1][1]:.4f}.",
        [Series(first.title, found, 2, True)],
        "epoch",
        first.title,
    )
    return [
        parts.table("Evaluations", ["epoch", "training loss", "validation loss", first.title], rows),
        parts.plots(loss, *([by_epoch] if len(found) > 1 else [])),
    ]


def _headline_plot(
    rungs: Mapping[str, Mapping[str, Any]], kinds: Sequence[int], metrics: Mapping[str, Any]
) -> Intervals:
    first = headline_of(metrics)
    rows = [(name, one[f"eval_{first.name}"], *one[f"eval_{first.name}_interval"]) for name, one in rungs.items()]
    description = "; ".join(f"{name} {value:.4f} ({low:.4f} to {high:.4f})" for name, value, low, high in rows)
    return Intervals(f"{first.heading} with 95 % intervals", f"{description}.", rows, kinds, first.title)
