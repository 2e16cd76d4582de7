"""``report.html``: one self-contained file, from a run's own files alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from featherweight import __version__
from featherweight.answers import kind_of
from featherweight.evidence import winner
from featherweight.evidence.verdict import of_several
from featherweight.report import sections, svg, tables, trials
from featherweight.runs.directory import RunDirectory
from featherweight.storage.names import printable


def one_run(run: RunDirectory, metrics: Mapping[str, Any]) -> str:
    """The page of one run, which is finished or about to be: ``metrics.json`` itself is not read."""
    return _render(
        title=run.path.resolve().name,
        verdict=metrics["headline"],
        lead=[tables.comparison_sentence(metrics), tables.against_baselines(metrics)],
        care=tables.cautions(metrics),
        sections=sections.of_run(run, metrics),
    )


def several_runs(metrics: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]) -> str:
    """The page of several runs side by side.

    Args:
        metrics: content of ``metrics.json`` for each run, by the run's name.
        together: what :func:`featherweight.workflow.compare` gave for them.
    """
    rows, kind = together["comparisons"], kind_of(next(iter(metrics.values())))
    return _render(
        title=f"{len(metrics)} runs",
        verdict=of_several(rows[0]["against"], rows, kind),
        lead=[tables.seeds(one, kind) for one in together["seeds"]],
        care=[],
        sections=sections.of_several(metrics, together),
    )


def several_seeds(found: Mapping[str, Any]) -> str:
    """The page of one recipe with several seeds.

    Args:
        found: what :func:`featherweight.workflow.run_seeds` gave.
    """
    return _render(
        title=f"{found['recipe']}: {len(found['runs'])} seeds",
        verdict=found["headline"],
        lead=[],
        care=[],
        sections=sections.of_seeds(found),
    )


def one_curve(found: Mapping[str, Any]) -> str:
    """The page of a learning curve.

    Args:
        found: what :func:`featherweight.workflow.learning_curve` gave.
    """
    return _render(
        title=f"{found['recipe']}: learning curve",
        verdict=found["headline"],
        lead=[],
        care=[],
        sections=sections.of_curve(found),
    )


def one_sweep(found: Mapping[str, Any]) -> str:
    """The page of a sweep.

    Args:
        found: the content of ``sweep.json``.
    """
    return _render(
        title=f"{found['recipe']}: {len(found['trials'])} trials",
        verdict=found["headline"],
        lead=[winner.flattery(found, kind_of(found)), f"The winner: {found['winner']['headline']}"],
        care=[],
        sections=trials.sections(found),
    )


def _visible(text: str) -> str:
    """With what no page may hold as escapes: control characters of ASCII but line ends and tabs."""
    return "".join(
        printable(char) if char == "\x7f" or (char < " " and char not in "\n\r\t") else char for char in text
    )


def _render(**context: Any) -> str:
    import jinja2

    assets = files("featherweight.report") / "assets"
    script = (assets / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if not isinstance(value, str) or isinstance(value, Markup) else _visible(value),
        loader=jinja2.FunctionLoader(lambda name: (assets / name).read_text(encoding="utf-8")),
    )
    return environment.get_template("report.html.j2").render(
        **context,
        draw=svg.draw,
        version=__version__,
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
