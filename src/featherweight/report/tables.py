"""The terminal's tables, one function each, from the content of ``metrics.json``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from featherweight.answers import Answer, Described, headline, headline_of, kind_of, statistics_of
from featherweight.records.parts import Column
from featherweight.records.questions import JOINT
from featherweight.records.runs import rungs as rungs_of
from featherweight.records.runs import untuned
from featherweight.report.fitted import FittedTable
from featherweight.statistics.additive import Statistic

_MOST_LISTED = 20
MOST_LABELS = 10  # with more, tables show the commonest, or the worst
CURVE = (
    Column("rows of train"), Column("measured"), Column("scatter (SD)", 2), Column("by the curve"),
    Column("95 % band", 3), Column("gain"), Column("its 95 % band", 1),
)  # fmt: skip
_TIMES = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def described(how: Described, found: Mapping[str, Mapping[str, float]], splits: Mapping[str, Sized]) -> FittedTable:
    """What the truth of each split is like, one column a split; of many shares the commonest, and the others
    together."""
    columns = [
        Column(how.column, words=True),
        *(Column(f"{split} ({len(splits[split]):,} rows)") for split in found),
    ]
    table = FittedTable(how.title, columns)
    names = list(dict.fromkeys(name for parts in found.values() for name in parts))
    shown = names
    if how.shares and len(names) > MOST_LABELS:
        table.title = f"{how.title}: the {MOST_LABELS} commonest of {len(names):,} {how.names}"
        shown = sorted(names, key=lambda name: -next(iter(found.values())).get(name, 0))[:MOST_LABELS]
    for name in shown:
        table.add_row(name, *(how.form.format(parts.get(name, 0)) for parts in found.values()))
    if rest := set(names) - set(shown):
        others = (sum(parts.get(name, 0) for name in rest) for parts in found.values())
        table.add_row(f"({len(rest):,} others)", *(how.form.format(share) for share in others))
    return table


def parameters(trainable: int, total: int) -> str:
    return f"Trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})"


def epochs(records: Sequence[Mapping[str, Any]], first: Statistic) -> FittedTable:
    """One row an evaluation during training."""
    columns = [Column("epoch"), Column("training loss", 1), Column("validation loss"), Column(first.title)]
    table = FittedTable("Training", columns)
    for record in records:
        figures = (record[key] for key in ("training_loss", "eval_loss", f"eval_{first.name}"))
        table.add_row(f"{record['epoch']:g}", *(f"{one:.4f}" for one in figures))
    return table


def evaluations(columns: Mapping[str, Mapping[str, float]], first: Statistic) -> FittedTable:
    """Evaluations side by side, one column each."""
    table = FittedTable("Evaluation", [Column("", words=True), *map(Column, columns)])
    for name in ("eval_loss", f"eval_{first.name}", *_TIMES):
        table.add_row(name, *(f"{metrics[name]:.4f}" for metrics in columns.values()))
    return table


def measured(name: str, metrics: Mapping[str, Any], kind: Answer) -> FittedTable:
    """One model's evaluation, with the headline's interval and what the headline hides."""
    first, *others = (f"eval_{one.name}" for one in statistics_of(kind) if one.in_evaluations)
    table = FittedTable("Evaluation", [Column("", words=True), Column(name)])
    for row in ("eval_loss", first, f"{first}_interval", *others, *_TIMES):
        value = metrics[row]
        table.add_row(row, " to ".join(f"{one:.4f}" for one in (value if isinstance(value, list) else [value])))
    return table


def ladder(metrics: Mapping[str, Any]) -> FittedTable:
    """Baselines, base and tuned, with the headline's interval and what each took."""
    first, *others = (one for one in statistics_of(kind_of(metrics)) if one.in_evaluations)
    columns = [
        Column("model", words=True), Column(first.title), Column("95 % interval", 2),
        *(Column(one.title, 1 if index == 0 else 4 + index) for index, one in enumerate(others)),
        Column("time", 3), Column("memory", 4),
    ]  # fmt: skip
    table = FittedTable(f"{first.heading} on {metrics['evaluated_split']}, cheapest first", columns)
    for name, rung in rungs(metrics).items():
        low, high = rung[f"eval_{first.name}_interval"]
        table.add_row(
            name,
            f"{rung[f'eval_{first.name}']:.4f}",
            f"{low:.4f} to {high:.4f}",
            *(f"{rung[f'eval_{one.name}']:.4f}" for one in others),
            *cost(rung["cost"]),
        )
    return table


def rungs(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every rung's metrics by the name that readers see, the cheapest first; each with its ``cost``."""
    return rungs_of(metrics) | {"tuned model": {**metrics["tuned"], "cost": metrics["resources"]["tuning"]}}


def cost(spent: Mapping[str, Any]) -> tuple[str, str]:
    """Time and memory of a rung."""
    seconds, memory = spent["seconds"], spent["memory_growth_bytes"]
    return _duration(
        seconds
    ) if seconds >= 10 else f"{seconds:.1f} s", "" if memory is None else f"{memory / 1e6:,.0f} MB"


def energy(spent: Mapping[str, Any]) -> str:
    """Watt hours, and whether they were counted or are an estimate."""
    kind = "an estimate: " if spent["estimate"] else ""
    return f"{spent['joules'] / 3600:.3g} Wh ({kind}{spent['source']})"


def selection(metrics: Mapping[str, Any]) -> str:
    """Which split the figures are of, which chose the checkpoint, and how hopeful that makes them."""
    chosen, split, rows = metrics["selection"], metrics["evaluated_split"], metrics["comparison"]["n"]
    first = headline_of(metrics)
    count = chosen["candidates"]
    if not chosen["is_evaluated"]:
        how = f"chose the best of {count} evaluations" if count > 1 else "were looked at while training"
        return (
            f"Figures are of the {rows:,} {split} rows, which chose nothing; the {chosen['rows']:,} {chosen['split']} "
            f"rows {how}, and there the tuned model's {first.title} is {chosen['tuned'][f'eval_{first.name}']:.4f}."
        )
    if count < 2:
        return f"Every figure is of the same {rows:,} {split} rows; no checkpoint was chosen by them."
    return (
        f"Every figure is of the same {rows:,} {split} rows. They also chose the best of {count} evaluations, so the "
        f"tuned model's own is a little hopeful: by at most {chosen['optimism_at_most']:.4f} of {first.title} on "
        "average, were the evaluations equally good and independent. data.test_fraction holds out rows that choose "
        "nothing."
    )


def scatter(metrics: Mapping[str, Any]) -> list[str]:
    """How figures scatter over draws of so few rows of train; nothing where they are many."""
    first = headline_of(metrics)
    return [
        f"So few rows of train are a matter of luck: on {one['scatter']['draws']} draws from them, with replacement, "
        f"{name} has {one['scatter']['lowest']:.4f} to {one['scatter']['highest']:.4f} of {first.title} (standard "
        f"deviation {one['scatter']['standard_deviation']:.4f}). The tuned model rests on the same rows; what the seed "
        "alone does, --seeds shows."
        for name, one in metrics["baselines"].items()
        if "scatter" in one
    ]


def against_baselines(metrics: Mapping[str, Any]) -> str:
    """What the untuned model is worth."""
    kind, first = kind_of(metrics), headline_of(metrics)
    low, high = metrics["base"][f"eval_{first.name}_interval"]
    found = f"The {untuned(metrics)}'s {first.title} is {low:.4f} to {high:.4f}"
    name, what = kind.knows_nothing
    blind = metrics["baselines"].get(name)
    if blind and low <= blind[f"eval_{first.name}"] <= high:
        found += f": no better than {what} ({blind[f'eval_{first.name}']:.4f})"
    missing = [f"{name} failed and is left out ({why})." for name, why in metrics.get("baselines_left_out", {}).items()]
    return " ".join([f"{found}.", *missing])


def suspects(metrics: Mapping[str, Any]) -> str:
    """What leaving out the suspected label errors did to a cheap rival."""
    found, first = metrics["suspects"], headline_of(metrics)
    pair, (low, high) = found["comparison"], found["comparison"]["confidence_interval"]
    before, after = (found[f"fitted_{how}"][f"eval_{first.name}"] for how in ("with", "without"))
    shown = {"better": "better without them", "worse": "worse without them"}.get(pair["verdict"], "no difference shown")
    moved = f"{pair['difference']:+.4f}, {low:+.4f} to {high:+.4f}, p = {pair['p_value']:.3g}"
    return (
        f"{found['dropped']:,} train rows are left out because their label is suspected to be wrong, of "
        f"{found['looked_at']:,} looked at; suspects.jsonl lists them. {found['baseline']}, fitted with them and "
        f"without, has {first.title} {before:.4f} and {after:.4f} on the same rows ({moved}): {shown}."
    )


def cautions(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must know before any figure: of the data, of the training, and of the model."""
    dependence = metrics.get("batch_dependence")
    return [
        *metrics["data_checks"]["warnings"],
        *([suspects(metrics)] if "suspects" in metrics else []),
        *metrics.get("training_warnings", []),
        *([f"{dependence}; other software may not see to it"] if dependence else []),
    ]


_TESTS = {
    "mcnemar-exact": "exact McNemar",
    "permutation-by-group": "permutation by group",
    "permutation": "permutation",
}


def verdict(metrics: Mapping[str, Any]) -> str:
    """The headline, and the comparison behind it."""
    return f"{metrics['headline']} {comparison_sentence(metrics)}"


def comparison_sentence(metrics: Mapping[str, Any]) -> str:
    """Size, interval and test of a run's paired comparison, and what this test set could have shown."""
    comparison = metrics["comparison"]
    low, high = comparison["confidence_interval"]
    test = _TESTS[comparison["test"]]
    changed = comparison["fixed"] is not None
    how = f"{test} p = {comparison['p_value']:.3g}"
    how = f"); {comparison['fixed']} examples fixed, {comparison['broken']} broken ({how}" if changed else f"; {how}"
    least = comparison["smallest_significant_difference"]
    sight = f" Differences under {least:.4f} could not have been told from chance." if least is not None else ""
    return (
        f"Against the {untuned(metrics)} {headline_of(metrics).title} changes by {comparison['difference']:+.4f} "
        f"({comparison['confidence']:.0%} interval {low:+.4f} to {high:+.4f}, n = {comparison['n']:,}{how})."
        f"{sight}"
    )


def learning_curve(found: Mapping[str, Any]) -> FittedTable:
    """The headline by rows of train: measured, by the fitted curve, and what more rows would bring by it."""
    title = f"{headline_of(found).heading} on {found['evaluated_split']} by rows of train ({found['method']})"
    table = FittedTable(title, CURVE)
    for row in curve_rows(found):
        table.add_row(*row)
    return table


def curve_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of a learning curve's table, a row for each measured size and each multiple of train."""
    return [
        *([f"{one['rows']:,}", f"{one['mean']:.4f}", f"{one['standard_deviation']:.4f}", f"{one['fitted']:.4f}", "", "",
           ""] for one in found["points"]),
        *([f"{one['rows']:,}", "", "", f"{one['accuracy']:.4f}", "{:.4f} to {:.4f}".format(*one["accuracy_band"]),
           f"{one['gain']:+.4f}", "{:+.4f} to {:+.4f}".format(*one["gain_band"])] for one in found["more"]),
    ]  # fmt: skip


def runs(rows: Sequence[Mapping[str, Any]], kind: Answer) -> FittedTable:
    """Figures of several runs."""
    shown = [one for one in statistics_of(kind) if one.hub]
    leaving = [Column(one.title, 2 * index - 1 if index else 0) for index, one in enumerate(shown)]
    table = FittedTable("Runs", [Column("run", words=True), *leaving, Column("trainable parameters", 2)])
    for row in rows:
        parameters = row.get("trainable_parameters")
        figures = (row[f"eval_{one.name}"] for one in shown)
        table.add_row(row["run"], *(f"{one:.4f}" for one in figures), f"{parameters:,}" if parameters else "")
    return table


def over_seeds(found: Mapping[str, Any]) -> FittedTable:
    """Every seed's figures, then their mean and standard deviation."""
    first, *others = (one for one in statistics_of(kind_of(found)) if one.in_evaluations)
    columns = [
        Column("seed"), Column("untuned model", 1), Column(first.title),
        *(Column(one.title, 3 + index) for index, one in enumerate(others)), Column("verdict", 2, words=True),
    ]  # fmt: skip
    title = f"{first.heading} on {found['evaluated_split']} by seed"
    table = FittedTable(title, columns)
    for cells in seed_rows(found):
        table.add_row(*cells)
    return table


def seed_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of that table."""
    names = [f"eval_{one.name}" for one in statistics_of(kind_of(found)) if one.in_evaluations]
    pooled, mean, deviation = found["pooled"], found["mean"], found["standard_deviation"]
    return [
        *([str(one["seed"]), f"{one['base']:.4f}", *(f"{one[name]:.4f}" for name in names), one["verdict"]]
          for one in found["runs"]),
        ["mean", f"{pooled['base']:.4f}", *(f"{mean[name]:.4f}" for name in names), pooled["verdict"]],
        ["standard deviation", "", *(f"{deviation[name]:.4f}" for name in names), ""],
    ]  # fmt: skip


def seeds(found: Mapping[str, Any], kind: type[Answer] | Answer) -> str:
    """Runs that differ in nothing but their seed, in one sentence."""
    first = headline(kind)
    mean, deviation, (least, most) = (
        found[key][f"eval_{first.name}"] for key in ("mean", "standard_deviation", "range")
    )
    return (
        f"{len(found['runs'])} runs differ only in their seed: {first.title} {mean:.4f}, "
        f"standard deviation {deviation:.4f}, from {least:.4f} to {most:.4f}."
    )


def comparisons(rows: Sequence[Mapping[str, Any]], title: str = "Paired comparison on the same rows") -> FittedTable:
    """One row a pair of runs."""
    columns = [
        Column("run", words=True), Column("against", words=True), Column("difference"), Column("95 % interval", 2),
        Column("fixed", 6), Column("broken", 5), Column("p", 4), Column("p (Holm)", 3), Column("verdict"),
    ]  # fmt: skip
    columns += [Column("not inferior", 1)] if any("margin" in row for row in rows) else []
    table = FittedTable(title, columns)
    for row in rows:
        low, high = row["confidence_interval"]
        table.add_row(
            row["run"],
            row["against"],
            f"{row['difference']:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            *("" if row[key] is None else str(row[key]) for key in ("fixed", "broken")),
            f"{row['p_value']:.3g}",
            f"{row['p_value_holm']:.3g}",
            row["verdict"],
            *([f"{'yes' if row['not_inferior'] else 'not shown'} (by {row['margin']:g})"] if "margin" in row else []),
        )
    return table


def trial(
    one: Mapping[str, Any], before: Sequence[Mapping[str, Any]], compared_by: str, less_is_better: bool, left: float
) -> str:
    """What came of a trial, in a line.

    Args:
        before: all trials until then, this one among them.
        left: seconds that the others will take.
    """
    settings = "the recipe as it stands" if one["number"] == 0 else setting(one["settings"])
    if one["state"] == "complete":
        values = [other["value"] for other in before if other["state"] == "complete"]
        best = (min if less_is_better else max)(values)
        what = f"{figure_title(compared_by)} {one['value']:.4f} on validation"
        what += ", the best so far" if one["value"] == best and values.count(best) == 1 else ""
    else:
        what = f"{one['state']}: {one['reason']}"
    after = f"; about {_duration(left)} left" if 0 < left < float("inf") else ""
    return f"trial {one['number']} ({settings}): {what}; {_duration(one['seconds'])}{after}"


def setting(settings: Mapping[str, Any]) -> str:
    """A trial's settings, in a line."""
    return ", ".join(f"{key} {as_text(value)}" for key, value in zip(keys(settings), settings.values(), strict=True))


def keys(settings: Iterable[str]) -> list[str]:
    """Dotted keys as people call them: by their last part, where no other ends so; ``method.name`` is the method."""
    whole = list(settings)
    last = [key.removesuffix(".name").rpartition(".")[2] for key in whole]
    return [short if last.count(short) == 1 else key for key, short in zip(whole, last, strict=True)]


def figure_title(name: str) -> str:
    """What ``eval_<name>`` is called."""
    return name.removeprefix("eval_").replace("_", " ")


def trials(found: Mapping[str, Any]) -> FittedTable:
    """Every trial with its settings and its figure on validation."""
    names = list(found["parameters"])
    columns = [
        Column("trial"), *(Column(key, 4 + place) for place, key in enumerate(keys(names))),
        Column(figure_title(found["compared_by"])), Column("seconds", 3), Column("what came of it", words=True),
    ]  # fmt: skip
    table = FittedTable(f"Trials, on {found['selection']['split']}", columns)
    for cells in trial_rows(found):
        table.add_row(*cells)
    return table


def trial_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of that table."""
    names, winner = list(found["parameters"]), found["winner"]["trial"]
    rows = []
    for one in found["trials"]:
        came = "the winner" if one["number"] == winner else one["reason"] or ""
        recipe = "the recipe as it stands" if one["number"] == 0 else ""
        rows.append(
            [
                str(one["number"]),
                *(as_text(one["settings"][key]) if key in one["settings"] else "" for key in names),
                "" if one["value"] is None else f"{one['value']:.4f}",
                f"{one['seconds']:.1f}",
                "; ".join(filter(None, [recipe, came])),
            ]
        )
    return rows


def importance(found: Mapping[str, Any]) -> FittedTable:
    """How much of the trials' scatter each key explains."""
    table = FittedTable(
        f"What mattered ({found['importance']['method']} of {found['importance']['trials']} trials)",
        [Column("key", words=True), Column("share of the scatter")],
    )
    for key, share in found["importance"]["shares"].items():
        table.add_row(key, f"{share:.0%}")
    return table


def plan(found: Mapping[str, Any]) -> FittedTable:
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


def methods(found: Mapping[str, Mapping[str, Any]]) -> FittedTable:
    """The methods of tuning; of a model that was asked about, whether they tune it."""
    asked = any("refuses" in one for one in found.values())
    columns = [Column("method", words=True), Column("trains", words=True), Column("merges"), Column("packed")]
    table = FittedTable("Methods", [*columns, *([Column("tunes this model")] if asked else [])])
    for name, one in found.items():
        own = ["no" if one["refuses"] else "yes"] if asked else []
        table.add_row(name, one["trains"], *("yes" if one[key] else "no" for key in ("merges", "packs")), *own)
    return table


def predict_command(run: Path, metrics: Mapping[str, Any]) -> str:
    """What a shell takes to ask the run about one of its own held-out rows."""
    text = metrics.get("text_to_try") or "A text to classify."
    one, is_pair, other = text.partition(JOINT)
    second = f" --text-pair {shlex.quote(other)}" if is_pair else ""
    return f"featherweight predict {shlex.quote(str(run))} --text {shlex.quote(one)}{second}"


def command(line: str) -> Any:
    """A line to copy, which is never broken."""
    from rich.text import Text

    return Text(f"  {line}", no_wrap=True, overflow="ignore")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def key_values(title: str, values: Mapping[str, Any]) -> FittedTable:
    """Facts, one a line, as people write them."""
    table = FittedTable(title, [Column("", words=True), Column("", words=True)], head=False)
    for key, value in values.items():
        table.add_row(*_readable(key, value))
    return table


def _readable(key: str, value: Any) -> tuple[str, str]:
    """A key without underscores and its value: numbers with their thousands or to three digits, no Python in it."""
    if key.endswith("_bytes") and isinstance(value, int):
        return key.removesuffix("_bytes").replace("_", " "), f"{value / 1e9:.1f} GB"
    return key if key.isupper() else key.replace("_", " "), as_text(value)


def as_text(value: Any) -> str:
    for kind, write in _WRITTEN.items():
        if isinstance(value, kind):
            return write(value)
    return str(value)


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _MOST_LISTED:,} more" if len(parts) > _MOST_LISTED else ""
    return f"{', '.join(parts[:_MOST_LISTED])}{more}" if parts else "none"


_WRITTEN: dict[type, Callable[[Any], str]] = {  # the first that fits: True is an int, too
    type(None): lambda value: "none",
    bool: lambda value: "yes" if value else "no",
    int: lambda value: f"{value:,}",
    float: lambda value: f"{value:.3g}",
    dict: lambda value: _listed([f"{key} {as_text(part)}" for key, part in value.items()]),
    list: lambda value: _listed([as_text(part) for part in value]),
    tuple: lambda value: _listed([as_text(part) for part in value]),
}
