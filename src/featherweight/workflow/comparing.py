"""Several finished runs at once, from their files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featherweight.report import tables
from featherweight.report.console import Console
from featherweight.runs.directory import RunDirectory
from featherweight.sources import archives
from featherweight.storage.names import apart


def compare(
    runs: Sequence[str], *, margin: float | None = None, console: Console | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Compare finished runs on the rows that all of them predicted; loads no model.

    One run is compared with its own base model; of several, each is compared with the first, and of more than two
    every pair by accuracy. Where the recipes group rows (``data.group``), whole groups are drawn and exchanged.

    Args:
        margin: a loss of accuracy that would not matter; each comparison then says whether more than it is ruled out.

    Returns:
        ``comparisons``, one a pair with the first; ``pairs``, all of them; ``runs``, each one's figures; ``seeds``,
        mean and standard deviation over runs that differ in nothing but their seed.

    Raises:
        DataError: the runs were not measured on the same rows.
    """
    console = console or Console(quiet=True)
    named = [(name, RunDirectory(archives.unpacked(name))) for name in runs]
    return _compared(named, _metrics_of(named), margin, console)


def _compared(
    runs: Sequence[tuple[str, RunDirectory]],
    metrics: Mapping[str, Mapping[str, Any]],
    margin: float | None,
    console: Console,
) -> dict[str, list[dict[str, Any]]]:
    """:func:`compare`, of runs with the names that they are to have in it."""
    from featherweight.evidence import several

    (name, first), *others = runs
    sides = [(name, run.read_predictions("tuned", metrics[name]["evaluated_split"])) for name, run in runs]
    if not others:
        sides.insert(0, ("its base model", first.read_predictions("base", metrics[name]["evaluated_split"])))
    environments = {name: run.read_environment() for name, run in runs}
    # Alone, a run says what its report says.
    seed = 0 if others else environments[name]["identity"].get(several.SEED, 0)
    rows = several.against_first(sides, margin, seed)
    pairs = several.every_pair(sides)
    figures = several.table(sides, metrics)
    kind = sides[0][1].kind
    seeds = several.over_seeds(figures, environments, kind)
    console.show(tables.runs(figures, kind), tables.comparisons(rows))
    if len(sides) > 2:
        console.show(tables.comparisons(pairs, "Every pair"))
    console.show(*(tables.seeds(one, kind) for one in seeds))
    return {"comparisons": rows, "pairs": pairs, "runs": figures, "seeds": seeds}


def _metrics_of(runs: Sequence[tuple[str, RunDirectory]]) -> dict[str, dict[str, Any]]:
    return {name: run.read_metrics() for name, run in runs}


def report(runs: Sequence[str], output: str | Path | None = None, *, console: Console | None = None) -> Path:
    """Write ``report.html`` of a finished run again, or of several side by side, from their files alone.

    Several are called by their paths without the folders that lead to all of them.

    Args:
        output: where to; the run's own ``report.html`` if None, or ``report.html`` here for several runs or an archive.

    Raises:
        ModelError: a run is not complete.
        DataError: several runs were not measured on the same rows.
    """
    from featherweight.report import page

    console = console or Console(quiet=True)
    called = [(name, RunDirectory(archives.unpacked(path))) for name, path in zip(apart(runs), runs, strict=True)]
    (_, first), *others = called
    metrics = _metrics_of(called)
    one_folder = not others and not archives.is_archive(runs[0])
    if others:
        html = page.several_runs(metrics, _compared(called, metrics, None, Console(quiet=True)))
    else:
        (of_first,) = metrics.values()
        html = page.one_run(first, of_first)
    target = Path(output) if output else first.report if one_folder else Path("report.html")
    first.write_text(target, html)
    console.say(f"{target}: written")
    return target
